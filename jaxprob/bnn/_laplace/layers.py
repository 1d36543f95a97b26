"""Parts of the weights that have a pair of Kronecker factors each, found in a program.

A leaf that the program reads as linear maps alone, at whatever depth of loops and
`vmap`, is a layer, together with the bias that is added to its results. Any other leaf
has its own block, from the derivatives in the leaf.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ... import tree
from ..._jaxpr.linear_uses import TappedProgram, Use
from ..._types import Model
from .._joint.log_joint import LogJoint
from .._weights.unconstrained import constrained

LARGEST_FACTOR = 16384
"""Rows of the largest factor: its eigenvectors in single precision have a gigabyte."""


class Part(eqx.Module):
    r"""Weights with a pair of factors.

    **Fields:**

    - `kind`: `"layer"`, read as $W a$; `"vector"` of any use, whose block is exact;
        or `"table"`, an array of several axes of any use.
    - `path`: of the leaf.
    - `leaf`: number of the leaf among the chosen ones.
    - `start`, `bias_start`: first place of weights and bias in the vector of all;
        `None` without a bias.
    - `shape`: groups, outputs and inputs, without the bias.
    - `transposed`: whether the leaf has its inputs before its outputs.
    - `uses`: numbers of the uses in the program.
    """

    kind: Literal["layer", "vector", "table"] = eqx.field(static=True)
    path: str = eqx.field(static=True)
    leaf: int = eqx.field(static=True)
    start: int = eqx.field(static=True)
    bias_start: int | None = eqx.field(static=True)
    shape: tuple[int, int, int] = eqx.field(static=True)
    transposed: bool = eqx.field(static=True)
    uses: tuple[int, ...] = eqx.field(static=True)


class Orders(NamedTuple):
    """Order of groups, outputs and inputs of a use that is the order in the leaf."""

    groups: np.ndarray
    outs: np.ndarray
    ins: np.ndarray

    @staticmethod
    def of(use: Use) -> "Orders":
        index = use.index
        firsts = index[:, 0, 0], index[0, :, 0], index[0, 0]
        return Orders(*map(np.argsort, firsts))

    def sorted(self, index: np.ndarray) -> np.ndarray:
        return index[self.groups][:, self.outs][:, :, self.ins]


def in_order(array: Array, orders: dict[int, np.ndarray]) -> Array:
    """Return the array with some of its axes in another order."""
    for axis, order in orders.items():
        if not np.array_equal(order, np.arange(len(order))):
            array = jnp.take(array, order, axis=axis)
    return array


class Layers:
    """All parts of the chosen weights, and the program of one row with taps.

    **Arguments:**

    - `joint`: the likelihood and `apply`.
    - `model`, `flags`: the mode and the chosen leaves.
    - `x`: rows, or their shapes.

    **Raises:** `ValueError` for a leaf whose factors have more than `LARGEST_FACTOR`
    rows.
    """

    def __init__(self, joint: LogJoint, model: Model, flags: PyTree[bool], x: PyTree):
        params, rest = eqx.partition(model, flags)
        leaves, treedef = jax.tree.flatten(params)

        def output(leaves, x):
            model = constrained(eqx.combine(jax.tree.unflatten(treedef, leaves), rest))
            return joint.apply(model, x, key=jax.random.key(0))

        row = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
        closed, shape = jax.make_jaxpr(output, return_shape=True)(leaves, row)
        self.leaves = leaves
        self.program = TappedProgram(closed, range(len(leaves)))
        self._structure = jax.tree.structure(shape)
        self.parts = _parts(self.program, list(tree.paths(params)), leaves)

    def orders(self, part: Part) -> list[tuple[int, Orders]]:
        """Return the uses of a layer, each with its orders."""
        return [(use, Orders.of(self.program.uses[use])) for use in part.uses]

    def probes(self) -> tuple[dict[int, Any], list[Any]]:
        """Return shapes of probes: for leaves that are no layers, and for all uses."""
        kinds = {part.leaf: part.kind for part in self.parts}
        probes = {i: self.leaves[i] for i, kind in kinds.items() if kind != "layer"}
        return probes, self.program.probes

    def __call__(
        self, probes: tuple[dict[int, Array], Sequence[Array]], x: PyTree
    ) -> tuple[PyTree, list[Array]]:
        """Return the output for a row and the inputs of all uses."""
        leaf_probes, use_probes = probes
        leaves = list(self.leaves)
        for number, probe in leaf_probes.items():
            leaves[number] = leaves[number] + probe
        outs, inputs = self.program([*leaves, *jax.tree.leaves(x)], use_probes)
        return jax.tree.unflatten(self._structure, outs), inputs


def _parts(program, paths, leaves):
    starts = np.cumsum([0, *(leaf.size for leaf in leaves)])
    layers, biases = {}, {}
    for number, leaf in enumerate(leaves):
        shape = _layer_shape(program, number, leaf)
        if shape is not None:
            layers[number] = shape
    for number in layers:
        bias = _bias(program, number, leaves)
        if bias is not None:
            biases[bias] = number
    bias_of = {number: bias for bias, number in biases.items()}
    parts = []
    for number, (path, leaf) in enumerate(zip(paths, leaves, strict=True)):
        if number in biases:
            continue
        bias_start, transposed, uses = None, False, ()
        if number in layers:
            kind = "layer"
            shape, transposed = layers[number]
            uses = _uses(program, number)
            if number in bias_of:
                bias_start = int(starts[bias_of[number]])
        elif leaf.ndim < 2:
            kind, shape = "vector", (1, 1, leaf.size)
        else:
            kind, shape = "table", _halves(leaf.shape)
        start = int(starts[number])
        part = Part(
            kind, path, number, start, bias_start, shape, transposed, tuple(uses)
        )
        _check_size(part)
        parts.append(part)
    return tuple(parts)


def _uses(program, number):
    return [i for i, use in enumerate(program.uses) if use.weight == number]


def _layer_shape(program, number, leaf):
    """Shape and orientation of a leaf whose uses are all of the same matrices."""
    uses = [program.uses[i] for i in _uses(program, number)]
    if number in program.others or not uses or leaf.ndim < 2:
        return None
    found = {_shape_of(use, leaf.size) for use in uses}
    return found.pop() if len(found) == 1 else None


def _shape_of(use, size):
    groups, outs, ins = shape = use.index.shape
    index = Orders.of(use).sorted(use.index)
    places = np.arange(groups * outs * ins)
    if size != places.size:
        return None
    if np.array_equal(index, places.reshape(shape)):
        return shape, False
    if np.array_equal(index, places.reshape(groups, ins, outs).swapaxes(1, 2)):
        return shape, True
    return None


def _bias(program, number, leaves):
    """The leaf that is added to the result of each use of this one and read nowhere
    else.
    """
    uses = _uses(program, number)
    groups, outs, _ = program.uses[uses[0]].index.shape
    shifts = [s for s in program.shifts if s.use in uses]
    biases = {s.bias for s in shifts}
    if len(biases) != 1:
        return None
    (bias,) = biases
    everywhere = [s.use for s in program.shifts if s.bias == bias]
    if sorted(everywhere) != uses or bias in program.others or _uses(program, bias):
        return None
    if leaves[bias].size != groups * outs:
        return None
    for shift in shifts:
        orders = Orders.of(program.uses[shift.use])
        index = shift.index[orders.groups][:, orders.outs]
        if not np.array_equal(index.ravel(), np.arange(index.size)):
            return None
    return bias


def _halves(shape):
    """Rows and columns of an array, as nearly square as its axes allow."""
    splits = [
        (math.prod(shape[:axis]), math.prod(shape[axis:]))
        for axis in range(1, len(shape))
    ]
    return (1, *min(splits, key=max))


def _check_size(part):
    largest = max(part.shape[1:])
    if largest > LARGEST_FACTOR:
        raise ValueError(
            f"no Kronecker factor for {part.path}: it would have {largest} x {largest} "
            f"numbers, and {LARGEST_FACTOR} rows are the most whose eigenvectors are "
            "computed. Leave the leaf out by `where`, or write structure='diagonal' "
            "or 'low_rank'."
        )
