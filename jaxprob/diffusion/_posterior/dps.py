"""Diffusion posterior sampling."""

from dataclasses import KW_ONLY

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._denoiser.denoiser import AbstractDenoiser
from .._types import Level
from .conditioned import AbstractPosteriorDenoiser, Prior, as_positive
from .local_gaussian import local_gaussian
from .observation import Observation


class DPS(AbstractPosteriorDenoiser):
    r"""Diffusion posterior sampling: guidance by the residual of the denoised example.

    $$D(x, s \mid y) = D - \zeta \sqrt{m}\, s^2\, \nabla_x \|W (y - A(D(x)))\|$$

    for m measured entries of y and $W = 1/\sigma$. With $\zeta = 1$ the step is as
    large as the likelihood's gradient where the residual has the size of the noise, and
    smaller where it is larger, as at high levels. It is exact for no data, and $\zeta$
    has to be tuned. Prefer `MMPS`. For noise that is not Gaussian the gradient is that
    of the likelihood, and the norm that of its Fisher information.

    ```python
    posterior = DPS(denoiser, Observation(y[0], noise=0.1), strength=0.5)
    ```

    Reference: *Diffusion Posterior Sampling for General Noisy Inverse Problems*, Chung
    et al., 2023, algorithm 1. There a step of $\zeta'$ is made at each of 1,000 levels;
    here it is part of the denoiser, so that it does not depend on their number.

    **Arguments:**

    - `denoiser`, `observation`: as in `MMPS`.
    - `strength`: $\zeta$, above 0.
    """

    denoiser: AbstractDenoiser
    observation: Observation
    _: KW_ONLY
    strength: float | Float[Array, ""] = eqx.field(
        default=1.0, converter=as_positive("strength")
    )

    def answer(
        self,
        prior: Prior,
        observation: Observation,
        x: Float[Array, "*shape"],
        level: Level,
    ) -> Float[Array, "*shape"]:
        x_0, pullback = jax.vjp(prior, x)
        local = local_gaussian(observation, x_0)
        b = local.residual
        square = jnp.vdot(b, b)
        # A residual of 0 has no direction.
        size = jnp.sqrt(jnp.where(square > 0.0, square, 1.0))
        scale = self.strength * jnp.asarray(level, x.dtype) ** 2
        scale = scale * jnp.sqrt(local.num_measured) / size
        return x_0 + scale * pullback(local.pull(b))[0]
