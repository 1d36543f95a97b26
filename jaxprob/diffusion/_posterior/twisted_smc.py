"""Sequential Monte Carlo with twisted proposals: exact as particles are added."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._random.keys import check_key
from ..._types import PRNGKey
from .._denoiser.denoiser import at_level
from .._denoiser.last_level import last_level
from .._sampler.grid import AbstractGrid, as_grid
from .._sampler.grids import LogLevelGrid
from .._schedule.argument_checks import as_shape, check_count, check_kind
from .._schedule.constants import free_schedules, hold_schedules
from .._types import Cond
from .conditioned import AbstractPosteriorDenoiser, measured
from .mmps import mean_and_covariance
from .particles import Particles
from .twist import log_twist


def sample_particles(
    posterior: AbstractPosteriorDenoiser,
    *,
    key: PRNGKey,
    num_particles: int,
    shape: tuple[int, ...],
    cond: Cond = None,
    grid: AbstractGrid | int = 100,
    resample_below: float = 0.5,
    max_dense: int = 64,
) -> Particles:
    r"""Return weighted samples of $p(x_0 \mid y)$, and $\log p(y)$ with its error.

    Particles step down the noise levels, from a to b, by the posterior denoiser
    $D_y$, where the prior itself steps by D:

    $$x_b \sim N\big(x + k\,(D_y(x, a) - x),\ v\big), \qquad k = 1 - b^2/a^2, \qquad
      v = b^2 k + k^2 a^2\, \mathrm{tr}(J)/d .$$

    Weights correct for the difference, whatever the posterior denoiser gets wrong: the
    target at each level is the prior's path times $\psi_s(x) \approx p(y \mid x_0 + s z
    = x)$, by the mean and the covariance of $x_0$ that the denoiser knows, and at the
    last level times $p(y \mid x_0)$ itself. Means over particles converge to those of
    the posterior of the prior's own sampler on this grid, with an error like
    $1/\sqrt N$. What stays is that sampler's error of first order in the steps: more
    steps, not more particles, reduce it. $J = \partial D/\partial x$; its trace is
    estimated by one probe for each level.

    Unlike every `condition`, it is right for any operator and noise, at N times the
    cost. N grows exponentially with the number of nats by which the proposals are wrong
    in all coordinates together, so it is for problems of few dimensions, or good
    posterior denoisers.

    ```python
    posterior = condition(denoiser, Observation(y[0], noise=0.3))
    particles = sample_particles(
        posterior, key=key, num_particles=64, shape=(2,), grid=10
    )
    nats, error = particles.log_evidence, particles.log_evidence_error
    ```

    Reference: *Practical and Asymptotically Exact Conditional Sampling in Diffusion
    Models*, Wu et al., 2023, algorithm 1, https://arxiv.org/abs/2306.17775, with the
    twist of `MMPS` and the variance of *Analytic-DPM*, Bao et al., 2022.

    **Arguments:**

    - `posterior`: of `condition`: the prior, the measurement, and the proposals.
    - `key`: all randomness.
    - `num_particles`: N, at least 2.
    - `shape`: of one example.
    - `cond`: one condition, or `Measured(y, cond)`.
    - `grid`: noise levels, or a number of steps of `LogLevelGrid`.
    - `resample_below`: particles are resampled where the effective sample size is below
        this fraction of N.
    - `max_dense`: number of entries of y up to which the twist has a dense matrix.

    **Raises:** `RuntimeError` where weights are not finite, or collapse: the message
    has the effective sample size, the step and its noise level, and what to change.
    """
    remedy = "write condition(denoiser, Observation(y, operator, noise=0.1))"
    check_kind("posterior", posterior, AbstractPosteriorDenoiser, remedy)
    check_key(key)
    check_count("num_particles", num_particles, "at least two particles", least=2)
    shape = as_shape(shape)
    if posterior.observation.is_exact:
        raise ValueError(
            "noise is 0, so no particle has a positive weight: give the observation a "
            "small noise, e.g. a hundredth of the standard deviation of y"
        )
    if not 0.0 <= resample_below <= 1.0:
        raise ValueError(f"resample_below={resample_below}: a fraction of N, in [0, 1]")
    levels = as_grid(grid, LogLevelGrid).levels(posterior.schedule, shape)
    steps = tuple(float(level) for level in levels)
    run = _Run(steps, num_particles, shape, float(resample_below), max_dense)
    particles = _compiled(run, hold_schedules(posterior), cond, key)
    _check(particles, steps)
    return particles


class _Run(eqx.Module):
    """Settings of a run, and its steps."""

    levels: tuple[float, ...] = eqx.field(static=True)
    num: int = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    fraction: float = eqx.field(static=True)
    max_dense: int = eqx.field(static=True)

    def __call__(self, posterior, cond, key):
        levels = np.asarray(self.levels)
        unit, units = posterior.standardised()
        assert isinstance(unit, AbstractPosteriorDenoiser)
        observation, inner_cond = measured(unit.observation, cond)
        start_key, probe_key, step_key = jax.random.split(key, 3)
        known = units.known
        prior = unit.denoiser
        start = last_level(prior, self.levels[0], self.shape, inner_cond, known=known)
        x = jax.vmap(start.decode)(
            jax.random.normal(start_key, (self.num, *self.shape))
        )
        rows = [jnp.asarray(row, x.dtype) for row in (levels[:-1], levels[1:])]

        def step(carry, row):
            i, a, b = row
            probe = jax.random.rademacher(
                jax.random.fold_in(probe_key, i), self.shape, x.dtype
            )

            def kernel(x):
                """Return means of prior and proposal, their variance, and the twist."""

                def answer(x):
                    return at_level(prior, x, a, inner_cond)

                x_0, covariance = mean_and_covariance(answer, x, a)
                k = 1.0 - (b / a) ** 2
                spread = jnp.clip(jnp.vdot(probe, covariance(probe)) / x.size, 0, a**2)
                twist = log_twist(observation, x_0, covariance, self.max_dense)
                guided = x + k * (at_level(unit, x, a, cond) - x)
                return x + k * (x_0 - x), guided, b**2 * k + k**2 * spread, twist

            x_a, weights, ancestors, nats, times = carry
            kernels = jax.vmap(kernel)(x_a)
            full = weights + kernels[-1]
            key, noise_key = jax.random.split(jax.random.fold_in(step_key, i))
            index, full, ess, gained, again = self._resampled(full, key)
            mean, guided, variance, twist = jax.tree.map(lambda p: p[index], kernels)
            noise = jax.random.normal(noise_key, x_a.shape, x_a.dtype)
            x_b = guided + jax.vmap(jnp.multiply)(jnp.sqrt(variance), noise)
            change = _squares(x_b - guided) - _squares(x_b - mean)
            weights = full + 0.5 * change / variance - twist
            carry = x_b, weights, ancestors[index], nats + gained, times + again
            return carry, ess

        zeros = jnp.zeros((self.num,), x.dtype)
        first = (x, zeros, jnp.arange(self.num), zeros[0], jnp.asarray(0))
        carry, ess = jax.lax.scan(step, first, (jnp.arange(len(rows[0])), *rows))
        x, weights, ancestors, nats, times = carry
        x_0 = jax.vmap(lambda x: at_level(prior, x, levels[-1], inner_cond))(x)
        full = weights + jax.vmap(observation.log_likelihood)(x_0)
        total = jax.nn.logsumexp(full)
        return Particles(
            jax.vmap(units.to_data)(x_0),
            full - total,
            nats + total - jnp.log(jnp.asarray(self.num, x.dtype)),
            jnp.asarray(levels, x.dtype),
            jnp.concatenate([ess, _ess(full)[None]]),
            times,
            ancestors,
        )

    def _resampled(self, full, key):
        """Return indices, new log-weights, the ESS, the nats so far, and whether."""
        ess = _ess(full)
        again = ess < self.fraction * self.num
        drawn = jax.random.categorical(key, full, shape=(self.num,))
        index = jnp.where(again, drawn, jnp.arange(self.num))
        size = jnp.log(jnp.asarray(self.num, full.dtype))
        gained = jnp.where(again, jax.nn.logsumexp(full) - size, 0.0)
        return index, jnp.where(again, 0.0, full), ess, gained, again.astype(int)


@eqx.filter_jit
def _compiled(run, held, cond, key):
    return run(free_schedules(held), cond, key)


def _ess(log_weights: Float[Array, " particles"]) -> Float[Array, ""]:
    """Return the effective sample size, 1 over the sum of squared weights."""
    return jnp.exp(
        2.0 * jax.nn.logsumexp(log_weights) - jax.nn.logsumexp(2.0 * log_weights)
    )


def _squares(x):
    return jnp.sum(x.reshape(len(x), -1) ** 2, axis=1)


def _check(particles, levels):
    """Raise where the weights of a run are of no use."""
    ess = np.asarray(particles.ess)
    num = len(particles.log_weights)
    bad = ~np.isfinite(ess)
    where = int(np.argmax(bad)) if bad.any() else int(np.argmin(ess))
    step = min(where, len(levels) - 1)
    at = f"at step {step} of {len(levels) - 1}, noise level {levels[step]:.3g}"
    if bad.any():
        raise RuntimeError(
            f"the weights of the particles are not finite {at}: the denoiser or the "
            "likelihood has NaN there, or no particle can explain y"
        )
    families = len(np.unique(np.asarray(particles.ancestors)))
    if ess[where] < 2.0 or families < 2:
        raise RuntimeError(
            f"the particles collapsed: the effective sample size is {ess[where]:.2f} "
            f"of {num} {at}, and the samples descend from {families} of the first "
            "particles. Take more particles, a grid of more steps, or proposals closer "
            "to the posterior (condition(..., MMPS)); with little noise in y or many "
            "dimensions take SplitGibbs, which has no weights"
        )
