"""Mixtures of Gaussians, whose diffusion model is known exactly."""

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import PRNGKey
from ..diffusion import AbstractDenoiser, AbstractSchedule, ODESampler, Units


class GaussianMixture(eqx.Module):
    r"""$p(x) = \sum_k w_k N(x; m_k, C_k)$.

    **Arguments:**

    - `weights`: $w_k > 0$, which sum to one.
    - `means`: $m_k$.
    - `covariances`: $C_k$, symmetric and positive semi-definite.
    """

    weights: Float[Array, " components"]
    means: Float[Array, "components dim"]
    covariances: Float[Array, "components dim dim"]

    def noised(self, alpha: Float[Array, ""], sigma: Float[Array, ""]):
        r"""Return the distribution of $\alpha x + \sigma z$, another mixture."""
        eye = jnp.eye(self.means.shape[1], dtype=self.means.dtype)
        noise = jnp.broadcast_to(sigma**2 * eye, self.covariances.shape)
        return GaussianMixture(
            self.weights, alpha * self.means, alpha**2 * self.covariances + noise
        )

    def log_prob(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """Log-density at one point."""

        def one(weight, mean, covariance):
            normal = jax.scipy.stats.multivariate_normal
            return jnp.log(weight) + normal.logpdf(x, mean, covariance)

        return jax.nn.logsumexp(
            jax.vmap(one)(self.weights, self.means, self.covariances)
        )

    def sample(self, *, key: PRNGKey) -> Float[Array, " dim"]:
        """Draw one point."""
        component_key, noise_key = jax.random.split(key)
        k = jax.random.categorical(component_key, jnp.log(self.weights))
        noise = jax.random.normal(noise_key, self.means[k].shape, self.means.dtype)
        return self.means[k] + _sqrt(self.covariances[k]) @ noise

    def condition(
        self,
        operator: Float[Array, "size dim"],
        y: Float[Array, " size"],
        noise: float | Float[Array, ""] | Float[Array, " size"],
    ) -> "GaussianMixture":
        r"""Return $p(x \mid y)$ for $y = A x + \sigma z$, another mixture.

        With $S_k = A C_k A^T + \Sigma$ the weights are multiplied by
        $N(y; A m_k, S_k)$, the means are $m_k + K_k (y - A m_k)$ and the covariances
        $(I - K_k A) C_k (I - K_k A)^T + K_k \Sigma K_k^T$, $K_k = C_k A^T S_k^{-1}$.

        **Arguments:**

        - `operator`: the matrix A.
        - `y`: the measurement.
        - `noise`: standard deviation $\sigma$, one or one for each entry of y.
        """
        dtype = self.means.dtype
        a, y = operator.astype(dtype), y.astype(dtype)
        eye = jnp.eye(self.means.shape[1], dtype=dtype)
        deviation = jnp.broadcast_to(jnp.asarray(noise, y.dtype), y.shape)
        sigma = jnp.diag(deviation**2)

        def one(mean, covariance):
            joint = a @ covariance @ a.T + sigma
            evidence = jax.scipy.stats.multivariate_normal.logpdf(y, a @ mean, joint)
            gain = jnp.linalg.solve(joint, a @ covariance).T
            rest = eye - gain @ a
            # Joseph's form, which is symmetric and positive in any rounding.
            found = rest @ covariance @ rest.T + gain @ sigma @ gain.T
            return evidence, mean + gain @ (y - a @ mean), found

        evidences, means, covariances = jax.vmap(one)(self.means, self.covariances)
        weights = jax.nn.softmax(jnp.log(self.weights) + evidences)
        return GaussianMixture(weights, means, covariances)

    def mean(self) -> Float[Array, " dim"]:
        """Mean of the mixture."""
        return self.weights @ self.means

    def covariance(self) -> Float[Array, "dim dim"]:
        """Covariance of the mixture."""
        centred = self.means - self.mean()[None]
        within = jnp.einsum("k,kij->ij", self.weights, self.covariances)
        return within + jnp.einsum("k,ki,kj->ij", self.weights, centred, centred)


class GaussianMixtureDenoiser(AbstractDenoiser):
    r"""The exact posterior mean when the data are a mixture of Gaussians.

    At the level $s = \sigma_t/\alpha_t$ and $x = x_t/\alpha_t$ it is

    $$D(x, s) = \sum_k r_k \left[m_k + C_k V_k^{-1} (x - m_k)\right],
      \qquad V_k = C_k + s^2 I,$$

    with $r_k$ the responsibilities of the components of the distribution of x. In the
    eigenbasis of $C_k$ no matrix is inverted and no digits are lost at either end.

    ```python
    denoiser = GaussianMixtureDenoiser(eight_gaussians(), VP.linear())
    denoiser.log_prob(x_t, t)
    ```

    **Arguments:**

    - `mixture`: distribution of the data.
    - `schedule`: the noise, in the units of the mixture; samplers read it as that of
        the `standardised` mixture.
    """

    mixture: GaussianMixture
    schedule: AbstractSchedule
    eigenvalues: Float[Array, "components dim"]
    eigenvectors: Float[Array, "components dim dim"]

    def __init__(self, mixture: GaussianMixture, schedule: AbstractSchedule):
        self.mixture = mixture
        self.schedule = schedule
        values, self.eigenvectors = jnp.linalg.eigh(mixture.covariances)
        self.eigenvalues = jnp.maximum(values, 0.0)

    def denoise(
        self,
        x: Float[Array, " dim"],
        level,
        cond=None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, " dim"]:
        def one(weight, mean, values, vectors):
            variance = values + level**2
            residual = vectors.T @ (x - mean)
            log_density = -0.5 * jnp.sum(residual**2 / variance + jnp.log(variance))
            x_0 = mean + vectors @ (values / variance * residual)
            return jnp.log(weight) + log_density, x_0

        m = self.mixture
        logits, x_0 = jax.vmap(one)(
            m.weights, m.means, self.eigenvalues, self.eigenvectors
        )
        return jax.nn.softmax(logits) @ x_0

    def standardised(self) -> tuple[AbstractDenoiser, Units]:
        """Return the denoiser of the mixture with mean 0 and a mean variance of 1."""
        mixture = self.mixture
        mean, variances = mixture.mean(), jnp.diag(mixture.covariance())
        square = jnp.mean(variances)
        # A single point has no scale.
        square = jnp.where(square > 0.0, square, 1.0)
        scale = jnp.sqrt(square)
        means = (mixture.means - mean[None]) / scale
        unit = GaussianMixture(mixture.weights, means, mixture.covariances / square)
        denoiser = eqx.tree_at(
            lambda d: (d.mixture, d.eigenvalues),
            self,
            (unit, self.eigenvalues / square),
        )
        return denoiser, Units(mean, scale)

    def log_prob(self, x_t: Float[Array, " dim"], t) -> Float[Array, ""]:
        r"""$\log p_t(x_t)$, exactly."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return self.mixture.noised(alpha, sigma).log_prob(x_t)


def gaussian_flow(
    mixture: GaussianMixture,
    schedule: AbstractSchedule,
    x: Float[Array, " dim"],
    t_from,
    t_to,
) -> Float[Array, " dim"]:
    r"""Return the probability flow of one Gaussian, in closed form.

    $$x_s = \alpha_s m + V_s^{1/2} V_t^{-1/2} (x_t - \alpha_t m),$$

    as all $V = \alpha^2 C + \sigma^2 I$ commute.

    **Arguments:**

    - `mixture`: a mixture of one component.
    - `schedule`: the noise.
    - `x`: the point at `t_from`.
    - `t_from`, `t_to`: times.
    """
    if len(mixture.weights) != 1:
        raise ValueError(
            f"mixture has {len(mixture.weights)} components: the flow has a closed "
            "form for one. Use reference_flow"
        )
    mean = mixture.means[0]
    values, vectors = jnp.linalg.eigh(mixture.covariances[0])

    def deviation(t):
        return jnp.sqrt(schedule.alpha(t) ** 2 * values + schedule.sigma(t) ** 2)

    ratio = deviation(t_to) / deviation(t_from)
    residual = vectors.T @ (x - schedule.alpha(t_from) * mean)
    return schedule.alpha(t_to) * mean + vectors @ (ratio * residual)


def reference_flow(
    denoiser: AbstractDenoiser,
    x: Float[Array, "*shape"],
    level_from: float,
    level_to: float,
) -> Float[Array, "*shape"]:
    r"""Return the probability flow of $x_t/\alpha_t$ between levels, to 11 digits.

    Dormand and Prince's method of order 8 in the logarithm of the noise level. Call it
    under `jax.enable_x64(True)`.
    """
    if x.dtype != jnp.float64:
        raise TypeError(
            f"x is {x.dtype}: give float64, under jax.enable_x64(True); a reference is "
            "solved in double precision"
        )
    sampler = ODESampler(solver=dfx.Dopri8(), rtol=1e-11, atol=1e-11, max_steps=100_000)
    return sampler.flow(denoiser, x, level_from, level_to)[0]


def eight_gaussians(scale: float = 0.05) -> GaussianMixture:
    r"""Eight Gaussians on a circle in the plane, with unit variance in all.

    Means are at the angles $2\pi k/8$ on the circle of radius $\sqrt{2(1 - s^2)}$.

    **Arguments:**

    - `scale`: standard deviation s of each, below 1.
    """
    angles = 2.0 * np.pi * np.arange(8) / 8.0
    radius = np.sqrt(2.0 * (1.0 - scale**2))
    means = radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    dtype = jnp.result_type(float)
    covariances = np.broadcast_to(scale**2 * np.eye(2), (8, 2, 2))
    return GaussianMixture(
        jnp.full((8,), 1.0 / 8.0, dtype),
        jnp.asarray(means, dtype),
        jnp.asarray(covariances, dtype),
    )


def _sqrt(covariance):
    values, vectors = jnp.linalg.eigh(covariance)
    return vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None]
