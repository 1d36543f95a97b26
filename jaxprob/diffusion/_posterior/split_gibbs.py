"""Split Gibbs sampling: prior and measurement take turns at small noise levels."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._types import Model, PRNGKey
from .._denoiser.denoiser import AbstractDenoiser, at_level
from .._sampler.ddim import DDIM
from .._sampler.ends import begin
from .._sampler.grid import level_range
from .._sampler.sampler import AbstractSampler, Draw
from .._schedule.argument_checks import check_count, check_kind
from .._types import Cond
from .conditioned import AbstractPosteriorDenoiser, measured
from .local_gaussian import local_gaussian
from .solve import solve


class SplitGibbs(AbstractSampler):
    r"""Gibbs sampling of $p(x, z \mid y) \propto p(y \mid x)\,
    e^{-|x - z|^2 / 2\rho^2}\, p(z)$.

    Given z, x is Gaussian and is drawn exactly. Given x, z is clean data whose noisy
    version at the level $\rho$ is x, which the reverse SDE draws from there. No
    likelihood is approximated: as the steps grow in number, the samples z are those of
    $p(z) N(y;\, A z,\, \Sigma_y + \rho^2 A A^T)$, the posterior of a measurement with
    that much more noise, and as $\rho$ falls those of the posterior. $\rho$ falls from
    `level_max` to `level_min` and stays there for as many turns again.

    Each sample is the end of a separate chain. It costs `num_turns * num_steps`
    evaluations and no derivative of the network, and its weights cannot collapse.

    References: *Split-and-Augmented Gibbs Sampler*, Vono, Dobigeon and Chainais, 2019,
    https://arxiv.org/abs/1804.05809; *Principled Probabilistic Imaging using Diffusion
    Models as Plug-and-Play Priors*, Wu et al., 2024, https://arxiv.org/abs/2405.18782.

    ```python
    posterior = condition(denoiser, Observation(y[0], noise=0.3))
    sampler = SplitGibbs(4, num_steps=3)
    draws = sample(posterior, sampler, key=key, num_samples=4, shape=(2,))
    ```

    **Arguments:**

    - `num_turns`: number of turns, of which half are at `level_min`.
    - `num_steps`: steps of each reverse SDE.
    - `level_min`: the last $\rho$, in standard deviations of the data; a good one is
        below the noise of y and the finest structure that matters.
    - `level_max`: the first $\rho$.
    - `max_dense`: number of entries of y up to which x is solved for densely, and by
        conjugate gradients above.

    **Raises:** `TypeError` for a denoiser that is not one of `condition`; `ValueError`
    for an operator that is not known to be linear, or noise that is not Gaussian.
    """

    num_turns: int = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)
    level_min: float = eqx.field(static=True)
    level_max: float = eqx.field(static=True)
    max_dense: int = eqx.field(static=True)

    def __init__(
        self,
        num_turns: int = 60,
        num_steps: int = 20,
        *,
        level_min: float = 0.1,
        level_max: float = 10.0,
        max_dense: int = 64,
    ):
        check_count("num_turns", num_turns, "turns of prior and measurement", least=2)
        check_count("num_steps", num_steps, "at least one step of each reverse SDE")
        if not 0.0 < level_min <= level_max:
            raise ValueError(
                f"level_min={level_min}, level_max={level_max}: noise levels must "
                "satisfy 0 < level_min <= level_max"
            )
        self.num_turns = num_turns
        self.num_steps = num_steps
        self.level_min = level_min
        self.level_max = level_max
        self.max_dense = max_dense

    def check_model(self, model: Model) -> None:
        """Check that a denoiser has a measurement that is linear and Gaussian.

        **Raises:** as the class.
        """
        remedy = "write condition(denoiser, Observation(y, operator, noise=0.1))"
        check_kind("denoiser", model, AbstractPosteriorDenoiser, remedy)
        assert isinstance(model, AbstractPosteriorDenoiser)
        observation = model.observation
        if not observation.is_linear:
            raise ValueError(
                "SplitGibbs draws x given z exactly, which requires a linear operator: "
                "write Observation(..., linear=True, shape=x.shape) if it is, or take "
                "sample_particles, which is right for any"
            )
        if not observation.is_gaussian:
            raise ValueError(
                "SplitGibbs requires Gaussian noise of a known standard deviation: "
                "take sample_particles, which is right for any noise"
            )

    def draw(
        self,
        denoiser: AbstractDenoiser,
        shape: tuple[int, ...],
        *,
        key: PRNGKey,
        cond: Cond = None,
        trajectory: bool = False,
        start: Float[Array, "..."] | None = None,
    ) -> Draw:
        self.check_model(denoiser)
        unit, units = denoiser.standardised()
        assert isinstance(unit, AbstractPosteriorDenoiser)
        assert isinstance(denoiser, AbstractPosteriorDenoiser)
        observation, inner_cond = measured(unit.observation, cond)
        start_key, key = jax.random.split(key)
        z = begin(
            denoiser.denoiser,
            self.level_max,
            shape,
            inner_cond,
            key=start_key,
            start=start,
        )
        # Each reverse SDE ends in the data, far below its first level.
        least = min(0.002, self.level_min / 50.0)
        _, low = level_range(denoiser.schedule, least, self.level_max)
        part = jnp.linspace(0.0, 1.0, self.num_steps + 1, dtype=z.dtype)

        def turn(z, row):
            i, rho = row
            x_key, z_key = jax.random.split(jax.random.fold_in(key, i))
            x = self._given_prior(observation, z, rho, x_key)
            levels = rho * (low / rho) ** part

            def step(x, row):
                j, a, b = row
                step_key = jax.random.fold_in(z_key, j)
                # Ancestral sampling, the reverse SDE.
                return DDIM(eta=1.0).step(
                    unit.denoiser, x, a, b, key=step_key, cond=inner_cond
                ), None

            rows = jnp.arange(self.num_steps), levels[:-1], levels[1:]
            x, _ = jax.lax.scan(step, x, rows)
            z = at_level(unit.denoiser, x, low, inner_cond)
            return z, z

        rhos = jnp.asarray(self._levels(), z.dtype)
        z, path = jax.lax.scan(turn, z, (jnp.arange(len(rhos)), rhos))
        count = jnp.asarray(self.num_turns * (self.num_steps + 1))
        failed = jnp.asarray(False)
        x_0 = units.to_data(z)
        if not trajectory:
            return Draw(x_0, count, failed)
        return Draw(x_0, count, failed, jax.vmap(units.to_data)(path), rhos)

    def _levels(self):
        half = (self.num_turns + 1) // 2
        falling = np.geomspace(self.level_max, self.level_min, half)
        return np.concatenate([falling, np.full(self.num_turns - half, falling[-1])])

    def _given_prior(self, observation, z, rho, key):
        """Draw x given z and y: perturb both, and solve the normal equations."""
        z_key, y_key = jax.random.split(key)
        u = z + rho * jax.random.normal(z_key, z.shape, z.dtype)
        local = local_gaussian(observation, u)
        b = local.residual
        b = b + jax.random.normal(y_key, b.shape, b.dtype)

        def product(v):
            return rho**2 * local.push(local.pull(v))

        solution = solve(product, b, max_dense=self.max_dense, rtol=1e-5, max_steps=200)
        return u + rho**2 * local.pull(solution)
