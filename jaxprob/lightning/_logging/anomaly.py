"""`Trainer(detect_anomaly=True)`: the first step whose metrics are not finite is named.

Torch would look for NaN in each backward function; JAX has one program. Lightning's
switch is torch's, `torch.is_anomaly_enabled()`. Where it is on, the metrics of each
dispatch are fetched at once and looked at, which makes the host wait for the device.

Where it is off a run goes on, as Lightning's do, and a state that is broken is warned
of once, with the step and the leaf: `Stepper.check_state`.
"""

from typing import Any

import numpy as np
import torch

from ..._engine.totals import StepMetrics
from ..._training.non_finite import NonFiniteError


def check_finite(trainer: Any, metrics: StepMetrics) -> None:
    """Raises where anomalies are looked for and a metric is NaN or infinite.

    **Arguments:**

    - `trainer`: the last of these steps is counted already.
    - `metrics`: of the steps of a dispatch.

    **Raises:** `NonFiniteError` with the step, the metric, and the leaves that are to
    blame. The module then has the last good state.
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
    module = trainer.lightning_module
    try:
        module.raise_if_broken()
    except NonFiniteError as error:
        raise NonFiniteError(
            f"{what}. {error}", state=error.state, step=error.step, leaves=error.leaves
        ) from None
    raise NonFiniteError(
        f"{what}, and the state is finite. Lower the learning rate, clip the gradient "
        "(gradient_clip_val=1.0), or run with jax.config.update('jax_debug_nans', "
        "True) from the start of the program to see the operation",
        state=module.state,
        step=step,
        leaves=[],
    )


def check_epoch(module: Any) -> None:
    """Looks at a module's state at the end of an epoch, when the host waits anyway.

    A gradient that is not finite in the last step shows in no metric.
    """
    if torch.is_anomaly_enabled():
        module.raise_if_broken()
    else:
        module.warn_if_broken()
