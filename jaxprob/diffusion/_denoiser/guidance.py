"""Classifier-free guidance: a denoiser made of a conditional and a free one."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .._types import Cond, Time
from ..nn import as_condition, no_condition, null_is_untrained
from .denoiser import AbstractDenoiser, AbstractDenoiserWrapper, check_denoiser


class Guided(AbstractDenoiserWrapper):
    r"""Classifier-free guidance, $D = D(x, c) + w\,(D(x, c) - D(x))$.

    $D(x)$ is the same denoiser without the condition, so it must have been trained with
    the condition left out at times: see `DenoisingLoss(drop_cond=...)`. A network whose
    vector for "no condition" was never trained is rejected. Strength 0 is the
    conditional denoiser itself; what is sampled otherwise is no distribution that was
    trained, but sharper. Outside the interval of noise levels it is 0 too.

    Reference: *Classifier-Free Diffusion Guidance*, Ho and Salimans, 2022; *Applying
    Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion
    Models*, Kynkäänniemi et al., 2024.

    ```python
    guided = Guided(denoiser, 2.0, interval=(0.2, 5.0))
    draws = sample(guided, ExpAB(), key=key, num=10, shape=shape, cond=jnp.arange(10))
    ```

    **Arguments:**

    - `denoiser`: takes a condition, as an `nn.Condition` that is present or absent; a
        network of your own reads it by `nn.when_present`.
    - `strength`: w; the "guidance scale" of some libraries is w + 1.
    - `interval`: noise levels $\sigma_t/\alpha_t$ between which it acts.
    """

    denoiser: AbstractDenoiser
    strength: float = eqx.field(static=True)
    interval: tuple[float, float] = eqx.field(static=True)

    def __init__(
        self,
        denoiser: AbstractDenoiser,
        strength: float,
        *,
        interval: tuple[float, float] = (0.0, math.inf),
    ):
        check_denoiser(denoiser)
        if not math.isfinite(strength):
            raise ValueError(
                f"strength={strength}: give a finite number; 0 is no guidance, 1 to 5 "
                "are usual"
            )
        if not interval[0] < interval[1]:
            raise ValueError(f"interval={interval}: from a lower to a higher level")
        if strength != 0.0 and null_is_untrained(denoiser):
            raise ValueError(
                f"strength={strength}: the network's vector for no condition is zero, "
                "so it was never trained, and there is no denoiser to guide away from. "
                "Train with DenoisingLoss(drop_cond=0.1), or sample without guidance"
            )
        self.denoiser = denoiser
        self.strength = float(strength)
        self.interval = interval

    def __call__(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        if self.strength == 0.0 or not jax.tree.leaves(cond):
            return self.denoiser(x_t, t, cond, key=key)
        # One call of the network on a doubled batch.
        pair = as_condition(cond), no_condition(cond)
        both = jax.tree.map(lambda *c: jnp.stack(c), *pair)
        conditional, free = jax.vmap(lambda cond: self.denoiser(x_t, t, cond, key=key))(
            both
        )
        level = self.schedule.noise_level(t)
        acts = (level > self.interval[0]) & (level < self.interval[1])
        strength = jnp.where(acts, self.strength, 0.0).astype(x_t.dtype)
        return conditional + strength * (conditional - free)
