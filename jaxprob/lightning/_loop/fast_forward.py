"""Many batches for one iteration of Lightning's loop.

The loop asks a fetcher for a batch, hands it to `training_step` and counts one step.
Ours draws n batches and hands over the last: the n - 1 before it are *silent*, wait in
the dispatcher, and are trained on in the same dispatch. n is the largest number for
which no observable event falls between: no checkpoint, validation, end of training, or
step at which a callback logs. So everything that can be observed is equal to training
one step at a time.
"""

from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden

from .._trainer import private as _private
from .._trainer.signals import begin_work
from .._trainer.watchers import steps_are_logged
from .dispatcher import Dispatcher


class FastForward(_private.PrefetchDataFetcher):
    """Fetcher that hands Lightning every n-th batch, and a dispatcher those before it.

    **Arguments:**

    - `fetcher`: Lightning's, whose place it takes.
    - `dispatcher`: trains on the batches.
    """

    def __init__(self, fetcher: Any, dispatcher: Dispatcher):
        super().__init__(fetcher.prefetch_batches)
        # Lightning has set the fetcher up by now, and may have drawn from it.
        _private.copy_fetcher(fetcher, self)
        self._dispatcher = dispatcher
        self._error: Exception | None = None
        self._transfers = _has_transfer_hooks(dispatcher)

    def __next__(self) -> Any:
        if self._error is not None:
            # Raised one dispatch late: the batches before it have been trained on.
            error, self._error = self._error, None
            raise error
        dispatcher = self._dispatcher
        dispatcher.between_steps()
        trainer = dispatcher.trainer
        most = steps_until_visible(trainer, dispatcher.run.stepper.capacity)
        iterator = None if self._transfers else _private.array_iterator(self)
        if iterator is not None and not self.done:
            return self._draw_stack(iterator, most)
        item = super().__next__()
        silent = []
        while len(silent) + 1 < most and not self.done and item[0] is not None:
            try:
                following = super().__next__()
            except StopIteration:
                break
            except Exception as error:
                self._error = error
                break
            batch = item[0]
            if self._transfers:
                batch = _private.transfer(trainer, batch)
            silent.append(batch)
            item = following
        begin_work()
        if silent:
            _private.count_steps(trainer, len(silent))
            dispatcher.receive(silent)
        return item

    def _draw_stack(self, iterator, most):
        """Draw all batches of a dispatch in one gather, and return a view of the last.

        The stack goes to the dispatcher as a whole, the last batch in it.
        """
        dispatcher = self._dispatcher
        left = cast(int, self.length) - self.fetched
        stack = iterator.take(min(most, left), dispatcher.run.stepper.slots)
        begin_work()
        index = _private.count_drawn(self, stack.num)
        _private.count_steps(dispatcher.trainer, stack.num - 1)
        dispatcher.receive(stack)
        return stack.at(stack.num - 1), index, 0


def install(dispatcher: Dispatcher) -> None:
    """Replace Lightning's fetcher by a `FastForward` for this epoch.

    A fetcher of any other class (a user's `dataloader_iter` step) is left alone, and
    also that of a module that must see each batch: then each iteration is one step, by
    public API only.
    """
    trainer = dispatcher.trainer
    dispatcher.begin_epoch()
    dispatcher.fast_forwards = False
    if dispatcher.each_batch.one_by_one:
        dispatcher.run.stepper.bound(1)
        return
    fetcher = _private.fetcher(trainer)
    if type(fetcher) is _private.PrefetchDataFetcher:
        _private.set_fetcher(trainer, FastForward(fetcher, dispatcher))
    dispatcher.fast_forwards = isinstance(_private.fetcher(trainer), FastForward)
    dispatcher.run.stepper.bound(longest_run(trainer))


def steps_until_visible(trainer: Any, capacity: int) -> int:
    """Return the number of steps up to the next one that is observed."""
    if trainer.should_stop:
        return 1  # the loop asks after each step whether it may stop
    bounds = [capacity, *(left for _, left in _visits(trainer))]
    if trainer.max_steps != -1:
        updates = trainer.max_steps - trainer.global_step
        bounds.append(_private.batches_until(trainer, updates))
    return max(1, min(bounds))


def longest_run(trainer: Any) -> int | float:
    """Return the largest distance of two such steps; infinity if none is known."""
    return min([trainer.num_training_batches] + [n for n, _ in _visits(trainer)])


def _visits(trainer):
    """Yield the period of each periodic observer in batches, and how many are left.

    Checkpoints and loggers count updates, validations count batches.
    """

    def of_updates(every, done):
        left = _private.batches_until(trainer, every - done % every)
        return every * trainer.accumulate_grad_batches, left

    for every in _private.checkpoint_intervals(trainer):
        yield of_updates(every, trainer.global_step)
    every = trainer.log_every_n_steps
    if trainer.loggers and every and steps_are_logged(trainer):
        yield of_updates(every, _private.logger_step(trainer))
    every = trainer.val_check_batch
    if trainer.enable_validation and isinstance(every, int):
        in_run = trainer.check_val_every_n_epoch is None
        place = _private.batch_in_run if in_run else _private.batch_in_epoch
        yield every, every - (place(trainer) + 1) % every


def _has_transfer_hooks(dispatcher):
    hooks = (
        "on_before_batch_transfer",
        "transfer_batch_to_device",
        "on_after_batch_transfer",
    )
    data = dispatcher.trainer.datamodule
    return any(
        dispatcher.overrides(hook)
        or (data is not None and is_overridden(hook, data, pl.LightningDataModule))
        for hook in hooks
    )
