"""What Lightning takes for the optimiser."""

from typing import Any


class OptaxOptimizer:
    """Counts steps for Lightning, shows the learning rate, carries optax's state.

    Lightning advances `trainer.global_step`, and with it `max_steps`, checkpoints and
    every callback that counts, only when an optimiser steps. The optimisation itself
    happens inside the dispatch; this is the structural minimum that Lightning calls an
    `Optimizable`.
    """

    def __init__(self, module: Any):
        self._module = module
        self.state: dict[Any, Any] = {}
        self.defaults: dict[str, Any] = {"lr": None}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """One group, to be read: `LearningRateMonitor` looks at its `"lr"`."""
        return [_Shown({"params": [], "lr": self._module.learning_rate})]

    def zero_grad(self, set_to_none: bool = True) -> None:
        pass

    def step(self, closure=None) -> Any:
        return None if closure is None else closure()

    def state_dict(self) -> dict[str, Any]:
        return self._module.optimizer_state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._module.load_optimizer_state_dict(state_dict)


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
