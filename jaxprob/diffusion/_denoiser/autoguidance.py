"""Autoguidance: a denoiser led away from a weaker version of itself."""

import math

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .._types import Cond, Level
from .denoiser import AbstractDenoiser, check_denoiser
from .guidance import Strength, check_interval, check_strength, strength_at
from .units import Units
from .wrapper import AbstractDenoiserWrapper


class Autoguided(AbstractDenoiserWrapper):
    r"""Guidance by a bad version of the denoiser, $D_1 + w\,(D_1 - D_0)$.

    $D_0$ is smaller, or was trained for a shorter time, on the same task. What both get
    wrong in the same direction, the weak one more so, is moved back; unlike
    classifier-free guidance, samples do not lose their variety, and no condition is
    needed.

    Reference: *Guiding a Diffusion Model with a Bad Version of Itself*, Karras et al.,
    2024, whose weight is w + 1.

    ```python
    guided = Autoguided(denoiser, weak, 1.0)
    ```

    **Arguments:**

    - `denoiser`: $D_1$; its condition goes to both.
    - `weak`: $D_0$, with the same `mean_data` and `sigma_data`.
    - `strength`, `interval`: as in `Guided`.

    **Raises:** `ValueError` for a weak denoiser of data in other units.
    """

    denoiser: AbstractDenoiser
    weak: AbstractDenoiser
    strength: Strength
    interval: tuple[float, float] = eqx.field(static=True)

    def __init__(
        self,
        denoiser: AbstractDenoiser,
        weak: AbstractDenoiser,
        strength: Strength,
        *,
        interval: tuple[float, float] = (0.0, math.inf),
    ):
        check_denoiser(denoiser)
        check_denoiser(weak)
        check_strength(strength)
        check_interval(interval)
        _check_same(denoiser.noise_units(), weak.noise_units())
        _check_same(denoiser.standardised()[1], weak.standardised()[1])
        self.denoiser = denoiser
        self.weak = weak
        self.strength = strength
        self.interval = interval

    def denoise(
        self,
        x: Float[Array, "*shape"],
        level: Level,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        strong = self.denoiser.denoise(x, level, cond, key=key)
        weak = self.weak.denoise(x, level, cond, key=key)
        w = strength_at(self.strength, self.interval, level).astype(x.dtype)
        return strong + w * (strong - weak)

    def standardised(self) -> tuple[AbstractDenoiser, Units]:
        inner, units = self.denoiser.standardised()
        weak, _ = self.weak.standardised()
        return eqx.tree_at(
            lambda wrapper: (wrapper.denoiser, wrapper.weak), self, (inner, weak)
        ), units


def _check_same(units, other):
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((units, other))):
        return
    for name in ("mean", "scale"):
        one, two = np.asarray(vars(units)[name]), np.asarray(vars(other)[name])
        same = one.shape == two.shape or 0 in (one.ndim, two.ndim)
        if not same or not np.allclose(one, two, rtol=1e-4, atol=1e-6):
            raise ValueError(
                f"denoiser and weak have data of another {name}, {one} and {two}: "
                "noise levels are in units of the data, so train both with the same "
                "mean_data and sigma_data"
            )
