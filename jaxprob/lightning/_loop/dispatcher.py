"""Batches that wait for a dispatch, and the dispatches that train on them."""

from collections.abc import Callable
from typing import Any

from jaxtyping import PyTree

from ..._training.batch import Stack
from ..._training.host_batch import host_batch
from .._data.row_checks import RowChecks
from .._logging.step_log import StepLog
from .._trainer import private as _private
from .._trainer.counts import Counts
from .._trainer.signals import end_work
from .._trainer.watchers import overrides_any
from .each_batch import EachBatch
from .last_copy import LastCopy
from .run import Run


class Dispatcher:
    """Training on the batches that Lightning counts, many in one dispatch.

    A batch that Lightning has counted may wait here. Before anybody can see the state
    or the counters, `settle` makes the steps that are counted and not yet made.

    **Arguments:**

    - `module`: the LightningModule whose Trainer hands over the batches.
    - `run`: trains on them.
    - `overrides`: returns whether the user's module overrides a method.

    **Fields:**

    - `step_log`: writes the metrics of each dispatch.
    - `row_checks`: checks the batches before they are used.
    - `each_batch`: decides whether a dispatch holds one step.
    - `fast_forwards`: whether a fetcher hands over many batches at once.
    - `steps_made`: training steps since the counter was last taken.
    """

    def __init__(self, module: Any, run: Run, overrides: Callable[[str], bool]):
        self.run = run
        self.overrides = overrides
        self.step_log = StepLog()
        self.row_checks = RowChecks(run.learner)
        self.each_batch = EachBatch(run.steps_per_dispatch, overrides)
        self.fast_forwards = False
        self.steps_made = 0
        self._module = module
        self._waiting: list[PyTree] | Stack = []
        self._fires_zero_grad = False
        self._before: tuple[int, Counts] | None = None  # step of the run, and counters
        self._last_copy = LastCopy()

    @property
    def trainer(self) -> Any:
        return self._module.trainer

    @property
    def num_waiting(self) -> int:
        """Batches that are counted and came before the one in hand."""
        waiting = self._waiting
        return waiting.num - 1 if isinstance(waiting, Stack) else len(waiting)

    def begin_fit(self) -> None:
        self._before = None
        self._last_copy = LastCopy()

    def begin_epoch(self) -> None:
        """Note which hooks of the user's are called for each batch."""
        trainer = self.trainer
        self.each_batch.begin_epoch(trainer)
        self._fires_zero_grad = overrides_any(trainer, "on_before_zero_grad")

    def receive(self, batches: list[PyTree] | Stack) -> None:
        """Take the batches before the next one that Lightning hands over.

        A list lacks that one, and a stack has it as its last. All others are counted as
        steps already.
        """
        if isinstance(batches, Stack):
            self._waiting = batches
        else:
            self._waiting = [host_batch(batch) for batch in batches]

    def training_step(self, batch: PyTree) -> None:
        """Train on the batch that Lightning hands over, and on those that wait."""
        trainer = self.trainer
        self.steps_made += 1
        if isinstance(self._waiting, list):  # a stack has the batch in it
            self._waiting.append(host_batch(batch))
        if _private.window_is_open(trainer):
            self._dispatch()
            return
        optimizer: Any = self._module.optimizers()
        if self._fires_zero_grad:
            _private.before_zero_grad(trainer, optimizer)
        optimizer.step(self._dispatch_update)

    def settle(self) -> None:
        """Make the steps that are counted and not yet made."""
        if isinstance(self._waiting, Stack):
            # Its last batch was not reached: an error came before the training step.
            self._waiting = self._waiting.unstack()[:-1]
        if self._waiting:
            self._dispatch(behind=1)

    def between_steps(self) -> None:
        """Note what is counted, and let handlers of signals be called."""
        # Lightning may have left out the step of the batch before, if it was `None`.
        self.settle()
        self._before = self.run.step, _private.counts(self.trainer)
        end_work()

    def recover(self, exception: BaseException) -> None:
        """Make the Trainer's counters agree with the state, when a run fails.

        Steps that are counted and can be made are made. The counters are set back by
        those that cannot, which follow an error inside a step.
        """
        try:
            self.settle()
            self.run.wait()
        except Exception as error:
            exception.add_note(f"jaxprob: the steps counted before failed too: {error}")
        self._waiting = []
        if self._before is None or self.trainer.state.fn != "fit":
            return
        trainer = self.trainer
        step, counts = self._before
        counts = counts.after(trainer, self.run.step - step)
        self.step_log.forget(counts.logged)
        stands = _private.batch_is_over(trainer, counts)
        if self.overrides("training_step"):  # which may make no step of a batch
            stands = trainer.global_step == counts.updates[0]
        if not (trainer.validating or stands) and counts.batches[1] >= 0:
            _private.set_counts(trainer, counts)
            rescued = self.run.stepper.rescued
            if rescued is not None:
                self.step_log.add(trainer, rescued, counts.logged)
        self.step_log.flush(trainer)
        self._last_copy.lend(trainer, self.run, self._before, exception)

    def leave(self) -> None:
        """End a run whose callbacks have all seen the exception, if there was one."""
        self._last_copy.give_back(self.trainer, self.run)

    def _dispatch(self, behind: int = 0):
        """Make the steps that wait, the last one `behind` steps before that in hand."""
        metrics = self._train(self._take_waiting())
        self.step_log.take(self.trainer, metrics, behind)

    def _dispatch_update(self):
        """Make a dispatch whose last batch ends in an update of the optimiser.

        The last window of an epoch may be shorter than the others.
        """
        trainer, every = self.trainer, self.run.accumulate
        done = _private.batch_in_epoch(trainer) + 1
        # Steps that float16 left out are no part of a window.
        full = done % every == 0 and self.run.options.precision != "16-mixed"
        if full or not _private.is_last_batch(trainer) or every == 1:
            self._dispatch()
            return
        batches = self._take_waiting()
        batches = batches.unstack() if isinstance(batches, Stack) else batches
        before = self._train(batches[:-1])
        self.run.set_windows(closing=True)
        self.step_log.take(trainer, before.then(self._train(batches[-1:])))

    def _take_waiting(self):
        if isinstance(self._waiting, list):  # a stack is of arrays that were checked
            self.row_checks.training(self._waiting)
        batches, self._waiting = self._waiting, []
        return batches

    def _train(self, batches):
        stepper = self.run.stepper
        if self.each_batch.any_watcher or self.each_batch.one_by_one:
            stepper.refresh()
        metrics = stepper(batches)
        self._last_copy.note(self.trainer, self.run, self._before)
        self.each_batch.end_dispatch(stepper)
        return metrics

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the checks of data, which are of one Trainer."""
        return self.__dict__ | {"row_checks": RowChecks(self.run.learner)}
