"""Predictive distributions of a posterior, and the figures that judge them."""

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
        """Return `None` while a sampler has no draw yet, in the course of a fit."""
        try:
            return self._module.posterior()
        except ValueError as error:
            if self._module.trainer.state.fn != "fit":
                raise
            rank_zero_info(f"This validation has no predictive figures: {error}")
            return None


def training_rows(module: Any) -> ArrayLoader | None:
    """Return what a module was trained on, in order, if a loader has it in memory.

    It is `None` in the course of a fit, too.
    """
    trainer = _private.attached_trainer(module)
    if trainer is None:
        return None
    if trainer.state.fn == "fit" and trainer.state.status == "running":
        return None
    data = trainer.datamodule
    loader = trainer.train_dataloader
    if isinstance(data, ArrayDataModule) and data.holds("train"):
        loader = data.train_dataloader()
    if not isinstance(loader, ArrayLoader):
        return None
    return ArrayLoader(loader.data, batch_size=loader.batch_size)
