"""Any learner as a LightningModule."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
import pytorch_lightning as pl
from jaxtyping import PyTree

from ..._engine.layout import Layout
from ..._random.keys import step_key
from ..._training.capabilities import AbstractGradient
from ..._training.host_batch import host_batch
from ..._training.learner import AbstractLearner
from ..._types import Model, State
from ...datasets import Standardizer
from .._data.seed import resolve_seed
from .._loop.engine import Engine
from .._loop.prepare import prepare_trainer
from .arguments import check_arguments
from .learning_rate import learning_rate
from .optimizer import OptaxOptimizer
from .stored_module import StoredModule


def _prepared(hook):
    """Return a `configure_callbacks` that first prepares the Trainer.

    Lightning calls it before it reads anything else of the module.
    """

    @functools.wraps(hook)
    def configure_callbacks(self):
        prepare_trainer(self._engine)
        return hook(self)

    vars(configure_callbacks)["prepares"] = True
    return configure_callbacks


class LearnerModule(StoredModule):
    """Training of any `jaxprob.AbstractLearner` in a Lightning Trainer.

    ```python
    learner = jaxprob.GradientDescent(loss, optax.adam(1e-3))
    module = LearnerModule(learner, model)
    data = ArrayDataModule(train=(x, y), validation=(x_val, y_val), batch_size=32)
    trainer = pl.Trainer(max_epochs=10, accelerator="cpu")
    trainer.fit(module, data)
    model = module.model
    ```

    Many optimiser steps run in one dispatch, and everything the Trainer shows or writes
    is equal to what one step at a time would have given. Metrics are logged as
    `train_loss_step`, `train_loss` (mean over the epoch), `val_loss`, `test_loss`, and
    so on for each name in the learner's `info`.

    A subclass overrides hooks of Lightning. All machinery of jaxprob is one attribute,
    `_engine`, which is no part of the interface; a subclass may use any other name.

    **Arguments:**

    - `learner`: `jaxprob.GradientDescent`, or an inference method of `jaxprob.bnn`.
    - `model`: the model that is trained. It is copied, never changed.
    - `seed`: of everything random in the run. By default that of
        `pl.seed_everything`, or of LightningCLI's `--seed_everything`, if it was
        called, else 0. A run that is resumed has the seed of its checkpoint.
    - `steps_per_dispatch`: as in `jaxprob.Stepper`. With `"auto"` a callback of yours
        with a hook that Lightning calls for each batch is shown every batch, in
        dispatches of one step, unless it has `sees_every_batch = False`
        (`jaxprob.lightning.BatchWatcher`). With a number it is shown the last batch of
        each dispatch.
    - `lr_schedule`: the schedule given to the optimiser, `step -> learning rate`, only
        to be shown by `LearningRateMonitor`. With `optax.inject_hyperparams` it is not
        needed.
    - `layout`: the devices, such as `jaxprob.Layout(data=4)`. The Trainer always has
        `devices=1`, with any layout.
    """

    sees_every_batch: bool = True
    """`True` if hooks of a subclass see every batch, as in `BatchWatcher`."""

    def __init__(
        self,
        learner: AbstractLearner,
        model: Model,
        *,
        seed: int | None = None,
        steps_per_dispatch: int | Literal["auto"] = "auto",
        lr_schedule: Callable[[Any], Any] | None = None,
        layout: Layout | None = None,
    ):
        super().__init__()
        check_arguments(learner, model, layout)
        self.automatic_optimization = False
        self.learner = learner
        self.lr_schedule = lr_schedule
        self.layout = Layout() if layout is None else layout
        self._engine = Engine(
            self,
            LearnerModule,
            learner,
            model,
            seed=resolve_seed(seed),
            steps_per_dispatch=steps_per_dispatch,
            layout=self.layout,
        )

    @property
    def state(self) -> State:
        """A copy of the learner's state, on one device: it outlives the next step."""
        return self._engine.run.fetch()

    @property
    def model(self) -> Model:
        """The one model to use: the average if there is one, as the learner defines."""
        return self._engine.run.learner.model(self.state)

    @model.setter
    def model(self, model: Model) -> None:
        raise AttributeError(
            f"{type(self).__name__}.model is read, not set: give the model to "
            "super().__init__(learner, model). To continue from other weights, make "
            "another module with them"
        )

    @property
    def seed(self) -> int:
        """Seed of everything random in the run."""
        return self._engine.keys.seed

    @property
    def x_scaler(self) -> Standardizer | None:
        """Scaler of the inputs of the data module that trained it, also after loading.

        `module.x_scaler.inverse(samples)` are samples in the units of the data.
        """
        return self._engine.scalers.get("x_scaler")

    @property
    def y_scaler(self) -> Standardizer | None:
        """Scaler of the targets, in the same way."""
        return self._engine.scalers.get("y_scaler")

    @property
    def learning_rate(self) -> float:
        """Rate that `LearningRateMonitor` shows; NaN where the optimiser shows none."""
        return learning_rate(self._engine, self.lr_schedule)

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        raise AttributeError(
            f"{type(self).__name__}.learning_rate is read, not set: the rate is that "
            "of the optimiser, optax.adam(rate). Store a hyper-parameter under another "
            "name, such as self.rate"
        )

    @property
    def predicted_rows(self) -> list[Any]:
        """Row numbers of the last predictions, in the form `trainer.predict` has.

        ```python
        outputs = trainer.predict(module, data)
        rows = module.predicted_rows  # outputs[i][j] is of row rows[i][j] of the data
        ```

        They are those of the loader's data set, in whatever order it was read, and
        without padding; `None` for a batch of an iterable, which numbers no rows. A
        list has one array for each batch, or one list for each of several loaders.
        """
        found = self._engine.predicted
        return found.get(0, []) if len(found) < 2 else [found[i] for i in sorted(found)]

    def gradient(self, batch: PyTree) -> PyTree:
        """Return the gradient of the loss on a batch at the current weights.

        It is a tree like the trained leaves, computed for this call; the key is that of
        the next step. It is `None` for a learner that follows no gradient.
        """
        run = self._engine.run
        capability = run.active.capability(AbstractGradient)
        if capability is None:
            return None
        key = step_key(run.key, run.step)
        gradient = eqx.filter_jit(capability.gradient)
        return gradient(self.state, host_batch(batch), key=key)

    # Hooks of Lightning.

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Prepare the Trainer before any `configure_callbacks` of a subclass."""
        super().__init_subclass__(**kwargs)
        if not hasattr(cls.configure_callbacks, "prepares"):
            cls.configure_callbacks = _prepared(cls.configure_callbacks)

    @_prepared
    def configure_callbacks(self) -> list[pl.Callback]:
        """Return nothing: our callbacks are in the Trainer before this is called."""
        return []

    def configure_optimizers(self) -> OptaxOptimizer:
        return OptaxOptimizer(self._engine.run, lambda: self.learning_rate)

    def transfer_batch_to_device(self, batch, device, dataloader_idx: int) -> Any:
        """Return the batch as it is: a step takes host memory fastest."""
        return batch

    def forward(self, batch: Any) -> Any:
        """Return the prediction for a batch, as `predict_step` for the first one."""
        return self._engine.predictor.predict(batch, 0, 0)

    def training_step(self, batch, batch_idx: int = 0) -> None:
        if not self.trainer.training:
            raise RuntimeError(
                f"{type(self).__name__}.training_step was called outside of training, "
                "and would train on these rows. Call super().validation_step(batch, "
                "batch_idx) in a validation, or module.learner.evaluate"
            )
        self._engine.dispatcher.training_step(batch)

    def validation_step(self, batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._engine.evaluate(batch, batch_idx, dataloader_idx)

    def test_step(self, batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._engine.evaluate(batch, batch_idx, dataloader_idx)

    def predict_step(self, batch, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Return the model's output for each row of `x`; a batch is `x` or `(x, ...)`.

        Override it, or `forward`, for a model that is not called as `model(x)`.
        """
        if self._engine.overrides("forward"):
            return self(batch)
        return self._engine.predictor.predict(batch, batch_idx, dataloader_idx)

    def log(self, name: str, value: Any, *args, **kwargs) -> None:
        """Log a value as in Lightning, which may be a scalar of JAX or NumPy.

        A mean over an epoch weighs each batch by the rows that count in it.
        """
        if isinstance(value, jax.Array | np.ndarray | np.generic):
            value = float(value)
        kwargs.setdefault("batch_size", self._engine.rows)
        super().log(name, value, *args, **kwargs)

    def freeze(self) -> Any:
        """Prepare for inference: a fit raises an error until `unfreeze`."""
        self._engine.frozen = True
        return self.eval()

    def unfreeze(self) -> Any:
        self._engine.frozen = False
        return self.train()
