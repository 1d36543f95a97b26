"""The small and the large training that are interrupted, and where they fail.

A process makes hundreds of runs of one problem: learner, model and data are made once,
so programs are compiled once.
"""

import contextlib
import resource
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from pytorch_lightning.callbacks import ModelCheckpoint

import jaxprob
from jaxprob.lightning import ArrayDataModule, LearnerModule

from ._run import make_trainer

SCRATCH = 2**24  # numbers that a step of the large problem needs for a moment
RESERVE = 2**24  # bytes that exhausted memory leaves: no step fits, a checkpoint does
EPOCHS, PER_EPOCH = 4, 13


class SensorError(Exception):
    """An error of the user's own, raised by a host callback."""


class Alarm:
    """How and in which step the training of this process fails, if at all.

    A class: what it holds is no constant of the compiled step.
    """

    kind = "none"
    step = -1
    hog: ClassVar[list[Any]] = []

    @classmethod
    def ask(cls, step: Any) -> np.ndarray:
        """Called by each step. Whether its check is to fail."""
        due = int(step) == cls.step
        if due and cls.kind == "callback":
            raise SensorError(f"step {cls.step}")
        return np.asarray(due and cls.kind == "check")

    @classmethod
    def exhaust_memory(cls) -> None:
        """Leave no piece of memory that is large enough for the scratch space."""
        limit_memory(_virtual_bytes() + RESERVE)
        with contextlib.suppress(Exception):  # until pieces freed before are gone too
            while True:
                cls.hog.append(jax.block_until_ready(_fill()))

    @classmethod
    def disarm(cls) -> None:
        limit_memory(resource.RLIM_INFINITY)
        cls.hog.clear()
        cls.kind, cls.step = "none", -1


def limit_memory(soft: int) -> None:
    """Limits the address space of this process; what it has, it keeps."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _through_scratch(value, step):
    """Return a number after a way through the scratch space.

    The compiler cannot optimise away an array that a loop of unknown length carries.
    """

    def body(i, scratch):
        return scratch.at[step + i].set(value)

    return jax.lax.fori_loop(0, step + 1, body, jnp.zeros(SCRATCH))[step]


@jax.jit
def _fill():
    return jnp.ones(SCRATCH)


def _virtual_bytes():
    pages = Path("/proc/self/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


class Problem:
    """One training, made again and again, by `fit` and by Lightning.

    **Arguments:**

    - `size`: `"small"` or `"large"`.
    - `asks`: whether each step asks the alarm, which a host callback takes a while for.
    """

    def __init__(self, size: str, asks: bool):
        self.alarm = Alarm
        self.large = size == "large"
        width, large = (512, True) if self.large else (8, False)

        def loss(model, batch, *, key, step):
            (x, y), mask = jaxprob.unpack(batch)
            if asks:
                due = jax.pure_callback(Alarm.ask, jax.ShapeDtypeStruct((), bool), step)
                x = eqx.error_if(x, due, "a sensor is broken")
            if large:
                x = x + 0.0 * _through_scratch(jnp.sum(x), step)
            x = x + 0.1 * jax.random.normal(key, x.shape)
            errors = jnp.sum((jax.vmap(model)(x) - y) ** 2, 1)
            return jaxprob.masked_mean(errors, mask), {}

        self.learner = jaxprob.GradientDescent(
            loss, optax.adam(1e-2), ema=jaxprob.EMA(0.99)
        )
        self.model = eqx.nn.MLP(3, 1, width, 2, key=jax.random.key(0))
        x = np.random.default_rng(0).normal(size=(PER_EPOCH * 8, 3)).astype(np.float32)
        self.data = x, np.sin(x[:, :1])
        self.steps_per_dispatch = 2 if self.large else 8
        if asks:
            _fill()  # compiled while there is memory

    def fit(self, data: Any = None, num_steps: int = EPOCHS * PER_EPOCH) -> Any:
        """The state that `jaxprob.fit` ends in."""
        state, _ = jaxprob.fit(
            self.learner,
            self.model,
            self.data if data is None else data,
            key=jax.random.key(1),
            num_steps=num_steps,
            batch_size=8,
            steps_per_dispatch=self.steps_per_dispatch,
            progress=False,
        )
        return state

    def module(self) -> LearnerModule:
        return LearnerModule(
            self.learner, self.model, steps_per_dispatch=self.steps_per_dispatch
        )

    def trainer(self, folder: Path, *callbacks: Any) -> Any:
        """A Trainer that writes a checkpoint when it fails, and looks at each epoch."""
        return make_trainer(folder, EPOCHS, list(callbacks))

    def loaders(self) -> ArrayDataModule:
        rows = tuple(part[:24] for part in self.data)
        return ArrayDataModule(train=self.data, validation=rows, batch_size=8)


def saves_on_exception(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(dirpath=folder, save_on_exception=True, save_top_k=-1)


def numbers(state: Any) -> list[np.ndarray]:
    """The arrays of a state; an error if they cannot be read."""
    return [np.asarray(a) for a in jax.tree.leaves(eqx.filter(state, eqx.is_array))]


def same(one: Any, other: Any) -> bool:
    """Whether two states have the same bits."""
    pairs = zip(numbers(one), numbers(other), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)
