"""Many optimiser steps in one dispatch.

A step of a small model computes for 20 microseconds and costs 60 more to hand to XLA.
So K batches are stacked and one program runs K steps: `lax.fori_loop` over a dynamic
number of them, which is one compilation for any number up to K and gives the same bits
as single steps. The state is cut into arrays and the rest once, outside the loop:
`jax.jit` on the array half is what `eqx.filter_jit` does, less its work in each call.

A learner with a convolution on CPU is run step by step (see `can_fuse`), a decision
taken from the program and never from a clock.
"""

import functools
import time
from collections.abc import Iterable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from ._batch import RowStack, Stack, as_batches, own, weight
from ._dispatch_size import can_fuse, choose_capacity, num_bytes
from ._host_errors import checks_give_nan, has_checks
from ._keys import step_key
from ._layout import Layout
from ._learner import AbstractLearner
from ._totals import StepMetrics, Totals
from ._types import PRNGKey, State

_TRIALS = 5


class Stepper:
    """Compiled training of one learner.

    ```python
    stepper = Stepper(learner, learner.init(model, key=init_key), key=train_key)
    history = stepper([batch, batch, batch])      # three steps, one dispatch
    stepper.state
    ```

    The key of step k is `fold_in(key, k)`, derived inside the program. The state given
    is copied; the live one is donated to each dispatch, so take `stepper.state` anew
    after each call.

    **Arguments:**

    - `learner`: what to train.
    - `state`: where to start from.
    - `key`: of the whole run.
    - `step`: the number of the next step, for a run that goes on.
    - `steps_per_dispatch`: how many steps a dispatch may hold. `"auto"` times a few
        single steps and chooses about 20 ms of work, at most 64 steps and 64 MB.
    - `layout`: the devices; JAX's default one if it is not given.
    """

    def __init__(
        self,
        learner: AbstractLearner,
        state: State,
        *,
        key: PRNGKey,
        step: int = 0,
        steps_per_dispatch: int | Literal["auto"] = "auto",
        layout: Layout | None = None,
    ):
        if steps_per_dispatch != "auto" and (
            not isinstance(steps_per_dispatch, int) or steps_per_dispatch < 1
        ):
            raise ValueError(
                f"steps_per_dispatch={steps_per_dispatch!r}: give 'auto' or an integer "
                "of at least 1"
            )
        self.learner = learner
        self._trials = _TRIALS if steps_per_dispatch == "auto" else 0
        self.capacity = 1 if steps_per_dispatch == "auto" else int(steps_per_dispatch)
        self.layout = Layout() if layout is None else layout
        arrays, self._static = eqx.partition(state, eqx.is_array)
        self._shardings: Any = None
        out: dict[str, Any] = {}
        if not self.layout.is_single:
            self._shardings = self.layout.state_shardings(learner, arrays)
            everywhere = self.layout.everywhere
            carry = (self._shardings, everywhere, everywhere)
            out = {"out_shardings": (carry, everywhere)}
        self._begin(arrays, key, step)
        self._totals: Totals | None = None
        self._fused = True
        self._checked = False
        self._one = jax.jit(self._single, donate_argnums=0, **out)
        self._many = jax.jit(self._several, donate_argnums=0, **out)
        # A program of its own: fused with the steps it would let them round otherwise.
        self._gather = jax.jit(_gather)
        self._table: tuple[Any, Any] = (None, None)  # as given, and where it is used
        self._times: list[float] = []
        self._idle: list[float] = []

    @property
    def slots(self) -> int:
        """How long a `Stack` is to be: `capacity`, and at least two.

        Of a stack of one XLA makes no loop, and the step may round otherwise than in
        one.
        """
        return max(2, self.capacity)

    @property
    def tuning(self) -> bool:
        """Whether `steps_per_dispatch="auto"` still has steps to time."""
        return self._trials > 0

    @property
    def state(self) -> State:
        """The live state. The next dispatch consumes its buffers."""
        return eqx.combine(self._arrays, self._static)

    def resume(self, state: State, *, key: PRNGKey, step: int) -> None:
        """Goes on from another state of the same structure, with the same programs."""
        arrays, static = eqx.partition(state, eqx.is_array)
        if not eqx.tree_equal(static, self._static):
            raise ValueError(
                "resume takes a state like the one the stepper was made with; its "
                "settings differ. Make a new Stepper"
            )
        self._begin(arrays, key, step)

    @property
    def step(self) -> int:
        """The number of the next step. Reading it waits for the device."""
        return int(self._step)

    def fetch(self) -> State:
        """The state whole on one device, in buffers that no dispatch consumes."""
        arrays = jax.tree.map(jnp.copy, self.layout.fetch(self._arrays))
        return eqx.combine(arrays, self._static)

    @property
    def totals(self) -> Totals | None:
        """Metrics summed since `reset_totals`, still on the device."""
        return self._totals

    def reset_totals(self) -> None:
        """Starts the sums anew, as at the start of an epoch."""
        if self._totals is not None:
            totals = Totals.zeros(self._totals.sums)
            if self._shardings is not None:
                totals = self.layout.place(totals, self.layout.everywhere)
            self._totals = totals

    def __call__(self, batches: Iterable[PyTree] | Stack) -> StepMetrics:
        """Trains on the batches in turn.

        A `Stack` as long as `slots`, which an `ArrayLoader` gathers in one go, saves
        the stacking.

        **Returns:** every metric by name, one value for each step, fetched when read:
        nothing waits here.
        """
        if isinstance(batches, Stack):
            if self._totals is None:
                self._trace(batches.at(0))
            if self._takes(batches):
                info = self._dispatch_stack(batches)
                self._look(info, batches.num)
                return StepMetrics([(info, batches.num)])
            batches = batches.unstack()
        batches = list(batches)
        if self._totals is None:
            self._trace(batches[0])
        parts = []
        while batches:
            run = batches[: self._run_length(batches)]
            batches = batches[len(run) :]
            info = self._dispatch(run)
            self._look(info, len(run))
            parts.append((info, len(run)))
        return StepMetrics(parts)

    def _run_length(self, batches):
        """How many batches from the first on are alike and fit one dispatch."""
        if not self._fused:
            return 1
        shape = _shape(batches[0])
        same = next(
            (i for i, b in enumerate(batches) if _shape(b) != shape), len(batches)
        )
        return min(same, self.capacity)

    def _takes(self, stack):
        """Whether a stack can be dispatched as it is."""
        if not self._fused or self._trials or stack.capacity != self.slots:
            return False
        if isinstance(stack, RowStack):
            return stack.rows.shape[1] % self.layout.data == 0
        return True

    def _dispatch(self, run):
        begin = time.perf_counter()
        if not self._fused:
            carry = (self._arrays, self._step, self._totals)
            carry, info = self._one(carry, self._key, self.layout.put(own(run[0])))
            self._arrays, self._step, self._totals = carry
        else:
            # A lone step goes through a loop too: the same body rounds alike, where a
            # bare step may be fused otherwise.
            slots = 2 if len(run) == 1 else self.slots
            stacked = jax.tree.map(functools.partial(_stack, slots), *run)
            info = self._dispatch_stack(Stack(stacked, len(run)))
        if self._trials:
            self._tune(run[0], info, begin)
        return info

    def _place_table(self, table):
        if self.layout.is_single:
            return table
        if self._table[0] is not table:
            self._table = table, jax.device_put(table, self.layout.everywhere)
        return self._table[1]

    def _begin(self, arrays, key, step):
        if self._shardings is None:
            self._arrays = jax.tree.map(_own, arrays)
            self._key = jnp.copy(key)
            self._step = jnp.asarray(step, jnp.int32)
            return
        place, everywhere = self.layout.place, self.layout.everywhere
        self._arrays = place(jax.tree.map(_strong, arrays), self._shardings)
        self._key = place(key, everywhere)
        self._step = place(jnp.asarray(step, jnp.int32), everywhere)

    def _look(self, info, num):
        """Raises what a check inside the program would have raised on one device."""
        if not self._checked:
            return
        finite = np.all([np.isfinite(v) for v in jax.device_get(info).values()], 0)
        bad = np.flatnonzero(~np.atleast_1d(finite)[:num])
        if bad.size:
            raise FloatingPointError(
                f"step {self.step - num + int(bad[0])} gave metrics that are not "
                "finite, in a program with checks (eqx.error_if, or a solve with "
                "throw=True). On several devices they cannot raise and give NaN: run "
                "the step on one device, without layout, to read which one failed"
            )

    def _dispatch_stack(self, stack):
        carry = (self._arrays, self._step, self._totals)
        num = np.int32(stack.num)
        if isinstance(stack, RowStack):
            rows, mask = self.layout.put((stack.rows.astype(np.int32), stack.mask), 1)
            batches = self._gather(self._place_table(stack.table), rows, mask)
        else:
            batches = self.layout.put(stack.batches, 1)
        carry, info = self._many(carry, self._key, batches, num)
        self._arrays, self._step, self._totals = carry
        return info

    def _tune(self, batch, info, begin):
        jax.block_until_ready(info)
        self._times.append(time.perf_counter() - begin)
        if self._fused:
            # A dispatch of no steps costs all that does not grow with their number.
            begin = time.perf_counter()
            nothing = jax.tree.map(functools.partial(_stack, 2), batch)
            jax.block_until_ready(self._dispatch_stack(Stack(nothing, 0)))
            self._idle.append(time.perf_counter() - begin)
        self._trials -= 1
        if not self._trials:
            # The first one compiled; the fastest of the others is the undisturbed one.
            step = min(self._times[1:])
            step = max(step - min(self._idle, default=0.0), 0.01 * step)
            capacity = choose_capacity(step, num_bytes(batch))
            self.capacity = self.layout.agree(capacity)

    def _trace(self, batch):
        """Reads off the program, before it runs, its metrics and how to run it."""

        def info(arrays, key, batch):
            state = eqx.combine(arrays, self._static)
            return self.learner.update(state, batch, key=key)[1]

        jaxpr, shapes = jax.make_jaxpr(info, return_shape=True)(
            self._arrays, self._key, batch
        )
        self._totals = Totals.zeros(shapes)
        self._fused = can_fuse(jaxpr.jaxpr)
        if self._shardings is not None:
            self._totals = self.layout.place(self._totals, self.layout.everywhere)
            self._checked = has_checks(jaxpr.jaxpr)

    def _advance(self, carry, key, batch):
        if self._checked:
            return checks_give_nan(self._update)(carry, key, batch)
        return self._update(carry, key, batch)

    def _update(self, carry, key, batch):
        arrays, step, totals = carry
        state = eqx.combine(arrays, self._static)
        state, info = self.learner.update(state, batch, key=step_key(key, step))
        totals = totals.add(info, weight(batch))
        arrays = jax.tree.map(_strong, eqx.filter(state, eqx.is_array))
        if self._shardings is not None:
            arrays = jax.lax.with_sharding_constraint(arrays, self._shardings)
        return (arrays, step + 1, totals), info

    def _single(self, carry, key, batch):
        return self._advance(carry, key, batch)

    def _several(self, carry, key, batches, num: Int[Array, ""]):
        def body(i, loop):
            carry, history = loop
            carry, info = self._advance(carry, key, _at(batches, i))
            history = {k: history[k].at[i].set(info[k]) for k in history}
            return carry, history

        shapes = jax.eval_shape(lambda: self._advance(carry, key, _at(batches, 0))[1])
        capacity = np.shape(jax.tree.leaves(batches)[0])[0]
        history = {k: jnp.zeros(capacity, v.dtype) for k, v in shapes.items()}
        return jax.lax.fori_loop(0, num, body, (carry, history))


def _gather(table, rows, mask):
    """The batches of a `RowStack`."""
    data = jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0, mode="clip"), table)
    return as_batches(data, mask)


def _at(stacked, i):
    """One place of the leading axis of every array."""
    take = functools.partial(jax.lax.dynamic_index_in_dim, index=i, keepdims=False)
    return jax.tree.map(take, stacked)


def _stack(slots, *leaves):
    """Arrays along a new axis, in a buffer that is nobody else's.

    On CPU the device may read it in place. What is beyond them is never read.
    """
    first = np.asarray(leaves[0])
    out = np.empty((slots, *first.shape), first.dtype)
    for place, leaf in zip(out, leaves, strict=False):
        place[...] = leaf
    return out


def _own(leaf: Array) -> Array:
    """A copy, which may be donated, of a strong type."""
    return _strong(jnp.copy(leaf))


def _strong(leaf: Array) -> Array:
    # `jnp.full(shape, 0.1)` is weakly typed and the updated leaf is not: the program
    # would be compiled again for the second step.
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    return jax.lax.convert_element_type(leaf, np.dtype(leaf.dtype))


def _shape(batch) -> Any:
    leaves, structure = jax.tree.flatten(batch)
    return structure, [(np.shape(leaf), np.result_type(leaf)) for leaf in leaves]
