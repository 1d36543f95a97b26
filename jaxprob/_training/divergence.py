"""Divergence that stays finite: the loss ends far above where it has been."""

import math
import warnings
from collections.abc import Sequence

FACTOR = 10.0


def has_diverged(losses: Sequence[float]) -> bool:
    r"""Return whether a loss ends far above its first and its smallest value.

    $$L_n - L_{\min} > 10 \, (|L_1 - L_{\min}| + |L_{\min}| + 1), \qquad L_n > L_1$$

    The unit is the change that training made, and the size of the loss where that is
    none. Noise, a warm restart or a growing penalty stay far below it.

    **Arguments:**

    - `losses`: means over epochs, in order.
    """
    if len(losses) < 2:
        return False
    first, last, least = losses[0], losses[-1], min(losses)
    unit = abs(first - least) + abs(least) + 1.0
    return math.isfinite(last) and last > first and last - least > FACTOR * unit


def warn_of_divergence(losses: Sequence[float], *, stacklevel: int = 3) -> bool:
    """Warn of a loss that has diverged.

    **Arguments:**

    - `losses`: as in `has_diverged`.
    - `stacklevel`: as in `warnings.warn`.

    **Returns:** whether it has.
    """
    if not has_diverged(losses):
        return False
    least = min(losses)
    warnings.warn(
        f"the mean loss was {least:.4g} in epoch {list(losses).index(least)} and is "
        f"{losses[-1]:.4g} in epoch {len(losses) - 1}: the run has diverged, though "
        "every number is finite. Lower the learning rate or the step size, clip the "
        "gradient (optax.clip_by_global_norm), or standardise the data",
        stacklevel=stacklevel,
    )
    return True
