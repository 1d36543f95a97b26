"""The only file of jaxprob that uses names of Lightning that are not public.

Lightning counts one optimiser step for each batch it hands out. To run many steps in
one dispatch we count the others for it, and we write the metrics of a step without the
half millisecond that `self.log` takes. `CONTRACT` in contract.py lists all these names.
"""

import time
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.data import sized_len
from lightning_fabric.utilities.types import _Stateful
from pytorch_lightning.callbacks import ModelCheckpoint, ModelSummary
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
from .counts import Counts


def attached_trainer(module: pl.LightningModule) -> Any:
    """Return the Trainer of a module, or `None` where it has none."""
    return module._trainer


def fetcher(trainer: Any) -> Any:
    """Return the object that hands training batches to the loop."""
    return trainer.fit_loop._data_fetcher


def set_fetcher(trainer: Any, fetcher: Any) -> None:
    trainer.fit_loop._data_fetcher = fetcher


def copy_fetcher(source: Any, target: Any) -> None:
    """Give a fetcher the loader, the batches and the counters of another."""
    vars(target).update(vars(source))


def array_iterator(fetcher: Any) -> ArrayIterator | None:
    """Return the iterator of an `ArrayLoader`, if a fetcher draws from nothing else.

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
    """Return whether the Trainer's loop draws its training batches from an iterator."""
    loader = trainer.fit_loop._combined_loader
    mode = getattr(loader, "_iterator", None)
    return any(iterator is own for own in getattr(mode, "iterators", ()))


def draws_again(trainer: Any) -> bool:
    """Return whether a new iterator repeats batches of this epoch."""
    return trainer.fit_loop._combined_loader._iterator._idx > 0


def batches_in_epoch(trainer: Any) -> int | None:
    """Return the batches of a training epoch, with its limit; `None` if unknown."""
    return sized_len(trainer.fit_loop._combined_loader)


def cycles(trainer: Any) -> bool:
    """Return whether a shorter one of several training loaders begins again."""
    return trainer.fit_loop._combined_loader._mode == "max_size_cycle"


def stateful_loaders(trainer: Any) -> list[Any]:
    """Return the training loaders whose state a checkpoint holds."""
    loaders = trainer.fit_loop._combined_loader.flattened
    return [loader for loader in loaders if isinstance(loader, _Stateful)]


def take_loader_states(trainer: Any) -> list[dict[str, Any]]:
    """Return the states of the loaders in the checkpoint that is resumed, once.

    Lightning hands them to the loaders only in the middle of an epoch.
    """
    loop = trainer.fit_loop
    waiting, loop._combined_loader_states_to_load = (
        loop._combined_loader_states_to_load,
        [],
    )
    if waiting:
        return waiting
    return [
        (isinstance(loader, ArrayLoader) and loader.resumed) or {}
        for loader in stateful_loaders(trainer)
    ]


def count_drawn(fetcher: Any, num: int) -> int:
    """Count batches drawn past a fetcher, and return the index of the last of them."""
    fetcher.fetched += num
    fetcher.done = fetcher.fetched >= fetcher.length
    mode = fetcher.combined_loader._iterator
    mode._idx += num
    return mode._idx - 1


def count_steps(trainer: Any, num: int) -> None:
    """Count batches that Lightning does not see, as if it had trained on each.

    None of them is the last of its epoch.
    """
    loop = trainer.fit_loop.epoch_loop
    every, done = trainer.accumulate_grad_batches, loop.batch_progress.current.ready
    updates = (done + num) // every - done // every
    loop.batch_progress.increment_by(num)
    loop.manual_optimization.optim_step_progress.increment_by(updates)
    loop._batches_that_stepped += updates


def window_is_open(trainer: Any) -> bool:
    """Return whether the batch in hand makes no update, but is accumulated."""
    return bool(trainer.fit_loop._should_accumulate())


def batches_until(trainer: Any, updates: int) -> int:
    """Return how many batches make so many updates, if the epoch is long enough."""
    every, done = trainer.accumulate_grad_batches, batch_in_epoch(trainer) + 1
    return (done // every + updates) * every - done


def is_resuming(trainer: Any) -> bool:
    """Return whether this fit resumes a checkpoint, before its first epoch."""
    return bool(trainer.fit_loop.is_resuming)


def counts(trainer: Any) -> Counts:
    """Return the counters of completed batches and updates."""
    loop = trainer.fit_loop.epoch_loop
    updates = loop.manual_optimization.optim_step_progress
    batches = loop.batch_progress
    return Counts(
        (updates.total.completed, updates.current.completed),
        (batches.total.completed, batches.current.completed),
        loop._batches_that_stepped,
    )


def batch_in_hand(trainer: Any) -> bool:
    """Return whether a batch has been drawn that is not trained on yet."""
    total = trainer.fit_loop.epoch_loop.batch_progress.total
    return total.ready != total.processed


def batch_is_over(trainer: Any, counts: Counts) -> bool:
    """Return whether the last batch drawn is trained on, and counted up to here."""
    loop = trainer.fit_loop.epoch_loop
    updates = loop.manual_optimization.optim_step_progress.total.completed
    total = loop.batch_progress.total
    done = (counts.updates[0], counts.batches[0])
    return not batch_in_hand(trainer) and (updates, total.processed) == done


def set_counts(trainer: Any, counts: Counts) -> None:
    """Set the counters, as they are between two batches."""
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
    by_time = trainer._val_check_time_interval is not None
    if not by_time and loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
        # Where validation is due, a resumed loop turns once without a batch, counting.
        loop._batches_that_stepped -= 1


def set_epoch(trainer: Any, epoch: int) -> None:
    """Go back to the middle of an earlier epoch of this fit."""
    progress = trainer.fit_loop.epoch_progress
    before = progress.total.completed - progress.current.completed
    for tracker, done in ((progress.total, before), (progress.current, 0)):
        tracker.ready = tracker.started = done + epoch + 1
        tracker.processed = tracker.completed = done + epoch


def progress(trainer: Any) -> Any:
    """Return all that `set_epoch` and `set_counts` change."""
    loop = trainer.fit_loop.epoch_loop
    trackers = [tracker.state_dict() for tracker in _trackers(trainer)]
    return trackers, loop.batch_progress.is_last_batch, loop._batches_that_stepped


def set_progress(trainer: Any, found: Any) -> None:
    """Count again what `progress` found."""
    loop, (trackers, is_last, logged) = trainer.fit_loop.epoch_loop, found
    for tracker, state in zip(_trackers(trainer), trackers, strict=True):
        tracker.load_state_dict(state)
    loop.batch_progress.is_last_batch, loop._batches_that_stepped = is_last, logged


def _trackers(trainer):
    loop = trainer.fit_loop
    inner = loop.epoch_loop
    updates = inner.manual_optimization.optim_step_progress
    return loop.epoch_progress, inner.batch_progress, updates


def set_signal_connector(trainer: Any, connector: SignalConnector) -> None:
    """Replace the connector of signals, unless it is one of the user's."""
    if type(trainer._signal_connector) is SignalConnector:
        trainer._signal_connector = connector


def signal_connector(trainer: Any) -> Any:
    """Return what installs handlers of signals at the beginning of a run."""
    return trainer._signal_connector


def restore_at_teardown(trainer: Any, handlers: Mapping[int, Any]) -> None:
    """Let Lightning restore handlers of signals, as the last act of its run."""
    trainer._signal_connector._original_handlers.update(handlers)


RUN = _call._call_and_handle_interrupt.__code__
"""The function inside which a Trainer runs."""


def logger_step(trainer: Any) -> int:
    """Return the current x-coordinate of the loggers."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def batch_in_epoch(trainer: Any) -> int:
    """Return the index of the batch in hand within its epoch; -1 before the first."""
    return trainer.fit_loop.epoch_loop.batch_idx


def is_last_batch(trainer: Any) -> bool:
    """Return whether the batch in hand is the last of its epoch, or a hook said so."""
    return bool(trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)


def batch_in_run(trainer: Any) -> int:
    """Return the index of the batch in hand over all epochs; -1 before the first."""
    return trainer.fit_loop.epoch_loop.total_batch_idx


def is_logged(trainer: Any) -> bool:
    """Return whether the step in hand is one that is logged."""
    return bool(trainer._logger_connector.should_update_logs)


def write_metrics(trainer: Any, metrics: Mapping[str, float]) -> None:
    """Write metrics to where `self.log` does, for callbacks and the progress bar."""
    connector = trainer._logger_connector
    tensors = {name: torch.tensor(value) for name, value in metrics.items()}
    connector._callback_metrics.update(tensors)
    connector._logged_metrics.update(tensors)
    # The bar has room for the losses.
    losses = {name: value for name, value in metrics.items() if "loss" in name}
    connector._progress_bar_metrics.update(losses)


def checkpoint_intervals(trainer: Any) -> list[int]:
    """Return `every_n_train_steps` of the checkpoint callbacks that have one."""
    intervals = [
        callback._every_n_train_steps
        for callback in trainer.callbacks
        if isinstance(callback, ModelCheckpoint)
    ]
    return [interval for interval in intervals if interval]


def count_epoch(trainer: Any) -> None:
    """Count the epoch in hand as begun, if Lightning has not.

    After a checkpoint of the last batch of an epoch is resumed, Lightning leaves it
    out; a checkpoint of that epoch then looks like one of an epoch's end, and resuming
    it begins the epoch anew in the middle.
    """
    progress = trainer.fit_loop.epoch_progress
    if progress.current.ready == progress.current.processed:
        progress.increment_ready()
        progress.increment_started()


def resume_after_epoch(trainer: Any) -> None:
    """Begin the next epoch, if the checkpoint was written at the very end of one.

    With `max_steps`, Lightning takes every resumed run for one in the middle of an
    epoch. It would end that epoch a second time, and all later ones would have the
    number, and the order of rows, of the epoch after.
    """
    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
        # The fit loop's own setter would make it true again.
        Loop.restarting.fset(loop, False)  # pyright: ignore[reportOptionalCall]
        loop.update_restart_stage()


def save_on_time(trainer: Any) -> None:
    """Save the checkpoints that are due by `ModelCheckpoint(train_time_interval=...)`.

    In manual optimisation Lightning returns from its hook before it reads the clock.
    """
    for callback in trainer.checkpoint_callbacks:
        if not isinstance(callback, ModelCheckpoint):
            continue
        interval = callback._train_time_interval
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
    """Return `max_depth` of a model summary."""
    return callback._max_depth


class RowNumbers(_IndexBatchSamplerWrapper):
    """Row numbers of each batch, in the place where Lightning expects a sampler."""

    def __init__(self, loader: ArrayLoader):
        self._batch_sampler = loader
        self.seen_batch_indices = []


def predicted_rows(trainer: Any, loader: int, batch: int) -> list[int] | None:
    """Return the row numbers of a batch of predictions; `None` if nobody knows them."""
    loop: Any = trainer.predict_loop
    sampler = getattr(loop._combined_loader.flattened[loader], "batch_sampler", None)
    if not isinstance(sampler, _IndexBatchSamplerWrapper):
        return None
    seen = sampler.seen_batch_indices
    return list(seen[batch]) if batch < len(seen) else None


def before_zero_grad(trainer: Any, optimizer: Any) -> None:
    """Call the hook before a step, which Lightning calls in no manual loop."""
    _call._call_callback_hooks(trainer, "on_before_zero_grad", optimizer)
    _call._call_lightning_module_hook(trainer, "on_before_zero_grad", optimizer)


def transfer(trainer: Any, batch: Any) -> Any:
    """Call the hooks that a batch passes between the loader and the training step."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
    return _call._call_strategy_hook(trainer, "batch_to_device", batch, 0)


__all__ = ["PrefetchDataFetcher", "SignalConnector"]
