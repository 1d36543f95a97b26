"""Moment matching posterior sampling."""

from dataclasses import KW_ONLY

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from .._denoiser.denoiser import AbstractDenoiser
from .._schedule.argument_checks import check_count
from .._types import Level
from .conditioned import AbstractPosteriorDenoiser, Prior
from .local_gaussian import local_gaussian
from .observation import Observation
from .solve import solve, solve_lineax


class MMPS(AbstractPosteriorDenoiser):
    r"""Moment matching posterior sampling.

    $$D(x, s \mid y) = D + V A^T (\Sigma_y + A V A^T)^{-1} (y - A(D)), \qquad
      V = s^2\, \partial D/\partial x,$$

    because V is the covariance of $x_0$ given x (Tweedie), and $x_0$ is taken as
    Gaussian given x. It is exact if the data are Gaussian, A is linear and the noise is
    Gaussian, at every level; and for any data as the level falls. A is linearised at D,
    and noise that is not Gaussian is replaced by a Gaussian with the gradient and the
    Fisher information of its likelihood there. With separated modes, spikes or tails
    without a variance, intervals were measured too wide and means off
    (docs/posteriors.md).

    A learned network's Jacobian is not symmetric, and its eigenvalues may be negative.
    V is its symmetric part. Directions in which $A V A^T$ is negative do not move the
    answer: a dense solve leaves all of them out, and conjugate gradients stop at the
    first. `solve_report` says how often that happens.

    ```python
    posterior = MMPS(denoiser, Observation(y[0], noise=0.1))
    draws = sample(posterior, ExpAB(8), key=key, num_samples=4, shape=(2,))
    ```

    Reference: *Learning Diffusion Priors from Observations by Expectation
    Maximization*, Rozet et al., 2024, section on moment matching posterior sampling.

    **Arguments:**

    - `denoiser`: of the prior. Each product with V costs one derivative of it forwards
        and one backwards.
    - `observation`: the measurement, with noise above 0.
    - `max_dense`: largest number of entries of y for a dense solve, with as many
        products at once.
    - `rtol`, `max_steps`: of conjugate gradients for larger y.
    - `solver`: a solver of lineax instead, such as `lineax.GMRES(1e-3, 1e-3)`. Where it
        fails the answer is NaN, which `sample` reports.
    """

    denoiser: AbstractDenoiser
    observation: Observation
    _: KW_ONLY
    max_dense: int = eqx.field(static=True, default=64)
    rtol: float = eqx.field(static=True, default=1e-3)
    max_steps: int = eqx.field(static=True, default=20)
    solver: lx.AbstractLinearSolver | None = None

    def __check_init__(self):
        check_count("max_dense", self.max_dense, "entries of y", least=0)
        check_count("max_steps", self.max_steps, "at least one step")

    def answer(
        self,
        prior: Prior,
        observation: Observation,
        x: Float[Array, "*shape"],
        level: Level,
    ) -> Float[Array, "*shape"]:
        x_0, covariance = mean_and_covariance(prior, x, level)
        local = local_gaussian(observation, x_0)

        def product(u):
            return local.push(covariance(local.pull(u)))

        b = local.residual
        if self.solver is not None:
            z = solve_lineax(product, b, self.solver)
        else:
            z = solve(
                product,
                b,
                max_dense=self.max_dense,
                rtol=self.rtol,
                max_steps=self.max_steps,
            )
        return x_0 + covariance(local.pull(z))


def mean_and_covariance(
    prior: Prior, x: Float[Array, "*shape"], level: Level
) -> tuple[Float[Array, "*shape"], Prior]:
    r"""Return D(x) and the product with $V = s^2 (J + J^T)/2$.

    **Arguments:** as in `AbstractPosteriorDenoiser.answer`.
    """
    x_0, derivative = jax.linearize(prior, x)
    transposed = jax.linear_transpose(derivative, x)
    square = jnp.asarray(level, x.dtype) ** 2

    def covariance(v):
        return 0.5 * square * (derivative(v) + transposed(v)[0])

    return x_0, covariance
