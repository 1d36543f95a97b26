"""Predictive distributions of a posterior, and the figures that judge them."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree
from pytorch_lightning.utilities import rank_zero_info

from ..._training.batch import unpack
from ..._training.host_batch import host_batch
from ..._training.loader import ArrayLoader
from ...bnn import AbstractPosterior, Predictive
from .._data.data import ArrayDataModule
from .._logging.predictive_metrics import PredictiveMetrics
from .._loop.predictor import AbstractJudge
from .._trainer import private as _private
from .posterior_store import posterior_of_tensors, posterior_tensors


class PosteriorJudge(AbstractJudge):
    """Predictions of a `BNNModule`, by one posterior for all batches of a stage.

    **Arguments:**

    - `module`: whose `posterior` and `predictive` are called.
    - `level`: probability of the interval whose coverage is counted.

    **Fields:** `held`, the posterior of the stage; `None` between two of them.
    """

    def __init__(self, module: Any, level: float):
        self.held: AbstractPosterior | None = None
        self._module = module
        self._level = level
        self._metrics: dict[int, PredictiveMetrics] = {}
        self._stored: tuple[int, AbstractPosterior] | None = None
        self._told: set[str] = set()

    @property
    def stored(self) -> AbstractPosterior | None:
        """The posterior of the last checkpoint, if it is that of the current state."""
        if self._stored is None or self._stored[0] != self._module._engine.run.step:
            return None
        return self._stored[1]

    def tensors(self) -> dict[str, Any]:
        """Return the posterior as tensors, if it takes a pass over the training rows.

        Without the rows, or where there is no posterior yet, there are none, and one
        message gives the reason.
        """
        module = self._module
        if not module.save_posterior or not module.needs_batches():
            return {}
        posterior = self.stored
        if posterior is None:
            if _is_interrupted(module) or module.training_batches() is None:
                return {}
            try:
                posterior = module.posterior()
            except (ValueError, FloatingPointError) as error:
                self._tell("A checkpoint has no posterior", error)
                return {}
            self._stored = module._engine.run.step, posterior
        try:
            return posterior_tensors(posterior)
        except TypeError as error:
            self._tell("A checkpoint has no posterior", error)
            return {}

    def load(self, tensors: Mapping[str, Any]) -> None:
        module = self._module
        if not tensors:
            self._stored = None
            return
        posterior = posterior_of_tensors(tensors, module.inference, module.model)
        step = module._engine.run.step
        self._stored = None if posterior is None else (step, posterior)

    def _tell(self, what: str, reason: Any) -> None:
        """Print a message, once for each subject."""
        if what not in self._told:
            self._told.add(what)
            rank_zero_info(f"{what}: {reason}")

    def predict(self, batch: PyTree, index: int, loader: int) -> Predictive:
        data, mask = unpack(host_batch(batch))
        x = data[0] if isinstance(data, tuple | list) else data
        count = int(np.sum(mask))  # padded rows come last
        x = jax.tree.map(lambda a: a[:count], x)
        return self._module.predictive(x, index=index)

    def begin_prediction(self) -> None:
        self.held = self._module.posterior().factorised()

    def end_prediction(self) -> None:
        self.held = None

    def begin_evaluation(self) -> None:
        posterior = self._posterior_so_far()
        self.held = None if posterior is None else posterior.factorised()
        self._metrics = {}

    def judge(self, batch: PyTree, index: int, loader: int) -> None:
        if self.held is None:
            return
        (x, y, *weight), mask = unpack(host_batch(batch))
        metrics = self._metrics.setdefault(loader, PredictiveMetrics(self._level))
        predictive = self._module.predictive(x, index=index)
        counts = np.asarray(mask, np.float64)
        if weight:
            counts = counts * np.asarray(weight[0], np.float64)
        metrics.add(predictive, jax.tree.map(np.asarray, y), counts)

    def end_evaluation(self) -> dict[int, dict[str, float]]:
        self.held = None
        return {i: m.means() for i, m in self._metrics.items()}

    def _posterior_so_far(self):
        """Return `None` in the course of a fit where a validation has no posterior:
        by `predictive_every_n_epochs`, or while a sampler has no draw yet.
        """
        module = self._module
        if module.trainer.state.fn != "fit":
            return module.posterior()
        every, costly = module.predictive_every_n_epochs, module.needs_batches()
        if every is None and costly:
            self._tell(
                "Validations in this fit have no predictive metrics",
                "the posterior takes a pass over the training rows. Write "
                "BNNModule(..., predictive_every_n_epochs=5) for those of every fifth "
                "epoch; trainer.validate has them after the fit",
            )
            return None
        if every is not None and (module.trainer.current_epoch + 1) % every:
            return None
        if costly and module.trainer.sanity_checking:
            return None
        try:
            return module.posterior()
        except ValueError as error:
            self._tell("This validation has no predictive metrics", error)
            return None


def training_rows(module: Any) -> ArrayLoader | None:
    """Return what a module is trained on, in order, if a loader has it in memory."""
    trainer = _private.attached_trainer(module)
    if trainer is None:
        return None
    data = trainer.datamodule
    loader = trainer.train_dataloader
    fitting = trainer.state.fn == "fit" and trainer.state.status == "running"
    if not fitting and isinstance(data, ArrayDataModule) and data.holds("train"):
        loader = data.train_dataloader()
    if not isinstance(loader, ArrayLoader):
        return None
    return ArrayLoader(loader.data, batch_size=loader.batch_size)


def _is_interrupted(module):
    """Return whether a fit has failed or was stopped, so that no pass is made."""
    trainer = _private.attached_trainer(module)
    return trainer is not None and trainer.state.status == "interrupted"
