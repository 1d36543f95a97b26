"""Simulations of a JAX function, vectorised."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree
from tqdm.auto import tqdm

from ..._random.keys import check_key
from ..._types import PRNGKey
from .._schedule.argument_checks import check_count
from .parameter_space import ParameterSpace, as_space
from .simulations import Simulations, finite_simulations


def simulate(
    prior: PyTree | ParameterSpace,
    simulator: Callable[..., PyTree],
    *,
    key: PRNGKey,
    num_simulations: int,
    batch_size: int = 1000,
    missing: bool = False,
    progress: bool = True,
) -> Simulations:
    """Draw parameters from the prior, and an observation for each from the simulator.

    Simulation i has the key `fold_in(key, i)`: it does not depend on `num_simulations`
    and `batch_size`.

    ```python
    def simulator(theta, *, key):  # one observation
        return theta["mean"] + theta["scale"] * jax.random.normal(key, (10,))


    prior = {"mean": dist.Normal(0.0, 1.0), "scale": dist.HalfNormal(1.0)}
    sims = simulate(prior, simulator, key=key, num_simulations=2_000)
    ```

    **Arguments:**

    - `prior`: a numpyro distribution, or a pytree of independent ones.
    - `simulator`: a JAX function `simulator(theta, *, key)` of one set of parameters,
        which has the structure of the prior. It returns an array or a tree of arrays.
        For any other Python function take `simulate_in_processes`.
    - `key`: of the parameters and the simulations.
    - `num_simulations`: number of pairs.
    - `batch_size`: simulations in one dispatch.
    - `missing`: whether NaN in an observation marks an entry that is not observed. By
        default such a simulation is left out.
    - `progress`: whether to show a progress bar on standard error.

    **Returns:** `Simulations`, on the host. Simulations that are not finite are counted
    and left out, with a warning.

    **Raises:** `ValueError` if no simulation is finite.
    """
    space = as_space(prior)
    check_key(key)
    check_count("num_simulations", num_simulations, "at least one simulation")
    check_count("batch_size", batch_size, "at least one simulation in a batch")
    size = min(batch_size, num_simulations)

    @jax.jit
    def batch(indices):
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)
        return jax.vmap(lambda key: one_simulation(space, simulator, key))(keys)

    parts: list[Any] = []
    begins = range(0, num_simulations, size)
    for begin in tqdm(begins, unit="batch", disable=not progress):
        indices = np.arange(begin, begin + size, dtype=np.uint32)
        parts.append(jax.tree.map(np.asarray, batch(indices)))
    theta, x = jax.tree.map(
        lambda *leaves: np.concatenate(leaves)[:num_simulations], *parts
    )
    none = np.zeros(num_simulations, bool)
    return finite_simulations(theta, x, missing=missing, failed=none, reasons=[])


def one_simulation(space: ParameterSpace, simulator: Callable, key: PRNGKey):
    """Return the parameters and the observation of one key."""
    prior_key, simulator_key = jax.random.split(key)
    theta = one_draw(space, prior_key)
    return theta, simulator(theta, key=simulator_key)


def one_draw(space: ParameterSpace, key: PRNGKey) -> PyTree:
    """Return one draw of the prior, without a leading axis."""
    draws = space.sample(key=key, num_samples=1)
    return jax.tree.map(lambda leaf: leaf[0], draws)
