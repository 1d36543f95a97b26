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
        """One group: `LearningRateMonitor` reads its `"lr"`."""
        return [{"params": [], "lr": self._module.learning_rate}]

    def zero_grad(self, set_to_none: bool = True) -> None:
        pass

    def step(self, closure=None) -> Any:
        return None if closure is None else closure()

    def state_dict(self) -> dict[str, Any]:
        return self._module.optimizer_state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._module.load_optimizer_state_dict(state_dict)
