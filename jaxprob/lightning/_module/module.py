"""Any learner as a LightningModule."""

import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import PyTree
from pytorch_lightning.callbacks import ModelSummary
from pytorch_lightning.utilities.model_helpers import is_overridden

from ..._engine.layout import Layout
from ..._random.keys import is_key, step_key
from ..._training.batch import Batch, Stack, num_rows
from ..._training.capabilities import AbstractGradient
from ..._training.divergence import warn_of_divergence
from ..._training.host_batch import count_rows, host_batch
from ..._training.learner import AbstractLearner
from ..._training.loader import ArrayLoader
from ..._types import Model, State
from ...datasets import Standardizer
from .._checkpoint import run_tensors as _run_tensors
from .._checkpoint.checkpoint_io import make_atomic, verified_source
from .._checkpoint.description import (
    TEXT,
    Description,
    Saved,
    rebuilt_arguments,
    scalers_of,
    without_description,
)
from .._checkpoint.run_tensors import check_window
from .._checkpoint.save_on_signal import SaveOnSignal
from .._data.row_checks import RowChecks
from .._data.seed import resolve_seed
from .._errors import CheckpointMismatchError
from .._logging.anomaly import check_epoch
from .._logging.step_log import StepLog
from .._logging.summary import TreeSummary
from .._loop import fast_forward as _fast_forward
from .._loop.bridge import attach
from .._loop.each_batch import EachBatch
from .._loop.evaluation import Evaluation
from .._loop.run import Run, is_key_numbers, with_keys, without_keys
from .._loop.run_place import check_order
from .._loop.watchers import overrides_any
from .._trainer import options as _trainer_options, private as _private
from .._trainer.devices import check_devices
from .._trainer.foreign import mentions
from .._trainer.packages import check_trainer
from .._trainer.precision import for_prediction
from .._trainer.signals import begin_work, end_work, hold_signals
from .._trainer.warnings import silence_false_alarms
from .conventions import check_overrides
from .optimizer import OptaxOptimizer
from .without_parameters import WithoutParameters

_SEED = "run.seed"  # beside the tensors of the run in a checkpoint


def _prepared(hook):
    """A `configure_callbacks` that first prepares the Trainer.

    Lightning calls it before it looks at anything else of the module.
    """

    @functools.wraps(hook)
    def configure_callbacks(self):
        self.prepare_trainer()
        return hook(self)

    vars(configure_callbacks)["prepares"] = True
    return configure_callbacks


class LearnerModule(WithoutParameters):
    """Trains any `jaxprob.AbstractLearner` in a Lightning Trainer.

    ```python
    learner = jaxprob.GradientDescent(loss, optax.adam(1e-3))
    module = LearnerModule(learner, model)
    data = ArrayDataModule(train=(x, y), validation=(x_val, y_val), batch_size=32)
    trainer = pl.Trainer(max_epochs=10, accelerator="cpu")
    trainer.fit(module, data)
    model = module.model
    ```

    Many optimiser steps run in one dispatch, and everything the Trainer shows or writes
    is what one step at a time would have given. Metrics are logged as
    `train_loss_step`, `train_loss` (mean over the epoch), `val_loss`, `test_loss`, and
    so on for each name in the learner's `info`.

    **Arguments:**

    - `learner`: what trains: `jaxprob.GradientDescent`, or an inference method.
    - `model`: what is trained. It is copied, never changed.
    - `seed`: of everything random in the run. By default that of
        `pl.seed_everything`, or of LightningCLI's `--seed_everything`, if it was
        called, else 0. A run that is resumed has the seed of its checkpoint.
    - `steps_per_dispatch`: as in `jaxprob.Stepper`. With `"auto"` a callback of yours
        with a hook that Lightning calls for each batch is shown every batch, in
        dispatches of one step, unless it has `sees_every_batch = False`. With a number
        it is shown the last batch of each dispatch.
    - `lr_schedule`: the schedule given to the optimiser, `step -> learning rate`, only
        to be shown by `LearningRateMonitor`. `optax.inject_hyperparams` is found alone.
    - `layout`: the devices, such as `jaxprob.Layout(data=4)`. The Trainer is not told:
        `devices=1` there, whatever the layout.
    """

    argument_names: ClassVar[dict[str, str]] = {}
    """What a subclass calls `learner` and `model` in its constructor."""

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
        _check_arguments(learner, model, layout)
        self.automatic_optimization = False
        self.learner = learner
        init_key, run_key = self._use_seed(resolve_seed(seed))
        self.lr_schedule = lr_schedule
        self.layout = Layout() if layout is None else layout
        self.step_log = StepLog()
        self._run = Run(
            learner,
            model,
            init_key=init_key,
            key=run_key,
            steps_per_dispatch=steps_per_dispatch,
            layout=self.layout,
        )
        self._evaluation: Evaluation | None = None
        self._description = Description(learner, model)
        self._scalers: dict[str, Standardizer] = {}
        self._row_checks = RowChecks()
        self._losses: list[float] | None = []  # of the epochs of this fit
        self._waiting: list[PyTree] | Stack = []
        self._rows = 1
        self._ahead = 0
        self._frozen = False
        self._each_batch = EachBatch()
        self._one_by_one = False
        self._steps_made = self._steps_in_epoch = self._left_out = 0
        self._fires_zero_grad = False
        self._begins = False
        self.fast_forwards = False  # whether a fetcher hands over many batches
        self._before: tuple[int, _private.Counts] | None = None

    # What a user reads.

    @property
    def state(self) -> State:
        """A copy of the learner's state, on one device: it outlives the next step."""
        return self._run.fetch()

    @property
    def model(self) -> Model:
        """The one model to use: the average if there is one, as the learner says."""
        return self.learner.model(self.state)

    @model.setter
    def model(self, model: Model) -> None:
        raise AttributeError(
            f"{type(self).__name__}.model is read, not set: give the model to "
            "super().__init__(learner, model). To go on from other weights make a new "
            "module of them"
        )

    @property
    def x_scaler(self) -> Standardizer | None:
        """Scaler of the inputs of the data module that trained it, also after loading.

        `module.x_scaler.inverse(samples)` are samples in the units of the data.
        """
        return self._scalers.get("x_scaler")

    @property
    def y_scaler(self) -> Standardizer | None:
        """Scaler of the targets, in the same way."""
        return self._scalers.get("y_scaler")

    @property
    def learning_rate(self) -> float:
        """What `LearningRateMonitor` shows; NaN if the optimiser does not tell."""
        if self.lr_schedule is not None:
            return float(self.lr_schedule(self._ahead + self.trainer.global_step))
        return _injected_learning_rate(self._run.state)

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        raise AttributeError(
            f"{type(self).__name__}.learning_rate is read, not set: the rate is that "
            "of the optimiser, optax.adam(rate). Hold a hyper-parameter under another "
            "name, such as self.rate"
        )

    @property
    def accumulate(self) -> int:
        """Of how many batches the optimiser makes one update."""
        return self._run.accumulate

    @property
    def capacity(self) -> int:
        """How many steps a dispatch may hold now."""
        return self._run.stepper.capacity

    @property
    def slots(self) -> int:
        """How long a stack of batches is to be, as `jaxprob.Stepper` says."""
        return self._run.stepper.slots

    @property
    def one_by_one(self) -> bool:
        """Whether each batch is shown to somebody, so that a dispatch holds one step.

        A `training_step` of a subclass may change the batch, its `on_train_batch_start`
        may end the epoch by returning -1, and a callback may count steps.
        """
        return self._one_by_one or any(
            map(self.overrides, ("training_step", "on_train_batch_start"))
        )

    @property
    def shows_each_batch(self) -> bool:
        """Whether a dispatch holds one step, so that a callback sees every batch."""
        return self.one_by_one or self._run.steps_per_dispatch == 1

    def gradient(self, batch: PyTree) -> PyTree:
        """The gradient of the loss on a batch at the weights of now.

        It is a tree like the trained leaves, computed for this call; the key is that of
        the next step. `None` of a learner that follows no gradient.
        """
        capability = self._run.active.capability(AbstractGradient)
        if capability is None:
            return None
        key = step_key(self._run.key, self._run.step)
        gradient = eqx.filter_jit(capability.gradient)
        return gradient(self.state, host_batch(batch), key=key)

    def overrides(self, name: str) -> bool:
        """Whether a subclass, or this object, has a method of its own by that name."""
        return is_overridden(name, self, LearnerModule)

    # Hooks of Lightning.

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Whatever a subclass does in `configure_callbacks`, ours is done before."""
        super().__init_subclass__(**kwargs)
        if not hasattr(cls.configure_callbacks, "prepares"):
            cls.configure_callbacks = _prepared(cls.configure_callbacks)

    @_prepared
    def configure_callbacks(self) -> list[pl.Callback]:
        """None of our own: those stand in the Trainer before this is called."""
        return []

    def configure_optimizers(self) -> OptaxOptimizer:
        return OptaxOptimizer(self)

    def transfer_batch_to_device(self, batch, device, dataloader_idx: int) -> Any:
        """The batch as it is: handing host memory to the step is the fastest way."""
        return batch

    def forward(self, batch: Any) -> Any:
        """The prediction for a batch, as `predict_step` gives it for the first one."""
        return self._predict(batch, 0, 0)

    def training_step(self, batch, batch_idx: int = 0) -> None:
        if not self.trainer.training:
            raise RuntimeError(
                f"{type(self).__name__}.training_step was called outside of training, "
                "and would train on these rows. Call super().validation_step(batch, "
                "batch_idx) in a validation, or module.learner.evaluate"
            )
        self._steps_made += 1
        if isinstance(self._waiting, list):  # a stack has the batch in it
            self._waiting.append(host_batch(batch))
        if _private.window_is_open(self.trainer):
            self._dispatch()
            return
        optimizer: Any = self.optimizers()
        if self._fires_zero_grad:
            _private.before_zero_grad(self.trainer, optimizer)
        optimizer.step(self._dispatch_update)

    def validation_step(self, batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch, batch_idx, dataloader_idx)

    def test_step(self, batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch, batch_idx, dataloader_idx)

    def predict_step(self, batch, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """The model's output for each row of `x`, where a batch is `x` or `(x, ...)`.

        Override it, or `forward`, for a model that is not called as `model(x)`.
        """
        if self.overrides("forward"):
            return self(batch)
        return self._predict(batch, batch_idx, dataloader_idx)

    def _predict(self, batch, batch_idx, dataloader_idx):
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
        model = eqx.nn.inference_mode(
            self.learner.model(self.layout.fetch(self._run.state))
        )
        outputs = _apply(*for_prediction(self._run.active, (model, x)))
        # Padded rows come last.
        count = int(np.sum(batch.mask)) if isinstance(batch, Batch) else rows
        return jax.tree.map(lambda out: np.asarray(out)[:count], outputs)

    def log(self, name: str, value: Any, *args, **kwargs) -> None:
        """Lightning's `log`, for JAX and NumPy scalars too.

        A mean over an epoch weighs each batch by the rows that count in it.
        """
        if isinstance(value, jax.Array | np.ndarray | np.generic):
            value = float(value)
        kwargs.setdefault("batch_size", self._rows)
        super().log(name, value, *args, **kwargs)

    def freeze(self) -> Any:
        """Lightning's, for inference: a fit is refused until `unfreeze`."""
        self._frozen = True
        return self.eval()

    def unfreeze(self) -> Any:
        self._frozen = False
        return self.train()

    # The state as Lightning's checkpoint holds it.

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args, **kwargs) -> Any:
        """Lightning's, after the file has been verified.

        A checkpoint holds the arguments of the module, and builds it again:
        `load_from_checkpoint(path)` where all classes of the model are from jaxprob or
        Equinox. The optimiser and functions of your own are in no file. The module
        predicts without them; to train, give `learner=...`. Models of other classes are
        given, `learner=..., model=...`, and compared with the checkpoint. A class that
        called `self.save_hyperparameters()` is built from those.

        **Arguments:** as Lightning's; `checkpoint_path` may be a path, a URL or a file
        that is open.

        **Raises:** as reading a checkpoint anywhere else: `CheckpointCorruptError`,
        `CheckpointContentError`.
        """
        checkpoint_path, checkpoint = verified_source(checkpoint_path, *args, **kwargs)
        kwargs |= rebuilt_arguments(cls, checkpoint, cls.argument_names, kwargs)
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    def state_dict(self, *args, **kwargs) -> dict[str, Any]:
        """Tensors by path; optax's state apart, so that weights can go alone.

        What a subclass holds in torch (buffers, modules, metrics) stands beside them.
        """
        self.settle()
        self._run.wait()
        torchs = super().state_dict(*args, **kwargs)
        seed = {_SEED: torch.tensor(self.seed)}
        described = self._description.tensors(self._scalers)
        return {**_run_tensors.model_tensors(self._run), **seed, **described, **torchs}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Checks every leaf by name, shape and dtype before any is replaced.

        Outside of a fit, parameters that are stored in another precision bring it with
        them: a checkpoint of `Trainer(precision="bf16-true")` needs no Trainer to load.

        The settings of the model are compared before, as the state dict describes them.

        **Raises:** `CheckpointMismatchError`, which names the settings or the leaves.
        """
        if TEXT in state_dict:
            saved = Saved(state_dict)
            self._description.compare(saved, strict)
            self._scalers = saved.scalers()
        elif strict:
            raise CheckpointMismatchError(
                f"the state dict lacks {TEXT}, which says what model it is of: take it "
                "from module.state_dict() or a checkpoint, or give strict=False"
            )
        state_dict = without_description(state_dict)
        if not self._is_fitting():
            precision = _run_tensors.stored_precision(self._run, state_dict)
            self._adopt(replace(self._run.options, precision=precision))
        torchs = super().state_dict()
        differences = _run_tensors.load_model_tensors(
            self._run, state_dict, strict, {_SEED, *torchs}
        )
        if _SEED in state_dict and int(state_dict[_SEED]) != self.seed:
            self._use_seed(int(state_dict[_SEED]))
            self._evaluation = None
        found = {name: state_dict[name] for name in torchs if name in state_dict}
        super().load_state_dict(found, strict=False, assign=assign)
        return torch.nn.modules.module._IncompatibleKeys(*differences)

    def optimizer_state_dict(self) -> dict[str, Any]:
        """Optax's state: the leaves under a field named `opt_state`."""
        return _run_tensors.optimizer_tensors(self._run)

    def load_optimizer_state_dict(self, tensors: Mapping[str, Any]) -> None:
        """The same checks as `load_state_dict`."""
        _run_tensors.load_optimizer_tensors(self._run, tensors)

    # Copies: `copy.deepcopy`, pickle, and whoever sends a module to a process.

    def __getstate__(self) -> dict[str, Any]:
        """Without compiled programs; keys as the numbers they are made of."""
        self.settle()
        return _each_value(
            super().__getstate__() | {"_evaluation": None, "_row_checks": RowChecks()},
            is_key,
            without_keys,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(_each_value(state, is_key_numbers, with_keys))

    # What our callback and fetcher call.

    def receive(self, batches: list[PyTree] | Stack) -> None:
        """The batches before the next one that Lightning hands over, or all of them.

        All but that one are counted as steps already.
        """
        if isinstance(batches, Stack):
            self._waiting = batches
        else:
            self._waiting = [host_batch(batch) for batch in batches]

    def install_fetcher(self) -> None:
        """So that batches come many at a time, unless each is to be shown."""
        trainer: Any = self.trainer
        self._one_by_one = False
        self._one_by_one = self._each_batch.look(
            trainer, self._run.steps_per_dispatch, self.one_by_one
        )
        self._fires_zero_grad = overrides_any(trainer, "on_before_zero_grad")
        _fast_forward.install(self)

    def bound(self, longest: int | float) -> None:
        """Tells the stepper how many batches come in a row at most."""
        self._run.stepper.bound(longest)

    def settle(self) -> None:
        """Makes the steps that are counted and not yet made."""
        if isinstance(self._waiting, Stack):
            # Its last batch was not reached: an error came before the training step.
            self._waiting = self._waiting.unstack()[:-1]
        if self._waiting:
            self._dispatch(behind=1)

    def between_steps(self) -> None:
        """Notes what is counted, and lets handlers of signals be called."""
        # Lightning may have left out the step of the batch before, if it was `None`.
        self.settle()
        self._before = self._run.step, _private.counts(self.trainer)
        end_work()

    def recover(self, exception: BaseException) -> None:
        """Makes the Trainer's counters those of the state, when a run is left.

        Steps that are counted and can be made are made. After an error inside a step
        they were counted, and will never be.
        """
        try:
            self.settle()
        except Exception as error:
            exception.add_note(f"jaxprob: the steps counted before failed too: {error}")
        self._waiting = []
        if self._before is None or self.trainer.state.fn != "fit":
            return
        trainer = self.trainer
        step, counts = self._before
        counts = _private.counts_after(trainer, counts, self._run.step - step)
        self.step_log.forget(counts.logged)
        stands = _private.batch_is_over(trainer, counts)
        if self.overrides("training_step"):  # which may make no step of a batch
            stands = trainer.global_step == counts.updates[0]
        if not (trainer.validating or stands) and counts.batches[1] >= 0:
            _private.set_counts(trainer, counts)
            rescued = self._run.stepper.rescued
            if rescued is not None:
                self.step_log.add(trainer, rescued, counts.logged)
        self.step_log.flush(trainer)

    def check_rows(self) -> None:
        """Shows the learner the data sets, whole or batch after batch."""
        self._row_checks.begin_fit(self)

    def check_step_made(self, outputs: Any) -> None:
        """Raises `TypeError` where a subclass's `training_step` trains nothing.

        It may leave out a batch by returning nothing; it cannot return a loss.
        """
        made, self._steps_made = self._steps_made, 0
        self._steps_in_epoch += made
        if made or not self.overrides("training_step"):
            return
        self._left_out += 1
        if outputs or not mentions(type(self).training_step, "training_step"):
            raise TypeError(_no_step(self))

    def note_scalers(self) -> None:
        """Takes over the scalers of the Trainer's data module.

        Warns where they are not those that the module was trained with.
        """
        found = scalers_of(getattr(self.trainer, "datamodule", None))
        for name, scaler in found.items():
            before = self._scalers.setdefault(name, scaler)
            if not before.equals(scaler):
                warnings.warn(
                    f"the data module's {name} has mean {scaler.mean} and std "
                    f"{scaler.std}, and the module was trained with mean {before.mean} "
                    f"and std {before.std}: its inputs or outputs are in other units. "
                    "Standardise by the scaler of the training data, module.x_scaler",
                    stacklevel=2,
                )
            if self._is_fitting():
                self._scalers[name] = scaler

    def note_batch(self, batch: PyTree) -> None:
        """How many rows count in the batch in hand."""
        self._rows = count_rows(batch)

    def prepare_trainer(self) -> None:
        """Takes over what the Trainer asks of the optimiser; adds our callbacks.

        Nothing is lost if it is done twice: first all is as the Trainer was told.
        """
        silence_false_alarms()
        trainer: Any = self.trainer
        check_trainer(trainer)
        bridge = attach(trainer)
        bridge.give_back()
        hold_signals(trainer)
        for callback in trainer.callbacks:
            if isinstance(callback, SaveOnSignal):
                callback.listen()
        check_devices(trainer, self.layout)
        options, bridge.undo = _trainer_options.take_over(trainer)
        make_atomic(trainer.strategy)
        if trainer.training:
            self._prepare_fit(trainer, options)
        elif self._run.fresh:
            # Any other is evaluated in the precision it has, and stays as it is.
            self._adopt(_trainer_options.Options(precision=options.precision))

    def begin_fit(self) -> None:
        """Notes how far the optimiser is ahead of the Trainer, which counts anew."""
        self._run.fresh = False
        self._losses, self._before = [], None
        self._run.place.begin_fit(self._run.step)
        check_order(self.trainer, self._run.place.at(self._run.step))
        self._ahead = self._run.updates - self.trainer.global_step
        self._begins = True
        if self.accumulate > 1 and not _private.is_resuming(self.trainer):
            # What a fit that was broken off has gathered is no part of this one's.
            self._run.set_windows(accumulated=0, num_accumulated=0, closing=False)

    def begin_batch(self) -> None:
        """Notes the place of the batch in hand, before anybody looks at it."""
        if not self.fast_forwards:  # else the fetcher has done so
            self.between_steps()
            begin_work()
        waiting = self._waiting
        ahead = waiting.num - 1 if isinstance(waiting, Stack) else len(waiting)
        self._run.place.begin_batch(self.trainer, ahead)
        begins, self._begins = self._begins, False
        if begins and self.accumulate > 1:
            done = _private.batch_in_epoch(self.trainer) - ahead
            check_window(self._run, done % self.accumulate)

    def end_batch(self) -> None:
        """Notes the place of the next one."""
        self._run.place.end_batch(self.trainer, self._run.step)

    def take_loader(self, loader: Any) -> Any:
        """A training loader whose place is the run's; any other as it is.

        Lightning hands us loaders of all stages, and the same object perhaps twice.
        """
        trainer = self.trainer
        if not trainer.training or not isinstance(loader, ArrayLoader):
            return loader
        place = self._run.place
        loader = loader.following(lambda i: place.of_iterator(trainer, i))
        if trainer.overfit_batches:
            loader.shuffle = False  # the same batches in every epoch
        return loader

    def begin_epoch(self) -> None:
        self._steps_in_epoch = self._left_out = 0
        self._run.stepper.reset_totals()

    def end_epoch(self) -> None:
        """Logs the means over the epoch."""
        self.settle()
        self._run.stepper.wait()
        self._run.place.end_epoch(self.trainer, self._run.step)
        self._row_checks.end_epoch(self.trainer)
        self.step_log.flush(self.trainer)
        totals = self._run.stepper.totals
        if self._left_out and not self._steps_in_epoch:
            raise TypeError(_no_step(self))
        if totals is not None:
            check_epoch(self)
            means = totals.means()
            self._note_loss(means)
            self._log_all({f"train_{k}": v for k, v in means.items()})

    def warn_if_broken(self) -> None:
        """Warns, once, of the step and the leaf that broke the state.

        After each thousand steps the stepper does so by itself.
        """
        self._run.stepper.check_state()

    def raise_if_broken(self) -> None:
        """Raises `jaxprob.NonFiniteError` instead, and goes back to the state before.

        Of a state that was warned of it has nothing more to say.
        """
        stepper = self._run.stepper
        stepper.fatal = True
        try:
            stepper.check_state()
        finally:
            stepper.fatal = False

    def begin_evaluation(self) -> None:
        if self._evaluation is None:
            self._evaluation = Evaluation(self._run.active, self._eval_key, self.layout)
        self._run.wait()
        self._evaluation.start(self._run.state)

    def end_evaluation(self, prefix: str) -> None:
        """Logs the means over each loader."""
        assert self._evaluation is not None
        self._row_checks.end_evaluation(self.trainer)
        means = self._evaluation.means()
        self.log_loaders(prefix, means)

    def log_loaders(self, prefix: str, means: dict[int, dict[str, float]]) -> None:
        """Logs figures by loader, under Lightning's names where there are several."""
        for loader, values in means.items():
            suffix = f"/dataloader_idx_{loader}" if len(means) > 1 else ""
            self._log_all({f"{prefix}{k}{suffix}": v for k, v in values.items()})

    def _use_seed(self, seed):
        """Derives all keys; returns those of the initial state and of the steps."""
        self.seed = seed
        keys = jax.random.split(jax.random.key(seed), 4)
        init_key, run_key, self._eval_key, self._draw_key = keys
        return init_key, run_key

    def _prepare_fit(self, trainer, options):
        check_overrides(self)
        if self._frozen:
            raise ValueError(
                "module.freeze() holds torch parameters, of which there are none: say "
                "what moves in the learner, trainable=jaxprob.tree.freeze(model, "
                "'layers.0'), or call module.unfreeze() before the fit"
            )
        self._adopt(options)
        trainer.callbacks = [
            TreeSummary(callback) if _is_default_summary(callback) else callback
            for callback in trainer.callbacks
        ]

    def _note_loss(self, means):
        """Warns, once in a fit, of a loss that has diverged and is still finite."""
        if "loss" in means and self._losses is not None:
            self._losses.append(means["loss"])
            if warn_of_divergence(self._losses):
                self._losses = None

    def _adopt(self, options):
        if self._run.adopt(options):
            self._evaluation = None

    def _is_fitting(self):
        if self._trainer is None:
            return False
        state = self._trainer.state
        return state.fn == "fit" and state.status == "running"

    def _log_all(self, values):
        if self.trainer.barebones:
            return  # Lightning warns of each thing logged then
        # The bar has room for the losses; loggers and callbacks get everything.
        for name, value in values.items():
            shown = "loss" in name
            self.log(name, value, prog_bar=shown, add_dataloader_idx=False)

    def _dispatch(self, behind: int = 0):
        """Make the steps that wait, the last one `behind` steps before that in hand."""
        metrics = self._train(self._take_waiting())
        self.step_log.take(self.trainer, metrics, behind)

    def _dispatch_update(self):
        """A dispatch whose last batch makes an update, also at the end of an epoch."""
        every, done = self.accumulate, _private.batch_in_epoch(self.trainer) + 1
        # Steps that float16 left out are no part of a window.
        full = done % every == 0 and self._run.options.precision != "16-mixed"
        if full or not _private.is_last_batch(self.trainer) or every == 1:
            self._dispatch()
            return
        batches = self._take_waiting()
        batches = batches.unstack() if isinstance(batches, Stack) else batches
        before = self._train(batches[:-1])
        self._run.set_windows(closing=True)
        self.step_log.take(self.trainer, before.then(self._train(batches[-1:])))

    def _take_waiting(self):
        if isinstance(self._waiting, list):  # a stack is of arrays that were checked
            self._row_checks.training(self._waiting)
        batches, self._waiting = self._waiting, []
        return batches

    def _train(self, batches):
        if self._each_batch.anybody or self.one_by_one:
            self._run.stepper.refresh()
        metrics = self._run.stepper(batches)
        self._each_batch.step_made(self._run.stepper)
        return metrics

    def _evaluate(self, batch, index, loader):
        assert self._evaluation is not None
        batch = host_batch(batch)
        self._row_checks.evaluation(self, batch, loader)
        self._evaluation(batch, index, loader)


def _check_arguments(learner, model, layout=None):
    kind = type(learner).__name__
    if isinstance(model, AbstractLearner) and not isinstance(learner, AbstractLearner):
        raise TypeError(
            f"the learner comes first and the model second: a {kind} was given as the "
            f"learner and a {type(model).__name__} as the model"
        )
    if not isinstance(learner, AbstractLearner):
        raise TypeError(
            f"learner is a {kind}: give what trains, such as jaxprob.GradientDescent("
            "loss, optax.adam(1e-3)) or a method of jaxprob.bnn"
        )
    if isinstance(model, torch.nn.Module):
        raise TypeError(
            f"model is a {type(model).__module__}.{type(model).__name__}, of torch: "
            "give an Equinox module, or another pytree of JAX arrays"
        )
    if layout is not None and not isinstance(layout, Layout):
        raise TypeError(f"layout={layout!r}: give jaxprob.Layout(data=4), or nothing")


def _no_step(module):
    name = type(module).__name__
    return (
        f"{name}.training_step made no step: the loss is that of the learner and is "
        "differentiated inside the compiled step. Write `return "
        "super().training_step(batch, batch_idx)` in it, with the batch to train on, "
        f"and put the loss into jaxprob.GradientDescent(loss, optimizer)"
    )


def _injected_learning_rate(state):
    def has(node):
        return hasattr(node, "hyperparams")

    for node in jax.tree.leaves(state, is_leaf=has):
        if has(node) and "learning_rate" in node.hyperparams:
            return float(node.hyperparams["learning_rate"])
    return float("nan")


def _each_value(state, chosen, change):
    return {k: change(v) if chosen(v) else v for k, v in state.items()}


def _is_default_summary(callback):
    return isinstance(callback, ModelSummary) and not isinstance(callback, TreeSummary)


@eqx.filter_jit
def _apply(model, x):
    return jax.vmap(model)(x)
