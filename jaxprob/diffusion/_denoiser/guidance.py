"""Classifier-free guidance: a denoiser from a conditional and a free one."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .._types import Cond, Level
from ..nn import as_condition, no_condition, null_is_untrained
from .denoiser import AbstractDenoiser, check_denoiser
from .wrapper import AbstractDenoiserWrapper


class Guided(AbstractDenoiserWrapper):
    r"""Classifier-free guidance, $D(x, c) + w\,(D(x, c) - D(x))$.

    $D(x)$ is the same denoiser without the condition, so it must have been trained with
    the condition left out of some rows: see `DenoisingLoss(cond_dropout=...)`. A
    network whose vector for "no condition" was never trained is rejected. Strength 0 is
    the conditional denoiser. Any other strength samples from a distribution that is
    sharper than the one that was trained. Outside the interval of levels w is 0.

    Reference: *Classifier-Free Diffusion Guidance*, Ho and Salimans, 2022; *Applying
    Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion
    Models*, Kynkäänniemi et al., 2024.

    ```python
    guided = Guided(denoiser, 2.0, interval=(0.2, 5.0))
    cond = jnp.arange(10)
    draws = sample(guided, ExpAB(), key=key, num_samples=10, shape=shape, cond=cond)
    ```

    **Arguments:**

    - `denoiser`: takes a condition, as an `nn.Condition` that is present or absent; a
        user's network reads it by `nn.when_present`.
    - `strength`: w; the "guidance scale" of some libraries is w + 1.
    - `interval`: noise levels between which guidance acts.
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
                "Train with DenoisingLoss(cond_dropout=0.1), or sample without guidance"
            )
        self.denoiser = denoiser
        self.strength = float(strength)
        self.interval = interval

    def denoise(
        self,
        x: Float[Array, "*shape"],
        level: Level,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        if self.strength == 0.0 or not jax.tree.leaves(cond):
            return self.denoiser.denoise(x, level, cond, key=key)
        # One call of the network on a doubled batch.
        pair = as_condition(cond), no_condition(cond)
        both = jax.tree.map(lambda *c: jnp.stack(c), *pair)
        conditional, free = jax.vmap(
            lambda cond: self.denoiser.denoise(x, level, cond, key=key)
        )(both)
        acts = (level > self.interval[0]) & (level < self.interval[1])
        strength = jnp.where(acts, self.strength, 0.0).astype(x.dtype)
        return conditional + strength * (conditional - free)
