"""Tweedie moment projected diffusions."""

from dataclasses import KW_ONLY

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._denoiser.denoiser import AbstractDenoiser
from .._types import Level
from .conditioned import AbstractPosteriorDenoiser, Prior
from .local_gaussian import local_gaussian
from .observation import Observation
from .solve import solve_dense


class TMPD(AbstractPosteriorDenoiser):
    r"""Tweedie moment projected diffusions.

    The Gaussian with the first two moments of $x_0$ given x, as in `MMPS`, with the
    gradient of its likelihood at a fixed covariance,

    $$D(x, s \mid y) = D + s^2 J^T A^T S^{-1} (y - A(D)), \qquad
      S = \Sigma_y + s^2 A J A^T .$$

    S is dense, which is for y of at most some hundred entries; or diagonal with the row
    sums of $A J A^T$, which the paper uses for images. The dense form is exact where
    `MMPS` is; the diagonal one if J is diagonal and A a mask. Noise that is not
    Gaussian is replaced as in `MMPS`.

    ```python
    posterior = TMPD(denoiser, Observation(y[0], noise=0.1))
    ```

    Reference: *Tweedie Moment Projected Diffusions for Inverse Problems*, Boys et al.,
    2023.

    **Arguments:**

    - `denoiser`, `observation`: as in `MMPS`.
    - `diagonal`: whether S is diagonal.
    """

    denoiser: AbstractDenoiser
    observation: Observation
    _: KW_ONLY
    diagonal: bool = eqx.field(static=True, default=False)

    def answer(
        self,
        prior: Prior,
        observation: Observation,
        x: Float[Array, "*shape"],
        level: Level,
    ) -> Float[Array, "*shape"]:
        x_0, derivative = jax.linearize(prior, x)
        transposed = jax.linear_transpose(derivative, x)
        square = jnp.asarray(level, x.dtype) ** 2
        local = local_gaussian(observation, x_0)

        def product(u):
            return square * local.push(derivative(local.pull(u)))

        b = local.residual
        if self.diagonal:
            sums = product(jnp.ones_like(b))
            z = b / (1.0 + jnp.maximum(sums, 0.0))
        else:
            z = solve_dense(product, b)
        return x_0 + square * transposed(local.pull(z))[0]
