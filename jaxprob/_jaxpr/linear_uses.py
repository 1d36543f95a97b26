r"""Uses of arrays as linear maps in a program: products, convolutions, added biases.

The program of one example is evaluated equation by equation. Views say which entries
of a weight an operand holds, so that a product with it, at any depth of calls and
scans, is a use $y_t = W a_t$ with known rows and columns of W. The result is recorded
as well, so that an array that is added to it alone is its bias.

`TappedProgram` returns the inputs $a_t$ of all uses and adds a probe to each $y_t$. The
derivative in a probe is that in $y_t$, under any `vmap`, loop or checkpoint of the
model's: those are gone, or are equations, in its program.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from .equation import equation_as_function, loop_operands, results, without_literals
from .products import Product, convolution, matrix_product
from .views import View, rearranged


class Use(NamedTuple):
    """A product of a weight with inputs.

    **Fields:**

    - `weight`: number of the argument that holds it.
    - `index`: where each entry of each matrix stands in the flat weight, of shape
        `(groups, out, in)`. Inputs have the shape `(groups, uses, in)`, and results and
        probes `(groups, uses, out)`.
    """

    weight: int
    index: np.ndarray


class Shift(NamedTuple):
    """A bias that is added to the results of a use and to nothing else there.

    **Fields:**

    - `use`: number of the use.
    - `bias`: number of the argument that holds the bias.
    - `index`: where the entry of each output stands in it, `(groups, out)`.
    """

    use: int
    bias: int
    index: np.ndarray


class _Result(NamedTuple):
    """The name of a view of the results of a use."""

    use: int


class TappedProgram:
    """A program with all uses of some of its arguments as linear maps.

    **Arguments:**

    - `closed`: the program, whose first arguments are the weights.
    - `weights`: numbers of the arguments to look for.

    **Fields:**

    - `uses`, `shifts`: what was found, in the order of the program.
    - `others`: numbers of the arguments that are also read in another way.
    - `inputs`: shape of the inputs of each use.
    """

    def __init__(self, closed: ClosedJaxpr, weights: Sequence[int]):
        self.closed = closed
        self.weights = tuple(weights)
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in closed.in_avals]
        found = []

        def trace(*args):
            found.append(self._run(args, None))
            return found[-1].inputs

        self.inputs: list[Any] = jax.eval_shape(trace, *shapes)
        run = found[-1]
        self.uses: list[Use] = run.uses
        self.shifts: list[Shift] = run.shifts
        self.others: set[int] = run.others

    @property
    def probes(self) -> list[Any]:
        """Shape and dtype of each probe."""
        return [
            jax.ShapeDtypeStruct((*a.shape[:2], use.index.shape[1]), a.dtype)
            for a, use in zip(self.inputs, self.uses, strict=True)
        ]

    def __call__(
        self, args: Sequence[Any], probes: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        """Return the outputs of the program and the inputs of its uses."""
        run = self._run(args, probes)
        return run.outputs, run.inputs

    def _run(self, args, probes):
        views: list[View | None] = [None] * len(args)
        for number in self.weights:
            shape = self.closed.in_avals[number].shape
            index = np.arange(int(np.prod(shape))).reshape(shape)
            views[number] = View(number, index)
        run = _Run(probes)
        jaxpr, consts = self.closed.jaxpr, self.closed.consts
        run.outputs, last = run.evaluate(jaxpr, consts, args, views)
        for view in last:
            run.read_otherwise(view)
        return run


class _Run:
    """One evaluation of a program; collects what `TappedProgram` describes."""

    def __init__(self, probes):
        self.probes = probes
        self.uses: list[Use] = []
        self.shifts: list[Shift] = []
        self.others: set[int] = set()
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def read_otherwise(self, view):
        if view is not None and not isinstance(view.source, _Result):
            self.others.add(view.source)

    def evaluate(self, jaxpr, consts, args, views):
        """Evaluate a program, and return its outputs and their views."""
        env = dict(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))
        seen = dict(zip(jaxpr.invars, views, strict=True))
        readers = Counter(
            var
            for eqn in [*jaxpr.eqns, jaxpr]
            for var in (eqn.outvars if eqn is jaxpr else eqn.invars)
            if not isinstance(var, Literal)
        )

        def read(var):
            return var.val if isinstance(var, Literal) else env[var]

        def view_of(var):
            view = None if isinstance(var, Literal) else seen.get(var)
            # A result that has other readers reaches the output without the bias too.
            is_result = view is not None and isinstance(view.source, _Result)
            return None if is_result and readers[var] > 1 else view

        for eqn in jaxpr.eqns:
            values, operands = map(read, eqn.invars), map(view_of, eqn.invars)
            outs, views = self._equation(eqn, list(values), list(operands))
            env.update(zip(eqn.outvars, outs, strict=True))
            seen.update(zip(eqn.outvars, views, strict=True))
        return list(map(read, jaxpr.outvars)), list(map(view_of, jaxpr.outvars))

    def _equation(self, eqn, values, views):
        name = eqn.primitive.name
        none = [None] * len(eqn.outvars)
        if name in _CALLS and any(view is not None for view in views):
            inner = eqn.params["jaxpr"]
            inner = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
            return self.evaluate(inner.jaxpr, inner.consts, values, views)
        weights = [
            view is not None and not isinstance(view.source, _Result) for view in views
        ]
        if name == "scan" and any(weights):
            return self._scan(eqn, values, views), none
        outs = _results(eqn, values)
        if len(views) == 1 and views[0] is not None:
            indices = rearranged(eqn, views[0].index)
            if indices is not None:
                return outs, [View(views[0].source, index) for index in indices]
        if name in _PRODUCTS and sum(weights) == 1:
            side = weights.index(True)
            product = _PRODUCTS[name](eqn, values, views[side].index, side)
            if product is not None:
                return self._use(views[side].source, product, outs[0])
        if name in _SUMS:
            shape = eqn.outvars[0].aval.shape
            view = self._sum(views, shape, subtracted=name == "sub")
            if view is not None:
                return outs, [view]
        for view in views:
            self.read_otherwise(view)
        return outs, none

    def _use(self, weight, product: Product, out):
        number = len(self.uses)
        self.uses.append(Use(weight, product.index))
        self.inputs.append(product.inputs)
        if self.probes is not None:
            out = out + product.place(self.probes[number]).astype(out.dtype)
        shape = (*product.inputs.shape[:2], product.index.shape[1])
        entries = np.arange(int(np.prod(shape))).reshape(shape)
        return [out], [View(_Result(number), product.place(entries))]

    def _sum(self, views, shape, subtracted):
        """The view of a sum of results and anything, which keeps their derivatives."""
        ours = [v is not None and isinstance(v.source, _Result) for v in views]
        if not any(ours) or (subtracted and not ours[0]):
            return None
        side = ours.index(True)
        # Axes of size one are repeated.
        result, other = (
            view and View(view.source, np.broadcast_to(view.index, shape))
            for view in (views[side], views[1 - side])
        )
        is_bias = not subtracted and other is not None and self._shift(result, other)
        if not is_bias:
            self.read_otherwise(other)
        return result

    def _shift(self, result, bias):
        """Note a bias, if each result gets the entry of its output."""
        if isinstance(bias.source, _Result):
            return False
        number = result.source.use
        groups, outs, _ = self.uses[number].index.shape
        uses = self.inputs[number].shape[1]
        count = groups * uses * outs
        if len(np.unique(result.index)) != count or groups * outs != len(
            np.unique(bias.index)
        ):
            return False
        entries = result.index.ravel()
        output = entries // (uses * outs) * outs + entries % outs
        index = np.zeros(groups * outs, int)
        index[output] = bias.index.ravel()
        if not np.array_equal(index[output], bias.index.ravel()):
            return False
        shape = (groups, outs)
        self.shifts.append(Shift(number, bias.source, index.reshape(shape)))
        return True

    def _scan(self, eqn, values, views):
        """A loop: each step is a use, or a group where the loop goes over weights."""
        length, body = eqn.params["length"], eqn.params["jaxpr"]
        fixed, carried = loop_operands(eqn)
        first = fixed + carried
        ours = []
        for number, view in enumerate(views):
            if view is None or isinstance(view.source, _Result):
                continue
            if fixed <= number < first:
                self.others.add(view.source)
            else:
                ours.append(number)
        inner = TappedProgram(body, ours)
        start = len(self.uses)
        self.others |= {views[number].source for number in inner.others}

        def is_stacked(number):
            return number >= first

        probes = None
        if self.probes is not None:
            probes = [
                _steps(probe, length, is_stacked(use.weight))
                for use, probe in zip(inner.uses, self.probes[start:], strict=False)
            ]

        def step(carry, slices):
            rows, some = slices
            outs, inputs = inner([*values[:fixed], *carry, *rows], some)
            return outs[:carried], (outs[carried:], inputs)

        if probes is None:
            probes = [jnp.zeros((length, *p.shape), p.dtype) for p in inner.probes]
        carry, (rows, inputs) = jax.lax.scan(
            step, values[fixed:first], (values[first:], probes), length,
            eqn.params["reverse"], eqn.params["unroll"],
        )  # fmt: skip
        for use, a in zip(inner.uses, inputs, strict=True):
            stacked, view = is_stacked(use.weight), views[use.weight]
            self.uses.append(Use(view.source, _outer(view, use.index, stacked)))
            self.inputs.append(_whole(a, stacked))
        for shift in inner.shifts:
            stacked, view = is_stacked(shift.bias), views[shift.bias]
            if stacked != is_stacked(inner.uses[shift.use].weight):
                self.others.add(view.source)
                continue
            index = _outer(view, shift.index, stacked)
            self.shifts.append(Shift(start + shift.use, view.source, index))
        return [*carry, *rows]


_CALLS = {"jit", "pjit", "closed_call", "remat2", "checkpoint"}
_SUMS = {"add", "add_any", "sub"}
_PRODUCTS = {"dot_general": matrix_product, "conv_general_dilated": convolution}


def _results(eqn, values):
    """The results of an equation; `None` for those that nothing reads."""
    outs = equation_as_function(eqn)(*without_literals(eqn, values))
    kept = dict(zip(results(eqn), outs, strict=True))
    return [kept.get(var) for var in eqn.outvars]


def _outer(view, index, stacked):
    """The index in the source outside of a loop, for that inside of its body."""
    if not stacked:
        return view.index.ravel()[index]
    flat = view.index.reshape(len(view.index), -1)[:, index]
    return flat.reshape(-1, *index.shape[1:])


def _whole(array, stacked):
    """Arrays `(steps, groups, uses, width)` of all steps as one, by group."""
    steps, groups, uses, width = array.shape
    if stacked:
        return array.reshape(steps * groups, uses, width)
    return jnp.swapaxes(array, 0, 1).reshape(groups, steps * uses, width)


def _steps(array, steps, stacked):
    """Inverse of `_whole`."""
    groups, uses, width = array.shape
    if stacked:
        return array.reshape(steps, groups // steps, uses, width)
    array = array.reshape(groups, steps, uses // steps, width)
    return jnp.swapaxes(array, 0, 1)
