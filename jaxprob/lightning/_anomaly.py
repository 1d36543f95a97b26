"""`Trainer(detect_anomaly=True)`: the first step whose metrics are not finite is named.

Torch would look for NaN in each backward function; JAX has one program. Lightning's
switch is torch's, `torch.is_anomaly_enabled()`. Where it is on, the metrics of each
dispatch are fetched at once and looked at, which makes the host wait for the device.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import torch

from .._totals import StepMetrics
from ._torch_arrays import leaf_names


def check_finite(trainer: Any, metrics: StepMetrics) -> None:
    """Raises where anomalies are looked for and a metric is NaN or infinite.

    **Arguments:**

    - `trainer`: the last of these steps is counted already.
    - `metrics`: of the steps of a dispatch.

    **Raises:** `FloatingPointError` with the step, the metric, and the leaves of the
    state that are not finite by now.
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
    state = trainer.lightning_module.state
    leaves = [name for name, leaf in leaf_names(state).items() if _is_broken(leaf)]
    shown = ", ".join(leaves[:5]) + (", ..." if len(leaves) > 5 else "")
    step = trainer.global_step - metrics.num_steps + index
    raise FloatingPointError(
        f"detect_anomaly: {name} is {value} at step {step}. "
        + (f"Not finite after this dispatch: {shown}. " if leaves else "")
        + "Lower the learning rate, clip the gradient (gradient_clip_val=1.0), or run "
        "with jax.config.update('jax_debug_nans', True) from the start of the program "
        "to see the operation"
    )


def _is_broken(leaf):
    inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
    return inexact and not bool(jnp.isfinite(leaf).all())
