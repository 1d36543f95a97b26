"""Any learner as a LightningModule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import PyTree
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelSummary

from .._batch import Batch, Stack, num_rows, unpack
from .._learner import AbstractLearner
from .._loader import ArrayLoader
from .._stepper import Stepper
from .._types import Model, State
from . import _fast_forward, _trainer_options
from ._bridge import Bridge
from ._checkpoint_io import AtomicCheckpointIO, load_verified
from ._errors import CheckpointMismatchError
from ._evaluation import Evaluation
from ._optimizer import OptaxOptimizer
from ._step_log import StepLog
from ._summary import TreeSummary
from ._torch_arrays import from_torch, is_key, leaf_names, pack, to_torch, unpack as put
from ._warnings import silence_false_alarms

_OPTIMIZER = "opt_state"  # a field of this name in a learner's state is optax's


class LearnerModule(pl.LightningModule):
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
    - `seed`: of everything random in the run.
    - `steps_per_dispatch`: as in `jaxprob.Stepper`. With 1 a callback sees every batch.
    - `lr_schedule`: the schedule given to the optimiser, `step -> learning rate`, only
        to be shown by `LearningRateMonitor`. `optax.inject_hyperparams` is found alone.
    """

    def __init__(
        self,
        learner: AbstractLearner,
        model: Model,
        *,
        seed: int = 0,
        steps_per_dispatch: int | Literal["auto"] = "auto",
        lr_schedule: Callable[[Any], Any] | None = None,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.learner = learner
        self.seed = seed
        self.steps_per_dispatch: int | Literal["auto"] = steps_per_dispatch
        self.lr_schedule = lr_schedule
        self.step_log = StepLog()
        init_key, run_key, eval_key = jax.random.split(jax.random.key(seed), 3)
        self._init_key, self._run_key, self._eval_key = init_key, run_key, eval_key
        self._options = _trainer_options.Options()
        self._active = learner
        self._template = model
        self._initial: State | None = learner.init(model, key=init_key)
        self._first_step = 0
        self._stepper: Stepper | None = None
        self._evaluation: Evaluation | None = None
        self._waiting: list[PyTree] | Stack = []
        self._rows = 1

    # What a user reads.

    @property
    def state(self) -> State:
        """A copy of the learner's state: it outlives the next step."""
        return jax.tree.map(
            lambda leaf: jnp.copy(leaf) if eqx.is_array(leaf) else leaf, self._live
        )

    @property
    def model(self) -> Model:
        """The one model to use: the average if there is one, as the learner says."""
        return self.learner.model(self.state)

    @property
    def learning_rate(self) -> float:
        """What `LearningRateMonitor` shows; NaN if the optimiser does not tell."""
        if self.lr_schedule is not None:
            return float(self.lr_schedule(self.trainer.global_step))
        return _injected_learning_rate(self._live)

    @property
    def capacity(self) -> int:
        """How many steps a dispatch may hold now."""
        return self._ready().capacity

    # Hooks of Lightning.

    def configure_callbacks(self) -> list[pl.Callback]:
        """Takes over what the Trainer asks of the optimiser; adds our callbacks."""
        silence_false_alarms()
        trainer: Any = self.trainer
        bridges = [c for c in trainer.callbacks if isinstance(c, Bridge)]
        bridge = bridges[0] if bridges else Bridge()
        options, bridge.give_back = _trainer_options.take_over(trainer)
        if trainer.training:
            self._adopt(options)
            if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
                trainer.strategy.checkpoint_io = AtomicCheckpointIO()
            trainer.callbacks = [
                TreeSummary(callback) if _is_default_summary(callback) else callback
                for callback in trainer.callbacks
            ]
        return [] if bridges else [bridge]

    def configure_optimizers(self) -> OptaxOptimizer:
        self._ready()
        return OptaxOptimizer(self)

    def transfer_batch_to_device(self, batch, device, dataloader_idx: int) -> Any:
        """The batch as it is: handing host memory to the step is the fastest way."""
        return batch

    def training_step(self, batch, batch_idx: int) -> None:
        if isinstance(self._waiting, list):  # a stack has the batch in it
            self._waiting.append(as_arrays(batch))
        optimizer: Any = self.optimizers()
        optimizer.step(self._dispatch)

    def validation_step(self, batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch, batch_idx, dataloader_idx)

    def test_step(self, batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch, batch_idx, dataloader_idx)

    def predict_step(self, batch, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """The model's output for each row of `x`, where a batch is `x` or `(x, ...)`.

        Override it for a model that is not called as `model(x)`.
        """
        data, mask = unpack(as_arrays(batch))
        x = data[0] if isinstance(data, tuple | list) else data
        model = eqx.nn.inference_mode(self.learner.model(self._live))
        outputs = _apply(model, x)
        count = int(np.sum(mask))  # padded rows come last
        return jax.tree.map(lambda out: np.asarray(out)[:count], outputs)

    def log(self, name: str, value: Any, *args, **kwargs) -> None:
        """Lightning's `log`, for JAX and NumPy scalars too.

        A mean over an epoch weighs each batch by the rows that count in it.
        """
        if isinstance(value, jax.Array | np.ndarray | np.generic):
            value = float(value)
        kwargs.setdefault("batch_size", self._rows)
        super().log(name, value, *args, **kwargs)

    # The state as Lightning's checkpoint holds it.

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args, **kwargs) -> Any:
        """Lightning's, after the file has been verified.

        Hyper-parameters saved by `self.save_hyperparameters()` build the module again;
        objects that cannot be saved so are given: `learner=..., model=...`.
        """
        if "://" not in str(checkpoint_path):
            load_verified(Path(checkpoint_path))
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    def state_dict(self, *args, **kwargs) -> dict[str, Any]:
        """Tensors by path; optax's state apart, so that weights can go alone."""
        self.settle()
        tensors = {
            f"state.{name}": tensor
            for name, tensor in pack(self._live).items()
            if not _is_optimizer_leaf(name)
        }
        tensors["run.key"] = to_torch(self._run_key)
        tensors["run.step"] = torch.tensor(self._steps_made())
        return tensors

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Checks every leaf by name, shape and dtype before any is replaced.

        **Raises:** `CheckpointMismatchError`, which names the leaves.
        """
        expected = {
            f"state.{name}" for name in leaf_names(self._live) if _is_model_leaf(name)
        } | {"run.key", "run.step"}
        missing = sorted(expected - state_dict.keys())
        unexpected = sorted(state_dict.keys() - expected)
        if strict and (missing or unexpected):
            raise CheckpointMismatchError(_difference(missing, unexpected))
        tensors = {
            name.removeprefix("state."): tensor
            for name, tensor in state_dict.items()
            if name.startswith("state.")
        }
        state = put(self._live, tensors)
        if "run.key" in state_dict:
            self._run_key = from_torch("run.key", state_dict["run.key"], self._run_key)
        self._restart(state, int(state_dict.get("run.step", 0)))
        return torch.nn.modules.module._IncompatibleKeys(missing, unexpected)

    def optimizer_state_dict(self) -> dict[str, Any]:
        """Optax's state: the leaves under a field named `opt_state`."""
        tensors = pack(self._live)
        return {name: t for name, t in tensors.items() if _is_optimizer_leaf(name)}

    def load_optimizer_state_dict(self, tensors: Mapping[str, Any]) -> None:
        expected = {n for n in leaf_names(self._live) if _is_optimizer_leaf(n)}
        missing = sorted(expected - tensors.keys())
        unexpected = sorted(tensors.keys() - expected)
        if missing or unexpected:
            raise CheckpointMismatchError(_difference(missing, unexpected))
        self._restart(put(self._live, tensors), self._steps_made())

    # Copies: `copy.deepcopy`, pickle, and whoever sends a module to a process.

    def __getstate__(self) -> dict[str, Any]:
        """Without compiled programs; keys as the numbers they are made of."""
        self.settle()
        state = super().__getstate__()
        state |= {"_initial": _without_keys(self.state), "_evaluation": None}
        state |= {"_stepper": None, "_first_step": self._steps_made()}
        keys = {name: key for name, key in state.items() if is_key(key)}
        return state | {name: _without_keys(key) for name, key in keys.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        restored = {
            name: _with_keys(value)
            for name, value in state.items()
            if name == "_initial" or isinstance(value, _KeyNumbers)
        }
        super().__setstate__(state | restored)

    # What our callback and fetcher call.

    def receive(self, batches: list[PyTree] | Stack) -> None:
        """The batches before the next one that Lightning hands over, or all of them.

        All but that one are counted as steps already.
        """
        if isinstance(batches, Stack):
            self._waiting = batches
        else:
            self._waiting = [as_arrays(batch) for batch in batches]

    def install_fetcher(self) -> None:
        """So that batches come many at a time."""
        _fast_forward.install(self)

    def settle(self) -> None:
        """Makes the steps that are counted and not yet made."""
        if isinstance(self._waiting, Stack):
            # Its last batch was not reached: an error came before the training step.
            self._waiting = self._waiting.unstack()[:-1]
        if self._waiting:
            self._dispatch()

    def check_rows(self) -> None:
        """Shows the learner the whole data sets, where the rows are in memory."""
        loaders = (self.trainer.train_dataloader, self.trainer.val_dataloaders)
        for loader in jax.tree.leaves(loaders):
            if isinstance(loader, ArrayLoader):
                self.learner.check(self.model, loader.data)

    def note_batch(self, batch: PyTree) -> None:
        """How many rows count in the batch in hand."""
        self._rows = _num_valid(batch)

    def begin_epoch(self) -> None:
        self._ready().reset_totals()

    def end_epoch(self) -> None:
        """Logs the means over the epoch."""
        self.step_log.flush(self.trainer)
        totals = self._ready().totals
        if totals is not None:
            self._log_all({f"train_{k}": v for k, v in totals.means().items()})

    def begin_evaluation(self) -> None:
        if self._evaluation is None:
            self._evaluation = Evaluation(self._active, self._eval_key)
        self._evaluation.start(self._live)

    def end_evaluation(self, prefix: str) -> None:
        """Logs the means over each loader."""
        assert self._evaluation is not None
        means = self._evaluation.means()
        self.log_loaders(prefix, means)

    def log_loaders(self, prefix: str, means: dict[int, dict[str, float]]) -> None:
        """Logs figures by loader, under Lightning's names where there are several."""
        for loader, values in means.items():
            suffix = f"/dataloader_idx_{loader}" if len(means) > 1 else ""
            self._log_all({f"{prefix}{k}{suffix}": v for k, v in values.items()})

    def _log_all(self, values):
        if self.trainer.barebones:
            return  # Lightning warns of each thing logged then
        # The bar has room for the losses; loggers and callbacks get everything.
        for name, value in values.items():
            shown = "loss" in name
            self.log(name, value, prog_bar=shown, add_dataloader_idx=False)

    # The state itself.

    @property
    def _live(self):
        return self._initial if self._stepper is None else self._stepper.state

    def _ready(self) -> Stepper:
        if self._stepper is None:
            self._restart(self._initial, self._first_step)
        assert self._stepper is not None
        return self._stepper

    def _steps_made(self):
        return self._first_step if self._stepper is None else self._stepper.step

    def _restart(self, state, step):
        """Goes on from a state: with the same compiled program, if there is one."""
        if self._stepper is None:
            self._stepper = Stepper(
                self._active,
                state,
                key=self._run_key,
                step=step,
                steps_per_dispatch=self.steps_per_dispatch,
            )
            self._initial = None
        else:
            self._stepper.resume(state, key=self._run_key, step=step)

    def _adopt(self, options):
        """Changes the optimiser step to what the Trainer asks for in this fit."""
        if options == self._options:
            return
        self._options = options
        self._active = options.apply(self.learner)
        step = self._steps_made()
        kept = {n: v for n, v in leaf_names(self._live).items() if _is_model_leaf(n)}
        fresh = self._active.init(self._template, key=self._init_key)
        state = jax.tree_util.tree_map_with_path(
            lambda path, leaf: _carried_over(kept, path, leaf), fresh
        )
        self._stepper = self._evaluation = None
        self._restart(state, step)

    def _dispatch(self):
        batches, self._waiting = self._waiting, []
        self.step_log.take(self.trainer, self._ready()(batches))

    def _evaluate(self, batch, index, loader):
        assert self._evaluation is not None
        self._evaluation(as_arrays(batch), index, loader)


def _carried_over(kept, path, leaf):
    """The value that a leaf had before the optimiser was changed, in its new dtype."""
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    if name not in kept or not eqx.is_array(leaf):
        return leaf
    same = kept[name].dtype == leaf.dtype
    return kept[name] if same else kept[name].astype(leaf.dtype)


def _is_optimizer_leaf(name):
    return _OPTIMIZER in name.split(".")


def _is_model_leaf(name):
    return not _is_optimizer_leaf(name)


@dataclass(frozen=True)
class _KeyNumbers:
    """A typed key as what can be pickled."""

    numbers: np.ndarray
    kind: str


def _without_keys(tree):
    def numbers(leaf):
        kind = str(jax.random.key_impl(leaf))
        return _KeyNumbers(np.asarray(jax.random.key_data(leaf)), kind)

    return jax.tree.map(lambda leaf: numbers(leaf) if is_key(leaf) else leaf, tree)


def _with_keys(tree):
    def key(leaf):
        if isinstance(leaf, _KeyNumbers):
            return jax.random.wrap_key_data(jnp.asarray(leaf.numbers), impl=leaf.kind)
        return leaf

    return jax.tree.map(key, tree, is_leaf=lambda x: isinstance(x, _KeyNumbers))


def _difference(missing, unexpected):
    def listing(names):
        return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")

    parts = []
    if missing:
        parts.append(f"the checkpoint lacks {listing(missing)}")
    if unexpected:
        parts.append(f"the module has no {listing(unexpected)}")
    return (
        "; ".join(parts) + ". Build the module with the settings that the checkpoint "
        "was written with"
    )


def as_arrays(batch):
    """Torch tensors become NumPy arrays; all else stays."""
    is_tensor = any(isinstance(leaf, torch.Tensor) for leaf in jax.tree.leaves(batch))
    if not is_tensor:
        return batch
    return jax.tree.map(
        lambda x: x.numpy(force=True) if isinstance(x, torch.Tensor) else x, batch
    )


def _num_valid(batch):
    if isinstance(batch, Batch):
        return int(np.sum(batch.mask))
    try:
        return num_rows(batch)
    except ValueError:
        return 1


def _injected_learning_rate(state):
    def has(node):
        return hasattr(node, "hyperparams")

    for node in jax.tree.leaves(state, is_leaf=has):
        if has(node) and "learning_rate" in node.hyperparams:
            return float(node.hyperparams["learning_rate"])
    return float("nan")


def _is_default_summary(callback):
    return isinstance(callback, ModelSummary) and not isinstance(callback, TreeSummary)


@eqx.filter_jit
def _apply(model, x):
    return jax.vmap(model)(x)
