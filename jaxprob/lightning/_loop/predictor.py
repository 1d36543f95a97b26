"""Predictions of a module, and the figures that judge them."""

import abc
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from ..._training.batch import Batch, num_rows
from ..._training.host_batch import host_batch
from .._trainer.precision import for_prediction
from .run import Run


class AbstractPredictor(abc.ABC):
    """Base class of the predictions of a module."""

    @abc.abstractmethod
    def predict(self, batch: PyTree, index: int, loader: int) -> Any:
        """Return the predictions for the rows of a batch, without its padding.

        **Arguments:**

        - `index`, `loader`: indices of the batch and of its loader.
        """


class AbstractJudge(AbstractPredictor):
    """Base class of predictions that prepare for a stage, and are judged by figures."""

    @abc.abstractmethod
    def begin_prediction(self) -> None:
        """Prepare for the batches of `trainer.predict`."""

    @abc.abstractmethod
    def end_prediction(self) -> None:
        """Release what `begin_prediction` has prepared."""

    @abc.abstractmethod
    def begin_evaluation(self) -> None:
        """Prepare for the batches of a validation or test."""

    @abc.abstractmethod
    def judge(self, batch: PyTree, index: int, loader: int) -> None:
        """Compare the predictions for a batch of a validation or test with it."""

    @abc.abstractmethod
    def tensors(self) -> dict[str, Any]:
        """Return what a checkpoint holds for the predictions, by name."""

    @abc.abstractmethod
    def load(self, tensors: Mapping[str, Any]) -> None:
        """Take over the `tensors` of a checkpoint, of the state that was loaded."""

    @abc.abstractmethod
    def end_evaluation(self) -> dict[int, dict[str, float]]:
        """Return the figures by name, for each index of a loader."""


class ModelPredictor(AbstractPredictor):
    """Outputs of the model for each row of `x`, where a batch is `x` or `(x, ...)`.

    **Arguments:**

    - `run`: whose model predicts.
    """

    def __init__(self, run: Run):
        self._run = run

    def predict(self, batch: PyTree, index: int, loader: int) -> Any:
        run = self._run
        batch = host_batch(batch)
        data = batch.data if isinstance(batch, Batch) else batch
        x = data[0] if isinstance(data, tuple | list) else data
        try:
            rows = num_rows(x)
        except ValueError as error:
            raise ValueError(
                f"prediction calls model(x) for each row of x, and {error}. Override "
                "predict_step(self, batch, batch_idx)"
            ) from None
        model = run.learner.model(run.layout.result(run.state))
        model = eqx.nn.inference_mode(model)
        outputs = _apply(*for_prediction(run.active, (model, x)))
        # Padded rows come last.
        count = int(np.sum(batch.mask)) if isinstance(batch, Batch) else rows
        return jax.tree.map(lambda out: np.asarray(out)[:count], outputs)


@eqx.filter_jit
def _apply(model, x):
    return jax.vmap(model)(x)
