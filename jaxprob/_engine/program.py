"""The compiled steps of a learner, made once for all runs that take the same ones.

The state is cut into arrays and the rest once, outside the loop: `jax.jit` on the array
half is what `eqx.filter_jit` does, less its work in each call.
"""

import functools
import weakref
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from .._jaxpr.host_errors import checks_give_nan, has_checks
from .._jaxpr.traced import Traced
from .._random.keys import step_key
from .._training.batch import weight
from .._training.call_loss import checked_info
from .._training.capabilities import AbstractMembers, AbstractSequentialMembers
from .._training.learner import AbstractLearner
from .._types import PRNGKey
from .dispatch_size import can_fuse
from .layout import Layout
from .outside_values import HostRandom, Outside, is_current
from .per_object import PerObject
from .stacking import at, gather, strongly_typed
from .state_shardings import state_shardings
from .totals import Totals, over_members

Carry = tuple[PyTree, Array, Totals]
"""The arrays of the state, the number of the next step, and the metrics' sums."""

Metrics = dict[str, Array]


class Program:
    """Steps of one learner on states of one structure, on one layout of devices.

    **Arguments:**

    - `learner`: held by a weak reference; the caller of the program holds it.
    - `arrays`, `static`: the two halves of a state.
    - `layout`: the devices.
    - `donates`: whether a dispatch consumes the buffers of the state that it is given.
    """

    def __init__(
        self,
        learner: AbstractLearner,
        arrays: PyTree,
        static: PyTree,
        layout: Layout,
        donates: bool = True,
    ):
        self.layout = layout
        self.donates = donates
        self.shardings: Any = None
        # Sequential members have a device to themselves, one after the other.
        members = learner.capability(AbstractSequentialMembers)
        self.num_sequential: int | None = None
        if members is not None and layout.is_single:
            self.num_sequential = members.num_members
        # Steps in a dispatch for batches of so many bytes, where that was timed.
        self.settled: dict[int, int] = {}
        self._learner = weakref.ref(learner)
        self._static = static
        self.fused, self.checked = True, False
        self.outside = Outside(learner, static)
        self._traced: tuple[Any, Traced] | None = None
        out: dict[str, Any] = {}
        if not layout.is_single:
            self.shardings = state_shardings(layout, learner, arrays)
            everywhere = layout.everywhere
            carry = (self.shardings, everywhere, everywhere)
            out = {"out_shardings": (carry, everywhere)}
        donated = (0,) if donates else ()
        self._one = jax.jit(self._single, donate_argnums=donated, **out)
        self._many = jax.jit(self._several, donate_argnums=donated, **out)
        # A separate program: fused with the steps it would let them round otherwise.
        self.gather = jax.jit(gather)

    @classmethod
    def of(
        cls,
        learner: AbstractLearner,
        arrays: PyTree,
        static: PyTree,
        layout: Layout,
        donates: bool = True,
    ) -> "Program":
        """Return the program made for this learner and such a state, or a new one."""
        leaves, structure = jax.tree.flatten(static)
        # 1, 1.0 and True are equal, and no two of them do the same.
        kinds = tuple((type(leaf), leaf) for leaf in leaves)
        # Where members lie depends on the shapes of the arrays.
        shapes = () if layout.is_single else _shapes(arrays)
        key = (layout, donates, structure, kinds, shapes)
        return _PROGRAMS.get(
            learner,
            key,
            lambda: cls(learner, arrays, static, layout, donates),
            lambda made: is_current(learner, made.outside, Outside(learner, static)),
        )

    def trace(self, arrays: PyTree, key: PRNGKey, batch: PyTree) -> None:
        """Trace the step, before it first runs, and decide how it is to run.

        Then `fused` says whether many steps run in a loop as fast as one by one, and
        `checked` whether it has checks that cannot raise on several devices. The Python
        code of the learner is not run again for batches of the same shape.
        """
        if self._traced is not None:
            return
        if self.num_sequential is not None:
            arrays = at(arrays, 0)
        host_random = HostRandom()
        index = jnp.zeros((), jnp.int32)
        traced = Traced(self._step, arrays, batch, key, index)
        self._traced = _shape_key(batch), traced
        jaxpr = traced.program
        after = Outside(self._learner(), self._static)
        written = self.outside.changed(after)
        host_random.check(written)
        self.outside.leave_out(written)
        self.fused = can_fuse(jaxpr.jaxpr)
        self.checked = self.shardings is not None and has_checks(jaxpr.jaxpr)

    def no_totals(self) -> Totals:
        """Return sums of the metrics over no step."""
        lead = () if self.num_sequential is None else (self.num_sequential,)
        totals = Totals.zeros(self._metrics, lead)
        if self.shardings is None:
            return totals
        return self.layout.place(totals, self.layout.everywhere)

    def one(self, carry: Carry, key: PRNGKey, batch: PyTree) -> tuple[Carry, Metrics]:
        """Make one step. It consumes the carry, if the program donates."""
        return self._each_member(self._one, carry, key, batch)

    def many(
        self, carry: Carry, key: PRNGKey, stack: PyTree, num: int
    ) -> tuple[Carry, Metrics]:
        """Make the first `num` steps of a stack; return the metrics of each."""
        return self._each_member(self._many, carry, key, stack, np.int32(num))

    def _each_member(self, run, carry, *args):
        if self.num_sequential is None:
            return run(carry, *args, np.int32(0))
        # Each member by the program that would train it alone, and so with its bits.
        done = []
        for index in map(np.int32, range(self.num_sequential)):
            done.append(run(_member(carry, index), *args, index))
        return _together(done)

    @property
    def _metrics(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the metrics of a step."""
        assert self._traced is not None
        return self._traced[1].shapes[1]

    def _step(self, arrays, batch, key, index):
        """The arrays of the next state, and the metrics."""
        learner = self._learner()
        assert learner is not None  # the caller of the program holds it
        state = eqx.combine(arrays, self._static)
        update = self._update_of(learner, index)
        return _checked(learner, state, update(state, batch, key=key))

    def _update_of(self, learner, index):
        """The function that makes a step of the learner, or of one of its members."""
        if self.num_sequential is not None:
            member = learner.capability(AbstractSequentialMembers)
            return functools.partial(member.update_member, index=index)
        if self.layout.members > 1:
            return learner.capability(AbstractMembers).update_members
        return learner.update

    def _advance(self, carry, key, batch, index):
        if self.checked:
            return checks_give_nan(self._update)(carry, key, batch, index)
        return self._update(carry, key, batch, index)

    def _update(self, carry, key, batch, index):
        arrays, step, totals = carry
        make_step: Any = self._step
        if self._traced is not None and self._traced[0] == _shape_key(batch):
            make_step = self._traced[1]
        arrays, info = make_step(arrays, batch, step_key(key, step), index)
        totals = totals.add(info, weight(batch))
        arrays = jax.tree.map(strongly_typed, arrays)
        if self.shardings is not None:
            arrays = jax.lax.with_sharding_constraint(arrays, self.shardings)
            info, totals = self.layout.keep_members_apart((info, totals))
        return (arrays, step + 1, totals), info

    def _single(self, carry, key, batch, index):
        carry, info = self._advance(carry, key, batch, index)
        return carry, over_members(info, 0)

    def _several(self, carry, key, stack, num: Int[Array, ""], index):
        def body(i, loop):
            carry, history = loop
            carry, info = self._advance(carry, key, at(stack, i), index)
            history = {k: history[k].at[i].set(info[k]) for k in history}
            return carry, history

        capacity = np.shape(jax.tree.leaves(stack)[0])[0]
        history = jax.tree.map(
            lambda v: jnp.zeros((capacity, *v.shape), v.dtype), self._metrics
        )
        carry, history = jax.lax.fori_loop(0, num, body, (carry, history))
        return carry, over_members(history, 1)


def _checked(learner, state, out):
    """The arrays of a new state, of the old one's structure, and metrics as arrays."""
    name = type(learner).__name__
    if not isinstance(out, tuple) or len(out) != 2:
        raise TypeError(
            f"{name}.update returned a {type(out).__name__}: return (state, info)"
        )
    new, info = out
    old, now = (eqx.filter(tree, eqx.is_array) for tree in (state, new))
    if jax.tree.structure(old) != jax.tree.structure(now):
        raise TypeError(
            f"{name}.update returned a state of another structure than it was given: "
            "every leaf that changes is an array from `init` on, and none comes or goes"
        )
    return now, checked_info(info)


_PROGRAMS: PerObject[Program] = PerObject()


def _shape_key(batch):
    """Structure, shapes and dtypes of a batch, on the host or inside a program."""
    leaves, structure = jax.tree.flatten(batch)
    shapes = [jax.typeof(jnp.asarray(leaf)) for leaf in leaves]
    return structure, [(s.shape, s.dtype) for s in shapes]


def _shapes(arrays):
    return tuple((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(arrays))


@jax.jit
def _member(carry, index):
    """The carry of one member, in new buffers."""
    arrays, step, totals = carry
    sums, weight = at(totals.sums, index), jnp.copy(totals.weight)
    return at(arrays, index), jnp.copy(step), Totals(sums, weight)


@jax.jit
def _together(done):
    """The carry of all members, and the means of their metrics."""
    carries, infos = zip(*done, strict=True)
    arrays, steps, totals = zip(*carries, strict=True)
    sums = [total.sums for total in totals]
    carry = _stacked(arrays), steps[0], Totals(_stacked(sums), totals[0].weight)
    return carry, jax.tree.map(lambda v: jnp.mean(v, 0), _stacked(infos))


def _stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
