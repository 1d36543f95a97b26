"""Numbers in a learner's state that change between two steps, outside the program."""

from collections.abc import Mapping

from .._training.epoch import counts_epochs, set_epoch
from .._training.plateau import monitors, observe
from .._types import PRNGKey
from .stepper import Stepper


def begin_epoch(stepper: Stepper, epoch: int, *, key: PRNGKey) -> None:
    """Begin an epoch: the sums of the metrics, and its number for a loss.

    **Arguments:**

    - `epoch`: number of epochs before it.
    - `key`: of the whole run.
    """
    stepper.reset_totals()
    if counts_epochs(stepper.live):
        state = set_epoch(stepper.live, epoch)
        stepper.resume(state, key=key, step=stepper.step)


def waits_for(stepper: Stepper) -> list[str]:
    """Return the names of the metrics that `jaxprob.reduce_on_plateau` waits for."""
    return monitors(stepper.live)


def show_metrics(
    stepper: Stepper, metrics: Mapping[str, float], *, key: PRNGKey
) -> None:
    """Change the learning rate by metrics that were measured.

    **Arguments:**

    - `metrics`: by name; those that nothing waits for are left out.
    - `key`: of the whole run.
    """
    if not set(waits_for(stepper)).isdisjoint(metrics):
        state = observe(stepper.live, metrics)
        stepper.resume(state, key=key, step=stepper.step)
