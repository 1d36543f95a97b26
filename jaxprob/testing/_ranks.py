"""Simulation-based calibration: ranks of the true weights among posterior draws."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer

from .._random.keys import example_keys, step_key
from .._types import PRNGKey
from ..bnn import AbstractChains
from ._linear_gaussian import LinearGaussian


def simulated_ranks(
    method: AbstractChains,
    problem: LinearGaussian,
    *,
    key: PRNGKey,
    num_sims: int = 500,
) -> Integer[np.ndarray, "sims params"]:
    """Ranks of the true weights among a sampler's draws, over simulated data sets.

    Each simulation draws weights from the prior, targets at the problem's inputs, and
    all draws of one chain. All simulations run in one vectorised program.

    **Arguments:**

    - `method`: a sampler of `problem.log_joint()` with one chain, whose draws are far
        enough apart to be independent, such as NUTS or HMC with a fixed step size
        (`num_warmup=0`) and `thin`.
    - `problem`: its inputs, noise and prior are used; its targets are not.
    - `key`: key of the simulations and chains.
    - `num_sims`: number of simulations.

    **Returns:** ranks from 0 to `method.num_draws`, to be given to `rank_p_values`.
    """
    model_key, sims_key = jax.random.split(key)
    model = problem.model(key=model_key)

    def one(key):
        data_key, init_key, run_key = jax.random.split(key, 3)
        w, y = problem.simulate(key=data_key)
        arrays, static = eqx.partition(method.init(model, key=init_key), eqx.is_array)

        def body(step, arrays):
            state = eqx.combine(arrays, static)
            state, _ = method.update(state, (problem.x, y), key=step_key(run_key, step))
            return eqx.filter(state, eqx.is_array)

        arrays = jax.lax.fori_loop(0, method.num_steps, body, arrays)
        return jnp.sum(arrays.draws[0] < w[None], axis=0)

    return np.asarray(jax.jit(jax.vmap(one))(example_keys(sims_key, num_sims)))
