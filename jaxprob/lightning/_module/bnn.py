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
        over the data (`Laplace`, `Blocks`). By default the training rows of the
        trainer's data module or loader, if they are in memory.
    - `predictive_every_n_epochs`: epochs between two validations in a fit that log
        predictive metrics. By default each does, but for methods whose posterior needs
        a pass over the data none; `trainer.validate` always logs them.
    - `save_posterior`: whether checkpoints hold the posterior of such methods, so that
        `load_from_checkpoint(path).predictive(x)` needs no training data. It costs one
        pass over the training rows for each checkpoint.
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
        predictive_every_n_epochs: int | None = None,
        save_posterior: bool = True,
        **kwargs: Any,
    ):
        if not isinstance(inference, AbstractInference):
            raise TypeError(
                f"inference is a {type(inference).__name__}, which has no posterior: "
                "give a method of jaxprob.bnn, or train with LearnerModule"
            )
        if predictive_every_n_epochs is not None and predictive_every_n_epochs < 1:
            raise ValueError(
                f"predictive_every_n_epochs={predictive_every_n_epochs}: give at least "
                "1, or None"
            )
        if likelihood is None:
            likelihood = inference.log_joint.likelihood
        super().__init__(inference, model, **kwargs)
        self.inference = inference
        self.likelihood = likelihood
        self.num_samples = num_samples
        self.level = level
        self.batches = batches
        self.predictive_every_n_epochs = predictive_every_n_epochs
        self.save_posterior = save_posterior
        self._engine.description.add(
            likelihood=likelihood,
            num_samples=num_samples,
            level=level,
            predictive_every_n_epochs=predictive_every_n_epochs,
            save_posterior=save_posterior,
        )
        self._engine.predictor = PosteriorJudge(self, level)

    def posterior(self) -> AbstractPosterior:
        """Return the posterior of the current state.

        Of a method that needs the training rows it is computed from `batches`, taken
        from the checkpoint, or computed from the rows that the trainer has in memory.

        **Raises:** `ValueError` where it needs the rows and there are none.
        """
        judge = cast(PosteriorJudge, self._engine.predictor)
        if self.batches is None and judge.stored is not None:
            return judge.stored
        batches = self.training_batches()
        if batches is None and self.needs_batches():
            raise ValueError(
                f"{type(self.inference).__name__} computes its posterior from the "
                "training data, and this module has neither rows in memory nor a "
                "posterior in its checkpoint. Write BNNModule(..., batches=[(x, y)]) "
                "or load_from_checkpoint(path, batches=[(x, y)])"
            )
        key, _ = jax.random.split(self._engine.keys.draws)
        return self.inference.posterior(self.state, batches, key=key)

    def training_batches(self) -> Any:
        """Return the training batches that are known, `batches` or rows in memory."""
        return training_rows(self) if self.batches is None else self.batches

    def needs_batches(self) -> bool:
        """Return whether the posterior takes a pass over the training data."""
        return self.inference.needs_batches(self.model)

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
