"""Outcomes far from zero, moved before single precision takes their digits."""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer

_LOST = 1e-5
"""Largest rounding error of single precision that is accepted, as a part of the
spread."""


def near_zero(**arrays: Any) -> dict[str, Any]:
    """Subtract the mean of the first array, column by column, from all of them.

    Metrics of outcomes and predictions depend on differences alone. JAX rounds NumPy's
    double precision to single, in which 1e8 and 1e8 + 4 are one number, so the
    difference is taken before. Where rounding does not matter, and where there is
    nothing in double precision, the arrays stay as they are.

    **Arguments:** arrays in the units of the outcome, the outcomes first.
    """
    double = [
        isinstance(a, np.ndarray) and a.dtype == np.float64 for a in arrays.values()
    ]
    traced = any(isinstance(a, Tracer) for a in arrays.values())
    if not any(double) or traced or jax.config.read("jax_enable_x64"):
        return arrays
    host = {name: np.asarray(a) for name, a in arrays.items()}
    first = next(iter(host.values()))
    shape = first.shape[1:]
    alike = all(a.shape[a.ndim - len(shape) :] == shape for a in host.values())
    real = all(a.dtype.kind == "f" for a in host.values())
    if not (alike and real and first.size and np.isfinite(first).all()):
        return arrays
    rounding = np.spacing(np.float32(np.abs(first).max()))
    if first.ndim == 0 or rounding <= _LOST * first.std(axis=0).min():
        return arrays
    offset = first.astype(np.float64).mean(axis=0)
    return {name: a.astype(np.float64) - offset for name, a in host.items()}
