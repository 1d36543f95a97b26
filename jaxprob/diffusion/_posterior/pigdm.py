"""Pseudo-inverse guidance."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._denoiser.denoiser import AbstractDenoiser
from .._types import Level
from .conditioned import AbstractPosteriorDenoiser, Prior
from .local_gaussian import local_gaussian
from .observation import Observation
from .solve import solve_cg, solve_dense


class PiGDM(AbstractPosteriorDenoiser):
    r"""Pseudo-inverse guidance: `MMPS` with the covariance of white data in the solve.

    $$D(x, s \mid y) = D + s^2 J^T A^T (r^2 A A^T + \Sigma_y)^{-1} (y - A(D)), \qquad
      r^2 = \frac{s^2}{1 + s^2} .$$

    It costs one derivative of the network backwards and no products in the solve. It is
    exact for white Gaussian data of standard deviation 1 alone. Prefer `MMPS`. Noise
    that is not Gaussian is replaced as there.

    ```python
    posterior = PiGDM(denoiser, Observation(y[0], noise=0.1))
    ```

    Reference: *Pseudoinverse-Guided Diffusion Models for Inverse Problems*, Song et
    al., 2023.

    **Arguments:**

    - `denoiser`, `observation`: as in `MMPS`.
    - `max_dense`: largest number of entries of y for a dense solve; above, conjugate
        gradients, for which only A is evaluated.
    """

    denoiser: AbstractDenoiser
    observation: Observation
    max_dense: int = eqx.field(static=True)

    def __init__(
        self,
        denoiser: AbstractDenoiser,
        observation: Observation,
        *,
        max_dense: int = 64,
    ):
        self.denoiser = denoiser
        self.observation = observation
        self.max_dense = max_dense

    def answer(
        self,
        prior: Prior,
        observation: Observation,
        x: Float[Array, "*shape"],
        level: Level,
    ) -> Float[Array, "*shape"]:
        x_0, pullback = jax.vjp(prior, x)
        square = jnp.asarray(level, x.dtype) ** 2
        local = local_gaussian(observation, x_0)
        variance = square / (1.0 + square)

        def product(u):
            return variance * local.push(local.pull(u))

        b = local.residual
        if b.size <= self.max_dense:
            z = solve_dense(product, b)
        else:
            z = solve_cg(product, b, rtol=1e-4, max_steps=100)
        return x_0 + square * pullback(local.pull(z))[0]
