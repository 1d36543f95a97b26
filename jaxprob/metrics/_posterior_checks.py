"""Checks of a posterior by simulation, for any function that draws from it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree


def draws_for_each(
    draw: Callable[[Array, PyTree], PyTree], x: PyTree, *, key: Array
) -> Float[np.ndarray, "draws sims params"]:
    """Return draws of a posterior given each of several observations.

    ```python
    def draw(key, x):  # of any library
        return posterior.sample(x, key=key, num_samples=99)


    ranks = posterior_ranks(truth, draws_for_each(draw, x, key=key))
    ```

    **Arguments:**

    - `draw`: `draw(key, x)` of one observation; it returns a tree of arrays with a
        leading axis of draws.
    - `x`: observations, a tree of arrays with a leading axis.
    - `key`: row i has `fold_in(key, i)`.

    **Returns:** the leaves of the draws side by side, as `posterior_ranks`, `tarp` and
    `local_c2st` take them. `parameter_matrix` makes the same of a tree of parameters.
    """
    rows = []
    for i in range(len(jax.tree.leaves(x)[0])):
        row = jax.tree.map(lambda leaf, i=i: leaf[i], x)
        rows.append(parameter_matrix(draw(jax.random.fold_in(key, i), row)))
    if len({row.shape for row in rows}) > 1:
        shapes = sorted({row.shape for row in rows})
        raise ValueError(
            f"draw(key, x) returns draws of the shapes {shapes}: return the same "
            "number of draws for each observation"
        )
    return np.stack(rows, axis=1)


def parameter_matrix(theta: PyTree) -> Float[np.ndarray, "rows params"]:
    """Return the leaves of a tree of parameters side by side, in the tree's order."""
    leaves = [np.asarray(leaf, float) for leaf in jax.tree.leaves(theta)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def density_levels(
    log_prob_of_truth: Float[Array | np.ndarray, " sims"],
    log_prob_of_draws: Float[Array | np.ndarray, "draws sims"],
) -> Float[np.ndarray, " sims"]:
    r"""Return the credibility level at which highest-density regions reach the truth.

    It is the share of draws whose density is higher than the truth's. For the exact
    posterior it is uniform: `plot.coverage_of_levels` draws its distribution function,
    which is the expected coverage of highest-density regions.

    Reference: *A Trust Crisis in Simulation-Based Inference? Your Posterior
    Approximations Can Be Unfaithful*, Hermans et al., 2022,
    https://arxiv.org/abs/2110.06581, section 2.

    **Arguments:**

    - `log_prob_of_truth`, `log_prob_of_draws`: log-densities of one posterior, each
        given the observation of its simulation.
    """
    truth, draws = np.asarray(log_prob_of_truth), np.asarray(log_prob_of_draws)
    if truth.ndim != 1 or draws.ndim != 2 or draws.shape[1:] != truth.shape:
        raise ValueError(
            f"log_prob_of_truth has shape {truth.shape} and log_prob_of_draws "
            f"{draws.shape}: give (sims,) and (draws, sims)"
        )
    if np.isnan(truth).any() or np.isnan(draws).any():
        raise ValueError("a log-density is NaN: leave that simulation out")
    return np.mean(draws > truth[None], axis=0)


class PredictiveCheck(NamedTuple):
    """Result of `predictive_check`.

    **Fields:**

    - `entries`: a two-sided p-value of each entry of the observation.
    - `p_value`: of all of them together.
    """

    entries: Float[np.ndarray, " features"]
    p_value: float


def predictive_check(
    observed: Float[Array | np.ndarray, " entries"],
    simulated: Float[Array | np.ndarray, "draws features"],
) -> PredictiveCheck:
    r"""Compare an observation with simulations of the posterior's draws.

    A small p-value means that the simulator, with the parameters that were inferred,
    does not make such observations: the model or the posterior is wrong. The data are
    used twice, so that p-values of a correct model are nearer to 1/2 than uniform.

    Reference: *Posterior Predictive Assessment of Model Fitness via Realized
    Discrepancies*, Gelman, Meng and Stern, 1996.

    **Arguments:**

    - `observed`: the observation.
    - `simulated`: one simulation for each of many draws of the posterior given it.

    **Returns:** p-values by entry, from ranks, and one by the Mahalanobis distance from
    the first half of the simulations, among the distances of the second half.
    """
    observed, simulated = np.asarray(observed, float), np.asarray(simulated, float)
    if (
        observed.ndim != 1
        or simulated.ndim != 2
        or simulated.shape[1:] != (observed.shape)
    ):
        raise ValueError(
            f"observed has shape {observed.shape} and simulated {simulated.shape}: "
            "give (features,) and (draws, features)"
        )
    if len(simulated) < 20:
        raise ValueError(f"{len(simulated)} simulations: give at least 20")
    below = np.sum(simulated <= observed, axis=0)
    above = np.sum(simulated >= observed, axis=0)
    tail = (1 + np.minimum(below, above)) / (1 + len(simulated))
    entries = np.minimum(1.0, 2.0 * tail)
    first, second = np.array_split(simulated, 2)
    mean = first.mean(axis=0)
    scale = np.where(first.std(axis=0) > 0.0, first.std(axis=0), 1.0)
    # Shrunk to its diagonal: there may be more entries than simulations.
    covariance = 0.9 * np.atleast_2d(np.cov(((first - mean) / scale).T))
    precision = np.linalg.inv(covariance + 0.1 * np.eye(len(observed)))

    def distance(rows):
        z = (rows - mean) / scale
        return np.einsum("...i,ij,...j", z, precision, z)

    as_far = np.sum(distance(second) >= distance(observed))
    return PredictiveCheck(entries, float((1 + as_far) / (1 + len(second))))
