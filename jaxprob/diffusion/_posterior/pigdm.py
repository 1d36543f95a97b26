"""Pseudo-inverse guidance."""

from dataclasses import KW_ONLY

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._denoiser.denoiser import AbstractDenoiser
from .._schedule.argument_checks import check_count
from .._types import Level
from .conditioned import AbstractPosteriorDenoiser, Prior
from .local_gaussian import local_gaussian
from .observation import Observation
from .solve import solve


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
    _: KW_ONLY
    max_dense: int = eqx.field(static=True, default=64)

    def __check_init__(self):
        check_count("max_dense", self.max_dense, "entries of y", least=0)

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

        z = solve(product, local.residual, max_dense=self.max_dense)
        return x_0 + square * pullback(local.pull(z))[0]
