"""Bayesian inference as a LightningModule."""

from collections.abc import Iterable
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import PyTree
from pytorch_lightning.utilities import rank_zero_info

from ..._training.batch import unpack
from ..._training.host_batch import host_batch
from ..._training.learner import AbstractLearner
from ..._training.loader import ArrayLoader
from ..._types import Model
from ...bnn import (
    AbstractInference,
    AbstractPosterior,
    Likelihood,
    Predictive,
    predict,
)
from .._data.data import ArrayDataModule
from .._logging.predictive_metrics import PredictiveMetrics
from .._trainer.precision import for_prediction
from .module import LearnerModule


class BNNModule(LearnerModule):
    """Trains a method of `jaxprob.bnn` and judges its predictive distribution.

    ```python
    log_joint = LogJoint(NormalLikelihood(0.3), FanInNormal(), num_data=len(x))
    module = BNNModule(MeanFieldVI(log_joint, optax.adam(1e-2)), model)
    trainer.fit(module, data)
    predictives = trainer.predict(module, data)    # one Predictive for each batch
    posterior = module.posterior()
    ```

    Beside the learner's own metrics, validation and test log those of the mixture over
    posterior samples: `val_predictive_nll` (nats per row), `val_accuracy` for labels,
    `val_rmse` and `val_coverage_90` for real targets.

    **Arguments:**

    - `inference`: any method of `jaxprob.bnn`.
    - `model`: the network; batches are `(x, y)`.
    - `likelihood`: that of training by default, `inference.log_joint.likelihood`.
    - `num_samples`: posterior samples in validation, test and predict.
    - `level`: probability of the interval whose coverage is logged.
    - `batches`: the training batches again, for methods whose posterior needs a pass
        over the data. By default, after training, the training rows of the trainer's
        data module or loader, if they are in memory; validations in the midst of a fit
        make no such pass.
    - the others: as in `LearnerModule`.
    """

    argument_names: ClassVar[dict[str, str]] = {"learner": "inference"}

    def __init__(
        self,
        inference: AbstractLearner,
        model: Model,
        likelihood: Likelihood | None = None,
        *,
        num_samples: int = 32,
        level: float = 0.9,
        batches: Iterable[PyTree] | None = None,
        **kwargs: Any,
    ):
        if not isinstance(inference, AbstractInference):
            raise TypeError(
                f"inference is a {type(inference).__name__}, which has no posterior: "
                "give a method of jaxprob.bnn, or train with LearnerModule"
            )
        if likelihood is None:
            likelihood = inference.log_joint.likelihood
        super().__init__(inference, model, **kwargs)
        self.inference = inference
        self.likelihood = likelihood
        self.num_samples = num_samples
        self.level = level
        self.batches = batches
        self._description.add(
            likelihood=likelihood, num_samples=num_samples, level=level
        )
        self._held: AbstractPosterior | None = None
        self._metrics: dict[int, PredictiveMetrics] = {}

    def posterior(self) -> AbstractPosterior:
        """The posterior that the state of now stands for."""
        batches = self._training_rows() if self.batches is None else self.batches
        return self.inference.posterior(self.state, batches, key=self._posterior_key)

    def predictive(self, x: PyTree, *, index: int = 0) -> Predictive:
        """The predictive distribution of y for rows of x.

        **Arguments:**

        - `x`: rows.
        - `index`: chooses the posterior samples.
        """
        posterior = self.posterior() if self._held is None else self._held
        exact = posterior.num_atoms is not None
        return predict(
            for_prediction(self._run.active, posterior),
            self.likelihood,
            for_prediction(self._run.active, x),
            key=jax.random.fold_in(self._predict_key, index),
            num_samples=None if exact else self.num_samples,
        )

    def begin_evaluation(self) -> None:
        super().begin_evaluation()
        held = self._posterior_so_far()
        self._held = None if held is None else held.factorised()
        self._metrics = {}

    def end_evaluation(self, prefix: str) -> None:
        super().end_evaluation(prefix)
        self.log_loaders(prefix, {i: m.means() for i, m in self._metrics.items()})
        self._held = None

    def validation_step(self, batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        super().validation_step(batch, batch_idx, dataloader_idx)
        self._judge(batch, batch_idx, dataloader_idx)

    def test_step(self, batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        super().test_step(batch, batch_idx, dataloader_idx)
        self._judge(batch, batch_idx, dataloader_idx)

    def on_predict_epoch_start(self) -> None:
        self._held = self.posterior().factorised()

    def on_predict_epoch_end(self) -> None:
        self._held = None

    def _use_seed(self, seed):
        keys = super()._use_seed(seed)
        posterior_key, predict_key = jax.random.split(self._draw_key)
        self._posterior_key, self._predict_key = posterior_key, predict_key
        return keys

    def _predict(self, batch, batch_idx, dataloader_idx):
        """The predictive distribution of a batch `x` or `(x, y)`, without padding."""
        data, mask = unpack(host_batch(batch))
        x = data[0] if isinstance(data, tuple | list) else data
        count = int(np.sum(mask))  # padded rows come last
        x = jax.tree.map(lambda a: a[:count], x)
        return self.predictive(x, index=batch_idx)

    def _training_rows(self):
        """What was trained on, in order, if a loader of ours held it in memory."""
        try:
            trainer = self.trainer
        except RuntimeError:  # not attached to one
            return None
        if trainer.state.fn == "fit" and trainer.state.status == "running":
            return None
        data = getattr(trainer, "datamodule", None)
        loader = trainer.train_dataloader
        if isinstance(data, ArrayDataModule) and data.holds("train"):
            loader = data.train_dataloader()
        if not isinstance(loader, ArrayLoader):
            return None
        return ArrayLoader(loader.data, batch_size=loader.batch_size)

    def _posterior_so_far(self):
        """Nothing while a sampler has kept no draw yet, in the midst of a fit."""
        try:
            return self.posterior()
        except ValueError as error:
            if self.trainer.state.fn != "fit":
                raise
            rank_zero_info(f"This validation has no predictive figures: {error}")
            return None

    def _judge(self, batch, index, loader):
        if self._held is None:
            return
        (x, y), mask = unpack(host_batch(batch))
        metrics = self._metrics.setdefault(loader, PredictiveMetrics(self.level))
        predictive = self.predictive(x, index=index)
        metrics.add(predictive, np.asarray(y), np.asarray(mask))
