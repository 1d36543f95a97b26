"""Tests for NaN and infinite values, under `Trainer(detect_anomaly=True)` and without.

Torch would check each backward function; JAX has one program. Lightning's switch is
torch's, `torch.is_anomaly_enabled()`. If it is on, the metrics of each dispatch are
fetched and checked at once, which makes the host wait for the device, and the first
step whose metrics are not finite raises an error.

If it is off, the run continues, as Lightning's runs do, and a broken state raises one
warning with the step and the leaf: `Stepper.check_state`.
"""

from typing import Any

import numpy as np
import torch

from ..._engine.stepper import Stepper
from ..._engine.totals import StepMetrics
from ..._training.non_finite import NonFiniteError


def check_finite(trainer: Any, stepper: Stepper, metrics: StepMetrics) -> None:
    """Check the metrics of a dispatch, if the Trainer detects anomalies.

    **Arguments:**

    - `trainer`: has counted the last of these steps.
    - `stepper`: has made them.
    - `metrics`: of the steps of the dispatch.

    **Raises:** `NonFiniteError` for a metric that is NaN or infinite, with the step,
    the metric and the leaves that caused it. The stepper then has the last good state.
    """
    if not torch.is_anomaly_enabled():
        return
    found = []
    for name, values in metrics.items():
        steps = np.flatnonzero(~np.isfinite(values))
        if steps.size:
            found.append((int(steps[0]), name, float(values[steps[0]])))
    if not found:
        return
    index, name, value = min(found)
    step = trainer.global_step - metrics.num_steps + index
    what = f"detect_anomaly: {name} is {value} at step {step}"
    try:
        _raise_if_broken(stepper)
    except NonFiniteError as error:
        raise NonFiniteError(
            f"{what}. {error}", state=error.state, step=error.step, leaves=error.leaves
        ) from None
    raise NonFiniteError(
        f"{what}, and the state is finite. Lower the learning rate, clip the gradient "
        "(gradient_clip_val=1.0), or run with jax.config.update('jax_debug_nans', "
        "True) from the start of the program to see the operation",
        state=stepper.fetch(),
        step=step,
        leaves=[],
    )


def check_epoch(stepper: Stepper) -> None:
    """Check the state at the end of an epoch, when the host waits anyway.

    A gradient that is not finite in the last step shows in no metric.

    **Raises:** `NonFiniteError` if the Trainer detects anomalies.

    **Warns:** otherwise, once in a run, with the step and the leaf that broke.
    """
    if torch.is_anomaly_enabled():
        _raise_if_broken(stepper)
    else:
        stepper.check_state()


def _raise_if_broken(stepper):
    """Raise an error for a broken state, and go back to the state before it.

    A state that was warned of before raises nothing.
    """
    stepper.fatal = True
    try:
        stepper.check_state()
    finally:
        stepper.fatal = False
