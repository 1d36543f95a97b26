"""Many optimiser steps in one dispatch.

A step of a small model computes for 20 microseconds and costs 60 more to hand to XLA.
So K batches are stacked and one program runs K steps: `lax.fori_loop` over a dynamic
number of them, which is one compilation for any number up to K and gives the same bits
as single steps. The state is cut into arrays and the rest once, outside the loop:
`jax.jit` on the array half is what `eqx.filter_jit` does, less its work in each call.

Convolutions on CPU are the exception: inside any XLA loop they leave the fast library
call for naive code (measured with jax 0.10.2, 32 channels of 28x28, batch 64: 40 ms a
step outside, 600 inside) and round otherwise. A learner with a convolution on CPU is
therefore run step by step, a decision taken from the program and never from a clock.
"""

import functools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import subjaxprs
from jaxtyping import Array, Int, PyTree

from ._batch import Stack, num_rows, weight
from ._keys import step_key
from ._learner import AbstractLearner
from ._types import PRNGKey, State

MAX_STEPS = 64
MAX_BYTES = 2**26
SECONDS = 0.02  # of work in a dispatch: dispatching then costs less than one percent
_TRIALS = 5


class Totals(eqx.Module):
    """Sums of metrics over steps, on the device until someone looks."""

    sums: dict[str, Array]
    weight: Array

    @classmethod
    def zeros(cls, names) -> "Totals":
        return cls({name: jnp.zeros(()) for name in names}, jnp.zeros(()))

    def add(self, info: dict[str, Array], weight: Array) -> "Totals":
        weight = weight.astype(self.weight.dtype)
        sums = {
            name: total + info[name].astype(total.dtype) * weight
            for name, total in self.sums.items()
        }
        return Totals(sums, self.weight + weight)

    def means(self) -> dict[str, float]:
        """Means over examples. This waits for the device."""
        sums, weight = jax.device_get((self.sums, self.weight))
        return {name: float(total / max(weight, 1.0)) for name, total in sums.items()}


class StepMetrics(Mapping[str, np.ndarray]):
    """Every metric as an array with one value for each step.

    The values stay on the device until the first one is read. They are cut to length
    on the host: a slice of a JAX array would be a dispatch of its own.
    """

    def __init__(self, parts: list[tuple[dict[str, Array], int]]):
        self.num_steps = sum(num for _, num in parts)
        self._parts = parts
        self._fetched: dict[str, np.ndarray] | None = None

    def fetch(self) -> dict[str, np.ndarray]:
        """All of them. This waits for the device."""
        if self._fetched is None:
            parts = [(jax.device_get(info), num) for info, num in self._parts]
            self._fetched = {
                name: np.concatenate([np.atleast_1d(i[name])[:n] for i, n in parts])
                for name in parts[0][0]
            }
            self._parts = []
        return self._fetched

    def __getitem__(self, name: str) -> np.ndarray:
        return self.fetch()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts[0][0] if self._fetched is None else self._fetched)

    def __len__(self) -> int:
        return len(self._parts[0][0] if self._fetched is None else self._fetched)


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
    """

    def __init__(
        self,
        learner: AbstractLearner,
        state: State,
        *,
        key: PRNGKey,
        step: int = 0,
        steps_per_dispatch: int | Literal["auto"] = "auto",
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
        self._key = jnp.copy(key)
        self._step = jnp.asarray(step, jnp.int32)
        arrays, self._static = eqx.partition(state, eqx.is_array)
        self._arrays = jax.tree.map(_own, arrays)
        self._totals: Totals | None = None
        self._fused = True
        self._one = jax.jit(self._single, donate_argnums=0)
        self._many = jax.jit(self._several, donate_argnums=0)
        self._times: list[float] = []
        self._idle: list[float] = []

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
        self._arrays = jax.tree.map(_own, arrays)
        self._key = jnp.copy(key)
        self._step = jnp.asarray(step, jnp.int32)

    @property
    def step(self) -> int:
        """The number of the next step. Reading it waits for the device."""
        return int(self._step)

    @property
    def totals(self) -> Totals | None:
        """Metrics summed since `reset_totals`, still on the device."""
        return self._totals

    def reset_totals(self) -> None:
        """Starts the sums anew, as at the start of an epoch."""
        if self._totals is not None:
            self._totals = Totals.zeros(self._totals.sums)

    def __call__(self, batches: Iterable[PyTree] | Stack) -> StepMetrics:
        """Trains on the batches in turn.

        A `Stack` as long as `capacity`, which an `ArrayLoader` gathers in one go, saves
        the stacking.

        **Returns:** every metric by name, one value for each step, fetched when read:
        nothing waits here.
        """
        if isinstance(batches, Stack):
            if self._totals is None:
                self._trace(batches.at(0))
            if self._takes(batches):
                return StepMetrics([(self._dispatch_stack(batches), batches.num)])
            batches = batches.unstack()
        batches = list(batches)
        if self._totals is None:
            self._trace(batches[0])
        parts = []
        while batches:
            run = batches[: self._run_length(batches)]
            batches = batches[len(run) :]
            parts.append((self._dispatch(run), len(run)))
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
        length = np.shape(jax.tree.leaves(stack.batches)[0])[0]
        whole = self._fused and not self._trials
        return whole and stack.num > 1 and length == self.capacity

    def _dispatch(self, run):
        begin = time.perf_counter()
        if not self._fused:
            carry = (self._arrays, self._step, self._totals)
            carry, info = self._one(carry, self._key, run[0])
            self._arrays, self._step, self._totals = carry
        elif len(run) == 1:
            # A lone step goes through the loop too: the same body rounds alike, where
            # a bare step may be fused otherwise (seen with jax 0.12 on CPU).
            lone = jax.tree.map(lambda leaf: leaf[None], run[0])
            info = self._dispatch_stack(Stack(lone, 1))
        else:
            stacked = jax.tree.map(self._stack, *run)
            info = self._dispatch_stack(Stack(stacked, len(run)))
        if self._trials:
            self._tune(run[0], info, begin)
        return info

    def _dispatch_stack(self, stack):
        carry = (self._arrays, self._step, self._totals)
        num = np.int32(stack.num)
        carry, info = self._many(carry, self._key, stack.batches, num)
        self._arrays, self._step, self._totals = carry
        return info

    def _tune(self, batch, info, begin):
        jax.block_until_ready(info)
        self._times.append(time.perf_counter() - begin)
        if self._fused:
            # A dispatch of no steps costs all that does not grow with their number.
            begin = time.perf_counter()
            nothing = jax.tree.map(lambda leaf: leaf[None], batch)
            jax.block_until_ready(self._dispatch_stack(Stack(nothing, 0)))
            self._idle.append(time.perf_counter() - begin)
        self._trials -= 1
        if not self._trials:
            # The first one compiled; the fastest of the others is the undisturbed one.
            step = min(self._times[1:])
            step = max(step - min(self._idle, default=0.0), 0.01 * step)
            self.capacity = choose_capacity(step, _nbytes(batch))

    def _stack(self, *leaves):
        leaves = [np.asarray(leaf) for leaf in leaves]
        # A fresh buffer each time: on CPU the device may alias it.
        out = np.empty((self.capacity, *leaves[0].shape), leaves[0].dtype)
        np.stack(leaves, out=out[: len(leaves)])
        out[len(leaves) :] = leaves[0]
        return out

    def _trace(self, batch):
        """Reads off the program, before it runs, its metrics and how to run it."""

        def info(arrays, key, batch):
            state = eqx.combine(arrays, self._static)
            return self.learner.update(state, batch, key=key)[1]

        jaxpr, shapes = jax.make_jaxpr(info, return_shape=True)(
            self._arrays, self._key, batch
        )
        self._totals = Totals.zeros(shapes)
        self._fused = jax.default_backend() != "cpu" or not _has_convolution(
            jaxpr.jaxpr
        )

    def _advance(self, carry, key, batch):
        arrays, step, totals = carry
        state = eqx.combine(arrays, self._static)
        state, info = self.learner.update(state, batch, key=step_key(key, step))
        totals = totals.add(info, weight(batch))
        arrays = jax.tree.map(_strong, eqx.filter(state, eqx.is_array))
        return (arrays, step + 1, totals), info

    def _single(self, carry, key, batch):
        return self._advance(carry, key, batch)

    def _several(self, carry, key, batches, num: Int[Array, ""]):
        def pick(i):
            take = functools.partial(
                jax.lax.dynamic_index_in_dim, index=i, keepdims=False
            )
            return jax.tree.map(take, batches)

        def body(i, loop):
            carry, history = loop
            carry, info = self._advance(carry, key, pick(i))
            history = {k: history[k].at[i].set(info[k]) for k in history}
            return carry, history

        shapes = jax.eval_shape(lambda: self._advance(carry, key, pick(0))[1])
        history = {k: jnp.zeros(num_rows(batches), v.dtype) for k, v in shapes.items()}
        return jax.lax.fori_loop(0, num, body, (carry, history))


def _own(leaf: Array) -> Array:
    """A copy, which may be donated, of a strong type."""
    return _strong(jnp.copy(leaf))


def _strong(leaf: Array) -> Array:
    # `jnp.full(shape, 0.1)` is weakly typed and the updated leaf is not: the program
    # would be compiled again for the second step.
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    return jax.lax.convert_element_type(leaf, np.dtype(leaf.dtype))


def choose_capacity(seconds: float, nbytes: int) -> int:
    """The largest power of two of steps within the time, memory and count allowed."""
    most = min(MAX_STEPS, SECONDS / max(seconds, 1e-9), MAX_BYTES / max(nbytes, 1))
    return 1 << int(math.log2(max(1.0, most)))


def _has_convolution(jaxpr) -> bool:
    if any(eqn.primitive.name == "conv_general_dilated" for eqn in jaxpr.eqns):
        return True
    return any(map(_has_convolution, subjaxprs(jaxpr)))


def _shape(batch) -> Any:
    leaves, structure = jax.tree.flatten(batch)
    return structure, [(np.shape(leaf), np.result_type(leaf)) for leaf in leaves]


def _nbytes(batch) -> int:
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(batch))
