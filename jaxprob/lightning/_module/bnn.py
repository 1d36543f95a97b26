"""Bayesian inference as a LightningModule."""

from collections.abc import Iterable
from typing import Any, ClassVar, cast

import jax
from jaxtyping import PyTree

from ..._training.learner import AbstractLearner
from ..._types import Model
from ...bnn import (
    AbstractInference,
    AbstractPosterior,
    Likelihood,
    Predictive,
    predict,
)
from .._trainer.precision import for_prediction
from .module import LearnerModule
from .posterior_judge import PosteriorJudge, training_rows


class BNNModule(LearnerModule):
    """Training of a method of `jaxprob.bnn`, with scores of its predictions.

    ```python
    log_joint = LogJoint(NormalLikelihood(0.3), FanInNormal(), num_data=len(x))
    module = BNNModule(MeanFieldVI(log_joint, optax.adam(1e-2)), model)
    trainer.fit(module, data)
    predictives = trainer.predict(module, data)    # one Predictive for each batch
    posterior = module.posterior()
    ```

    Beside the learner's own metrics, validation and test log those of the mixture over
    posterior samples: `val_predictive_nll` (nats per row), `val_accuracy` for labels,
    `val_rmse` and `val_coverage_90` for real targets and counts. Rows of a batch
    `(x, y, weight)` enter by their weight, and missing entries of `(values, observed)`
    not at all; with several targets the names end in theirs, `val_rmse_price`.

    **Arguments:**

    - `inference`: any method of `jaxprob.bnn`.
    - `model`: the network; batches are `(x, y)` or `(x, y, weight)`.
    - `likelihood`: that of training by default, `inference.log_joint.likelihood`.
    - `num_samples`: posterior samples in validation, test and predict.
    - `level`: probability of the interval whose coverage is logged.
    - `batches`: the training batches again, for methods whose posterior needs a pass
        over the data. By default, after training, the training rows of the trainer's
        data module or loader, if they are in memory; validations in the course of a fit
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
        self._engine.description.add(
            likelihood=likelihood, num_samples=num_samples, level=level
        )
        self._engine.predictor = PosteriorJudge(self, level)

    def posterior(self) -> AbstractPosterior:
        """Return the posterior of the current state."""
        batches = training_rows(self) if self.batches is None else self.batches
        key, _ = jax.random.split(self._engine.keys.draws)
        return self.inference.posterior(self.state, batches, key=key)

    def predictive(self, x: PyTree, *, index: int = 0) -> Predictive:
        """Return the predictive distribution of y for rows of x.

        **Arguments:**

        - `x`: rows.
        - `index`: chooses the posterior samples.
        """
        held = cast(PosteriorJudge, self._engine.predictor).held
        learner = self._engine.run.active
        posterior = self.posterior() if held is None else held
        _, key = jax.random.split(self._engine.keys.draws)
        exact = posterior.num_atoms is not None
        return predict(
            for_prediction(learner, posterior),
            self.likelihood,
            for_prediction(learner, x),
            key=jax.random.fold_in(key, index),
            num_samples=None if exact else self.num_samples,
        )
