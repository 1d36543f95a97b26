"""Gaussian priors of independent weights."""

import math
from typing import Any

import equinox as eqx
import numpyro.distributions as dist
from jaxtyping import Array, Float

from .._weights.initial_scale import fan_in
from .._weights.scale import positive


class IsotropicNormal(eqx.Module):
    r"""The same Gaussian for every weight, $w \sim \mathcal N(0, s^2)$.

    The variance of the function then grows with the width; see `FanInNormal`.

    **Arguments:**

    - `scale`: $s > 0$; an array leaf, so that evidence can tune it.
    """

    scale: Float[Array, ""]

    def __init__(self, scale: float | Float[Array, ""] = 1.0):
        self.scale = positive("scale", scale)

    def __call__(self, path: str, leaf: Any) -> dist.Normal:
        return dist.Normal(0.0, self.scale)


class FanInNormal(eqx.Module):
    r"""Gaussians whose layers pass the variance on, $w \sim \mathcal N(0, s^2 / n)$.

    $n$ is the fan-in: the product of all axes but the first, which is how Equinox lays
    out the weights of Linear and Conv, and 1 for a bias. The prior over functions then
    has a limit as the width grows. Where one array contains the weights of several
    layers, as for a scan over them, its first axis is that of layers and n is too
    large: give that leaf an `IsotropicNormal`, by `PriorByPath`.

    Reference: *Priors for infinite networks*, Neal, 1996.

    **Arguments:**

    - `scale`: $s > 0$; an array leaf, so that evidence can tune it.
    """

    scale: Float[Array, ""]

    def __init__(self, scale: float | Float[Array, ""] = 1.0):
        self.scale = positive("scale", scale)

    def __call__(self, path: str, leaf: Any) -> dist.Normal:
        return dist.Normal(0.0, self.scale / math.sqrt(fan_in(leaf)))
