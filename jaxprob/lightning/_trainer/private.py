"""Everything of Lightning that is not public and that we touch: this file alone.

Lightning counts one optimiser step for each batch it hands out. To run many steps in
one dispatch we count the others for it, and we write the metrics of a step without the
half millisecond that `self.log` takes. `CONTRACT` lists what we lean on; `check` runs
before each fit and names what is missing, so a new Lightning fails loudly, never by
training wrongly.

| name | used for | there since |
|---|---|---|
| `fit_loop._data_fetcher` | handing out every n-th batch | 2.0 |
| `fit_loop._combined_loader`: `_mode` | the place of each loader's batches | 2.0 |
| `fit_loop._combined_loader_states_to_load` | comparing the data on resume | 2.5 |
| `CombinedLoader._iterator`: `iterators`, `_idx` | many batches at once | 2.0 |
| `loops.fetchers._PrefetchDataFetcher` | the class of that fetcher | 2.0 |
| `fit_loop.epoch_progress` | a slip of Lightning's after two resumes | 1.5 |
| `_Loop.restarting`, `restarted_on_epoch_end` | another, with `max_steps` | 2.5 |
| `fit_loop.epoch_loop.batch_progress` | batches done in the epoch and in all | 1.5 |
| `batch_progress.is_last_batch` | whether the rows of an epoch were counted | 1.6 |
| `epoch_loop.manual_optimization.optim_step_progress` | `trainer.global_step` | 1.6 |
| `epoch_loop._batches_that_stepped` | the x-axis of the loggers | 1.6 |
| `_logger_connector`: three dicts, `should_update_logs` | metrics of a step | 1.5 |
| `ModelCheckpoint._every_n_train_steps`, `_train_time_interval` | when it looks | 1.3 |
| `ModelCheckpoint._save_topk_checkpoint` and five more | `train_time_interval` | 2.0 |
| `ModelSummary._max_depth` | the depth the user asked for | 1.5 |
| `trainer._signal_connector`, `call._call_and_handle_interrupt` | signals | 1.6 |
| `LightningModule._on_before_batch_transfer` | the transfer hooks | 1.7 |
| `trainer.call._call_callback_hooks` and its like | `on_before_zero_grad` | 1.6 |
| `overrides.distributed._IndexBatchSamplerWrapper` | rows in prediction writers | 1.4 |
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.data import sized_len
from lightning_fabric.utilities.types import _Stateful
from pytorch_lightning.callbacks import Checkpoint, ModelSummary
from pytorch_lightning.loops.fetchers import (
    _PrefetchDataFetcher as PrefetchDataFetcher,
)
from pytorch_lightning.loops.loop import _Loop as Loop
from pytorch_lightning.overrides.distributed import _IndexBatchSamplerWrapper
from pytorch_lightning.trainer import call as _call
from pytorch_lightning.trainer.connectors.signal_connector import (
    _SignalConnector as SignalConnector,
)

from ..._training.loader import ArrayIterator, ArrayLoader

CONTRACT = (
    "fit_loop._data_fetcher",
    "fit_loop._combined_loader",
    "fit_loop._combined_loader_states_to_load",
    "fit_loop.is_resuming",
    "fit_loop._should_accumulate",
    "fit_loop.restarted_on_epoch_end",
    "fit_loop.update_restart_stage",
    "fit_loop.epoch_progress.increment_completed",
    "fit_loop.epoch_progress.current.ready",
    "fit_loop.epoch_progress.current.processed",
    "fit_loop.epoch_loop.batch_idx",
    "fit_loop.epoch_loop.batch_progress.is_last_batch",
    "fit_loop.epoch_loop.total_batch_idx",
    "fit_loop.epoch_loop.batch_progress.increment_by",
    "fit_loop.epoch_loop.batch_progress.is_last_batch",
    "fit_loop.epoch_loop.manual_optimization.optim_step_progress.increment_by",
    "fit_loop.epoch_loop._batches_that_stepped",
    "_signal_connector.register_signal_handlers",
    "_signal_connector.teardown",
    "_logger_connector.should_update_logs",
    "_logger_connector._callback_metrics",
    "_logger_connector._progress_bar_metrics",
    "_logger_connector._logged_metrics",
)
"""Paths from a trainer that must exist."""


def check(trainer: Any) -> None:
    """Raises `RuntimeError` when this Lightning lacks something we lean on."""
    missing = [path for path in CONTRACT if not _has(trainer, path)]
    if missing:
        raise RuntimeError(
            f"pytorch-lightning {pl.__version__} has no trainer.{missing[0]}, which "
            "jaxprob.lightning counts steps with. Install pytorch-lightning>=2.6.6,<2.8"
        )


def _has(node, path):
    for name in path.split("."):
        if not hasattr(node, name):
            return False
        node = getattr(node, name)
    return True


def fetcher(trainer: Any) -> Any:
    """What hands training batches to the loop."""
    return trainer.fit_loop._data_fetcher


def set_fetcher(trainer: Any, fetcher: Any) -> None:
    trainer.fit_loop._data_fetcher = fetcher


def array_iterator(fetcher: Any) -> ArrayIterator | None:
    """The iterator of an `ArrayLoader`, where a fetcher draws from nothing else.

    A list or dict of one loader is something else: a batch is a list or dict then.
    """
    combined = fetcher.combined_loader
    if any(combined.iterables is not one for one in combined.flattened):
        return None
    mode = getattr(combined, "_iterator", None)
    iterators = getattr(mode, "iterators", [])
    known = fetcher.length is not None and len(iterators) == 1
    if known and isinstance(iterators[0], ArrayIterator):
        return iterators[0]
    return None


def draws_from(trainer: Any, iterator: Any) -> bool:
    """Whether the Trainer's loop draws its training batches from an iterator."""
    loader = trainer.fit_loop._combined_loader
    mode = getattr(loader, "_iterator", None)
    return any(iterator is own for own in getattr(mode, "iterators", ()))


def draws_again(trainer: Any) -> bool:
    """Whether batches of this epoch were drawn before; a new iterator then repeats."""
    return trainer.fit_loop._combined_loader._iterator._idx > 0


def batches_in_epoch(trainer: Any) -> int | None:
    """Batches in a training epoch, with its limit; `None` where nobody knows."""
    return sized_len(trainer.fit_loop._combined_loader)


def cycles(trainer: Any) -> bool:
    """Whether a shorter one of several training loaders begins again."""
    return trainer.fit_loop._combined_loader._mode == "max_size_cycle"


def stateful_loaders(trainer: Any) -> list[Any]:
    """The training loaders whose state a checkpoint holds."""
    loaders = trainer.fit_loop._combined_loader.flattened
    return [loader for loader in loaders if isinstance(loader, _Stateful)]


def take_loader_states(trainer: Any) -> list[dict[str, Any]]:
    """Their states in the checkpoint that is resumed from, once.

    Lightning hands them to the loaders in the middle of an epoch only.
    """
    loop = trainer.fit_loop
    waiting, loop._combined_loader_states_to_load = (
        loop._combined_loader_states_to_load,
        [],
    )
    if waiting:
        return waiting
    given = [getattr(loader, "resumed", None) for loader in stateful_loaders(trainer)]
    return [state or {} for state in given]


def count_drawn(fetcher: Any, num: int) -> int:
    """Counts batches drawn past a fetcher; the index of the last of them."""
    fetcher.fetched += num
    fetcher.done = fetcher.fetched >= fetcher.length
    mode = fetcher.combined_loader._iterator
    mode._idx += num
    return mode._idx - 1


def count_steps(trainer: Any, num: int) -> None:
    """Counts batches that Lightning does not see: as if it had trained on each.

    None of them is the last of its epoch.
    """
    loop = trainer.fit_loop.epoch_loop
    every, done = trainer.accumulate_grad_batches, loop.batch_progress.current.ready
    updates = (done + num) // every - done // every
    loop.batch_progress.increment_by(num)
    loop.manual_optimization.optim_step_progress.increment_by(updates)
    loop._batches_that_stepped += updates


def window_is_open(trainer: Any) -> bool:
    """Whether the batch in hand makes no update, because more are accumulated."""
    return bool(trainer.fit_loop._should_accumulate())


def batches_until(trainer: Any, updates: int) -> int:
    """How many batches from here make so many updates, but for an epoch's end."""
    every, done = trainer.accumulate_grad_batches, batch_in_epoch(trainer) + 1
    return (done // every + updates) * every - done


def is_resuming(trainer: Any) -> bool:
    """Whether this fit goes on from a checkpoint, before its first epoch."""
    return bool(trainer.fit_loop.is_resuming)


@dataclass(frozen=True)
class Counts:
    """What a Trainer has counted: updates, batches, and the loggers' x-coordinate."""

    updates: tuple[int, int]  # in all, in this epoch
    batches: tuple[int, int]
    logged: int


def counts(trainer: Any) -> Counts:
    """Of what is completed."""
    loop = trainer.fit_loop.epoch_loop
    updates = loop.manual_optimization.optim_step_progress
    batches = loop.batch_progress
    return Counts(
        (updates.total.completed, updates.current.completed),
        (batches.total.completed, batches.current.completed),
        loop._batches_that_stepped,
    )


def counts_after(trainer: Any, counts: Counts, num: int) -> Counts:
    """Of so many batches later in the epoch, or earlier."""
    every, last = trainer.accumulate_grad_batches, trainer.num_training_batches

    def updates(batches):
        return batches // every + (batches == last and batches % every > 0)

    in_all, in_epoch = counts.batches
    more = updates(in_epoch + num) - updates(in_epoch)
    total, current = counts.updates
    return Counts(
        (total + more, current + more),
        (in_all + num, in_epoch + num),
        counts.logged + more,
    )


def batch_in_hand(trainer: Any) -> bool:
    """Whether a batch has been drawn that is not trained on yet."""
    total = trainer.fit_loop.epoch_loop.batch_progress.total
    return total.ready != total.processed


def batch_is_over(trainer: Any, counts: Counts) -> bool:
    """Whether the last batch drawn is trained on and counted, up to these numbers."""
    loop = trainer.fit_loop.epoch_loop
    updates = loop.manual_optimization.optim_step_progress.total.completed
    total = loop.batch_progress.total
    done = (counts.updates[0], counts.batches[0])
    return not batch_in_hand(trainer) and (updates, total.processed) == done


def set_counts(trainer: Any, counts: Counts) -> None:
    """Counts anew, as between two batches."""
    loop = trainer.fit_loop.epoch_loop
    updates = loop.manual_optimization.optim_step_progress
    batches = loop.batch_progress
    for progress, numbers in ((updates, counts.updates), (batches, counts.batches)):
        for tracker, number in zip(
            (progress.total, progress.current), numbers, strict=True
        ):
            for field in tracker.state_dict():
                setattr(tracker, field, number)
    batches.is_last_batch = False
    loop._batches_that_stepped = counts.logged
    by_time = getattr(trainer, "_val_check_time_interval", None) is not None
    if not by_time and loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
        # Where validation is due, a resumed loop turns once without a batch, counting.
        loop._batches_that_stepped -= 1


def set_signal_connector(trainer: Any, connector: SignalConnector) -> None:
    """Puts another connector in the place of Lightning's, unless it is the user's."""
    if type(trainer._signal_connector) is SignalConnector:
        trainer._signal_connector = connector


def restore_at_teardown(trainer: Any, handlers: Mapping[int, Any]) -> None:
    """Has Lightning put handlers of signals back, as the last thing of its run."""
    trainer._signal_connector._original_handlers.update(handlers)


RUN = _call._call_and_handle_interrupt.__code__
"""The function inside which a Trainer runs."""


def logger_step(trainer: Any) -> int:
    """The x-coordinate at which loggers get what is logged now."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def batch_in_epoch(trainer: Any) -> int:
    """Index of the batch in hand within its epoch; -1 before the first."""
    return trainer.fit_loop.epoch_loop.batch_idx


def is_last_batch(trainer: Any) -> bool:
    """Whether the batch in hand is the last of its epoch, or a hook said so."""
    return bool(trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)


def batch_in_run(trainer: Any) -> int:
    """Index of the batch in hand over all epochs; -1 before the first."""
    return trainer.fit_loop.epoch_loop.total_batch_idx


def loggers_look(trainer: Any) -> bool:
    """Whether the step in hand is one that is logged."""
    return bool(trainer._logger_connector.should_update_logs)


def write_metrics(trainer: Any, metrics: Mapping[str, float]) -> None:
    """Leaves metrics where `self.log` does, for callbacks and the progress bar."""
    connector = trainer._logger_connector
    tensors = {name: torch.tensor(value) for name, value in metrics.items()}
    connector._callback_metrics.update(tensors)
    connector._logged_metrics.update(tensors)
    # The bar has room for the losses.
    losses = {name: value for name, value in metrics.items() if "loss" in name}
    connector._progress_bar_metrics.update(losses)


def checkpoint_intervals(trainer: Any) -> list[int]:
    """`every_n_train_steps` of the checkpoint callbacks that have one."""
    intervals = [
        getattr(callback, "_every_n_train_steps", 0)
        for callback in trainer.callbacks
        if isinstance(callback, Checkpoint)
    ]
    return [interval for interval in intervals if interval]


def count_epoch(trainer: Any) -> None:
    """Counts the epoch in hand as begun, where Lightning has not.

    After a checkpoint of the last batch of an epoch is resumed, Lightning leaves it
    out; a checkpoint of that epoch then looks like one of an epoch's end, and resuming
    it begins the epoch anew in the middle.
    """
    progress = trainer.fit_loop.epoch_progress
    if progress.current.ready == progress.current.processed:
        progress.increment_ready()
        progress.increment_started()


def resume_after_epoch(trainer: Any) -> None:
    """Begins the epoch after one at whose very end the checkpoint was written.

    With `max_steps`, Lightning takes every resumed run for one in the middle of an
    epoch: it would end that epoch a second time, and all later ones would have the
    number, and the order of rows, of the epoch after.
    """
    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
        # The fit loop's own setter would make it true again.
        Loop.restarting.fset(loop, False)  # pyright: ignore[reportOptionalCall]
        loop.update_restart_stage()


def save_on_time(trainer: Any) -> None:
    """`ModelCheckpoint(train_time_interval=...)`, which Lightning forgets in manual
    optimisation: it leaves the hook before it looks at the clock.
    """
    for callback in trainer.checkpoint_callbacks:
        interval = getattr(callback, "_train_time_interval", None)
        if interval is None or callback._should_skip_saving_checkpoint(trainer):
            continue
        now, last = time.monotonic(), callback._last_time_checked
        if last is None or now - last < interval.total_seconds():
            continue
        callback._last_time_checked = now
        metrics = callback._monitor_candidates(trainer)
        callback._save_topk_checkpoint(trainer, metrics)
        callback._save_last_checkpoint(trainer, metrics)


def summary_depth(callback: ModelSummary) -> int:
    """`max_depth` of a model summary."""
    return callback._max_depth


class IndexedLoader:
    """An `ArrayLoader` whose row numbers Lightning hands to prediction writers.

    They are those of the rows that count, as predictions are.
    """

    def __init__(self, loader: ArrayLoader):
        self._loader = loader
        self.batch_sampler = _RowNumbers(loader)

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> ArrayIterator:
        self.batch_sampler.seen_batch_indices = self._loader.row_numbers()
        return iter(self._loader)


class _RowNumbers(_IndexBatchSamplerWrapper):
    """What Lightning looks for: the row numbers of each batch, batch by batch."""

    def __init__(self, loader: ArrayLoader):
        self._batch_sampler = loader
        self.seen_batch_indices = []


def before_zero_grad(trainer: Any, optimizer: Any) -> None:
    """The hook that Lightning calls before a step, which fires in no manual loop."""
    _call._call_callback_hooks(trainer, "on_before_zero_grad", optimizer)
    _call._call_lightning_module_hook(trainer, "on_before_zero_grad", optimizer)


def transfer(trainer: Any, batch: Any) -> Any:
    """The hooks that a batch passes between the loader and the training step."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
    return _call._call_strategy_hook(trainer, "batch_to_device", batch, 0)


__all__ = ["CONTRACT", "PrefetchDataFetcher", "SignalConnector", "check"]
