"""The likelihood of a simulator, for a sampler of the posterior."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from ..._engine.fit import History
from ..._types import PRNGKey
from .._density.log_prob import log_prob
from .._schedule.argument_checks import check_kind
from .encoders import summaries
from .fit import fit_posterior
from .parameter_space import ParameterSpace, as_space
from .posterior import SimulatorPosterior, encode
from .simulations import Simulations


class SimulatorLikelihood(eqx.Module):
    r"""$p(x \mid \theta)$ of a simulator, and the joint density for a sampler.

    `fit_likelihood` makes it. `log_joint(x)` is a plain function of the real
    coordinates u of the parameters, as blackjax and numpyro take it:

    ```python
    density = likelihood.log_joint(x)
    sampler = blackjax.nuts(density, step_size=0.1, inverse_mass_matrix=jnp.ones(2))
    kernel = numpyro.infer.NUTS(potential_fn=lambda u: -density(u))
    theta = likelihood.space.from_vectors(u)  # of draws u with a leading axis
    ```

    **Fields:**

    - `space`: the prior.
    - `mean`, `scale`: of the parameters' coordinates.
    - `observations`: the distribution of an observation given them.
    """

    space: ParameterSpace
    mean: np.ndarray
    scale: np.ndarray
    observations: SimulatorPosterior

    def log_joint(
        self, x: Float[Array | np.ndarray, "..."], **settings: Any
    ) -> Callable[[Float[Array, " dim"]], Float[Array, ""]]:
        r"""Return $u \mapsto \sum_i \log p(x_i \mid \theta(u)) + \log p(u)$.

        **Arguments:**

        - `x`: one observation, or n independent ones along a leading axis.
        - `settings`: of `jaxprob.diffusion.log_prob`, such as `rtol`.

        **Returns:** a function that can be differentiated and jitted.
        """
        size = self.observations.space.size
        rows = jnp.asarray(x, jnp.result_type(float))
        if rows.ndim not in (1, 2) or rows.shape[-1] != size:
            raise ValueError(
                f"x has shape {rows.shape}: give an observation ({size},), or "
                f"independent ones (n, {size})"
            )
        rows = rows.reshape(-1, size)

        def density(u):
            theta = self.space.from_vectors(u[None])
            prior = self.space.log_prob(theta) + self.space.log_volume(u[None])
            return jnp.sum(self._log_probs(u, rows, settings)) + prior[0]

        return density

    def log_prob(
        self, x: Float[Array | np.ndarray, "n size"], theta: PyTree
    ) -> Float[Array, " n"]:
        r"""Return $\log p(x_i \mid \theta)$ of rows given one set of parameters.

        **Arguments:**

        - `x`: observations with a leading axis.
        - `theta`: parameters without one.
        """
        u = self.space.to_vectors(
            jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], theta)
        )
        return self._log_probs(u[0], jnp.asarray(x, u.dtype), {})

    def _log_probs(self, u, rows, settings):
        model = self.observations
        (first,), (spread,) = model.scaler.means, model.scaler.scales
        z = (u - jnp.asarray(self.mean, u.dtype)) / jnp.asarray(self.scale, u.dtype)
        z = (z - jnp.asarray(first, u.dtype)) / jnp.asarray(spread, u.dtype)
        cond = encode(model.encoders, model.denoiser.num_members, z[None])[0]
        one = jax.tree.map(lambda a: a[0] if eqx.is_array(a) else a, model.encoders)
        left = model.linear.residual(rows, summaries(one, z[None]))

        def each(row):
            return log_prob(model.denoiser, row, cond=cond, **settings).value

        return jax.vmap(each)(left) - model.linear.log_volume


def fit_likelihood(
    prior: PyTree | ParameterSpace,
    simulations: Simulations,
    *,
    key: PRNGKey,
    **settings: Any,
) -> tuple[SimulatorLikelihood, History]:
    r"""Train the distribution of an observation given the parameters.

    With few simulations, several independent observations or a prior that changes it is
    the alternative to `fit_posterior`: the likelihood is often simpler than the
    posterior, and the prior is known. It costs a run of NUTS for each observation.

    Reference: *Sequential Neural Likelihood: Fast Likelihood-free Inference with
    Autoregressive Flows*, Papamakarios, Sterratt and Murray, 2019.

    **Arguments:**

    - `prior`: of the simulations.
    - `simulations`: observations are vectors of continuous numbers.
    - `key`: of the initial weights and the training.
    - `settings`: of `fit_posterior`.

    **Returns:** the likelihood, and the history of `fit_posterior`.

    **Raises:** `ValueError` for observations that are not vectors of real numbers.
    """
    space = as_space(prior)
    check_kind("simulations", simulations, Simulations, "Simulations(theta, x)")
    x = simulations.x
    if not isinstance(x, np.ndarray | jax.Array) or x.ndim != 2 or x.dtype.kind != "f":
        raise ValueError(
            "a likelihood is of observations that are vectors of floating-point "
            f"numbers, (simulations, entries); got {jax.tree.map(np.shape, x)}. Counts "
            "and images have no density: use fit_posterior"
        )
    u = np.asarray(space.to_vectors(simulations.theta))
    mean, scale = u.mean(axis=0), np.where(u.std(axis=0) > 0.0, u.std(axis=0), 1.0)
    turned = Simulations(np.asarray(x), (u - mean) / scale)
    real = dist.Normal(jnp.zeros(x.shape[1]), 1.0)
    model, history = fit_posterior(real, turned, key=key, encoder="vector", **settings)
    return SimulatorLikelihood(space, mean, scale, model), history
