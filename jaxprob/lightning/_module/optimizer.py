"""The object that Lightning takes for the optimiser."""

from collections.abc import Callable
from typing import Any

from .._loop.run import Run
from .._loop.run_tensors import load_optimizer_tensors, optimizer_tensors


class OptaxOptimizer:
    """Stand-in for the optimiser: it counts steps and shows optax's state and rate.

    Lightning advances `trainer.global_step`, and with it `max_steps`, checkpoints and
    every callback that counts, only when an optimiser steps. The optimisation itself
    happens inside the dispatch; this is the structural minimum that Lightning calls an
    `Optimizable`.

    **Arguments:**

    - `run`: whose optimiser it stands for.
    - `learning_rate`: returns the learning rate of now.
    """

    def __init__(self, run: Run, learning_rate: Callable[[], float]):
        self._run = run
        self._learning_rate = learning_rate
        self.state: dict[Any, Any] = {}
        self.defaults: dict[str, Any] = {"lr": None}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """One group, to be read: `LearningRateMonitor` shows its `"lr"`."""
        return [_Shown({"params": [], "lr": self._learning_rate()})]

    def zero_grad(self, set_to_none: bool = True) -> None:
        pass

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        return None if closure is None else closure()

    def state_dict(self) -> dict[str, Any]:
        return optimizer_tensors(self._run)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load optax's state, with the same checks as those of a module's state."""
        load_optimizer_tensors(self._run, state_dict)


class _Shown(dict[str, Any]):
    """A parameter group in which nothing can be set: optax would never see it."""

    def __setitem__(self, key: str, value: Any) -> None:
        raise TypeError(
            f"param_groups only shows what optax does: {key!r} cannot be set in it. "
            "Give the optimiser a schedule, optax.adam(schedule), which counts steps"
        )

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value
