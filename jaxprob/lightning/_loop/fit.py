"""A fit from its first batch to its last: place in the data, epochs and their means."""

import math
from collections.abc import Mapping
from typing import Any

from ..._engine.between_steps import begin_epoch, show_metrics, waits_for
from ..._training.divergence import warn_of_divergence
from ..._training.plateau import check_monitors
from ..._training.total_steps import needs_total_steps
from .._logging.anomaly import check_epoch
from .._logging.epoch_log import log_means
from .._trainer import private as _private
from .._trainer.foreign import mentions
from .._trainer.signals import begin_work
from .dispatcher import Dispatcher
from .run import Run
from .run_place import check_order
from .run_tensors import check_window


class Fit:
    """Course of the fits of one module, one after another.

    **Arguments:**

    - `module`: the LightningModule.
    - `dispatcher`: trains on its batches.

    **Fields:** `updates_before`, the number of updates of the optimiser that this
    Trainer has not counted.
    """

    def __init__(self, module: Any, dispatcher: Dispatcher):
        self.updates_before = 0
        self._module = module
        self._dispatcher = dispatcher
        self._losses: list[float] | None = []  # of the epochs; `None` after a warning
        self._begins = False
        self._steps_in_epoch = self._left_out = 0

    @property
    def run(self) -> Run:
        return self._dispatcher.run

    @property
    def trainer(self) -> Any:
        return self._module.trainer

    def begin(self) -> None:
        """Begin a fit. The Trainer may count from zero where the run does not."""
        run, trainer = self.run, self.trainer
        self._losses = []
        self._dispatcher.begin_fit()
        run.place.begin_fit(run.step)
        check_order(trainer, run.place.at(run.step))
        self.updates_before = run.updates - trainer.global_step
        self._note_length()
        self._begins = True
        if run.accumulate > 1 and not _private.is_resuming(trainer):
            # Gradients that an interrupted fit has gathered are no part of this one.
            run.set_windows(accumulated=0, num_accumulated=0, closing=False)

    def _note_length(self):
        """Build the optimisers that wait for the number of updates of the run."""
        run, trainer = self.run, self.trainer
        if needs_total_steps(run.learner):
            updates = trainer.estimated_stepping_batches
            if not 0 < updates < math.inf:
                raise ValueError(
                    "jaxprob.from_total_steps needs the number of updates of the run, "
                    "and this Trainer has no end that is known: give max_steps, or "
                    "max_epochs and a loader with a length"
                )
            run.build_optimizers(self.updates_before + int(updates))
        run.fresh = False

    def check_rows(self) -> None:
        """Show the learner the data sets, as a whole or batch after batch."""
        run = self.run
        model = run.learner.model(run.fetch())
        self._dispatcher.row_checks.begin_fit(self.trainer, run.active, model)

    def begin_epoch(self) -> None:
        self._steps_in_epoch = self._left_out = 0
        run = self.run
        begin_epoch(run.stepper, run.place.at(run.step).epoch, key=run.key)

    def observe(self, metrics: Mapping[str, Any], prefix: str) -> None:
        """Show optimisers the metrics that were measured, if any waits for them.

        **Arguments:**

        - `prefix`: `"train_"` at the end of an epoch, and `"val_"` after a validation,
            with which all other metrics are known.

        **Raises:** as `check_monitors`.
        """
        run = self.run
        names = [
            name
            for name in waits_for(run.stepper)
            if name.startswith("train_") == (prefix == "train_")
        ]
        check_monitors(names, metrics)
        if names:
            values = {name: float(metrics[name]) for name in names}
            show_metrics(run.stepper, values, key=run.key)

    def begin_batch(self) -> None:
        """Note the place of the batch in hand, before any other callback is called."""
        dispatcher, run = self._dispatcher, self.run
        if not dispatcher.fast_forwards:  # else the fetcher has done so
            dispatcher.between_steps()
            begin_work()
        ahead = dispatcher.num_waiting
        run.place.begin_batch(self.trainer, ahead)
        begins, self._begins = self._begins, False
        if begins and run.accumulate > 1:
            done = _private.batch_in_epoch(self.trainer) - ahead
            check_window(run, done % run.accumulate)

    def end_batch(self) -> None:
        """Note the place of the next batch."""
        self.run.place.end_batch(self.trainer, self.run.step)

    def end_step(self, outputs: Any) -> None:
        """End the batch in hand, after all other callbacks.

        A `training_step` of a subclass may leave out a batch by returning nothing; it
        cannot return a loss.

        **Raises:** `TypeError` where it trains nothing.
        """
        dispatcher = self._dispatcher
        made, dispatcher.steps_made = dispatcher.steps_made, 0
        self._steps_in_epoch += made
        if not made and dispatcher.overrides("training_step"):
            self._left_out += 1
            step = type(self._module).training_step
            if outputs or not mentions(step, "training_step"):
                raise TypeError(_no_step(self._module))
        dispatcher.step_log.end_step(self.trainer, self.run.stepper)

    def end_epoch(self) -> None:
        """Log the means over the epoch."""
        dispatcher, run, trainer = self._dispatcher, self.run, self.trainer
        dispatcher.settle()
        run.stepper.wait()
        run.place.end_epoch(trainer, run.step)
        dispatcher.row_checks.end_epoch(trainer)
        dispatcher.step_log.flush(trainer)
        totals = run.stepper.totals
        if self._left_out and not self._steps_in_epoch:
            raise TypeError(_no_step(self._module))
        if totals is not None:
            check_epoch(run.stepper)
            means = totals.means()
            self._note_loss(means)
            means = {f"train_{k}": v for k, v in means.items()}
            log_means(self._module, means)
            self.observe(means, "train_")

    def _note_loss(self, means):
        """Warn, once in a fit, of a loss that has diverged and is still finite."""
        if "loss" in means and self._losses is not None:
            self._losses.append(means["loss"])
            if warn_of_divergence(self._losses):
                self._losses = None


def _no_step(module):
    name = type(module).__name__
    return (
        f"{name}.training_step made no step: the loss is that of the learner and is "
        "differentiated inside the compiled step. Write `return "
        "super().training_step(batch, batch_idx)` in it, with the batch to train on, "
        f"and put the loss into jaxprob.GradientDescent(loss, optimizer)"
    )
