"""Draws of Markov chains as a posterior, and whether they can be trusted."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, PyTree

from .._types import Model, PRNGKey
from ._posterior import AbstractPosterior


class DrawsPosterior(AbstractPosterior):
    """Finitely many models with equal weights, from one or more chains.

    `predict` uses each of them once. `rhat` and `ess` take its `draws` leaf by leaf for
    weights, and `predictive.outputs` for functions.

    **Arguments:**

    - `draws`: the random leaves, `None` elsewhere, with two leading axes: chains and
        draws.
    - `rest`: all other leaves.
    """

    draws: PyTree
    rest: PyTree

    @property
    def shape(self) -> tuple[int, int]:
        """(chains, draws of each)."""
        leaf = jax.tree.leaves(self.draws)[0]
        return leaf.shape[0], leaf.shape[1]

    @property
    def num_atoms(self) -> int:
        chains, draws = self.shape
        return chains * draws

    def atom(self, index: int | Integer[Array, ""]) -> Model:
        """Draw i of chain c has the number `c * draws + i`."""
        _, draws = self.shape
        chain, draw = index // draws, index % draws
        params = jax.tree.map(lambda a: a[chain, draw], self.draws)
        return eqx.combine(params, self.rest)

    def sample(self, key: PRNGKey) -> Model:
        return self.atom(jax.random.randint(key, (), 0, self.num_atoms))

    def mean(self) -> Model:
        """The average of the weights, of use where the posterior has one mode."""
        params = jax.tree.map(lambda a: jnp.mean(a, (0, 1)), self.draws)
        return eqx.combine(params, self.rest)


def rhat(values: Any) -> Float[np.ndarray, "*shape"]:
    r"""Split $\hat R$: how much chains differ, where 1 is not at all.

    Weights of a network have symmetries that chains need not explore, so look at what
    the network computes:

    ```python
    outputs = predict(posterior, likelihood, x, key=key).outputs     # rows, draws
    rhat(outputs.T.reshape(*posterior.shape, -1)).max()              # below 1.01
    ```

    Reference: *Bayesian data analysis*, Gelman et al., third edition, 2013, 11.4.

    **Arguments:**

    - `values`: chains and draws are the two leading axes.
    """
    from numpyro.diagnostics import split_gelman_rubin

    return np.asarray(split_gelman_rubin(np.asarray(values)))


def ess(values: Any) -> Float[np.ndarray, "*shape"]:
    """Effective sample size: independent draws that would estimate the mean as well.

    Reference: *Bayesian data analysis*, Gelman et al., third edition, 2013, 11.5.

    **Arguments:**

    - `values`: chains and draws are the two leading axes.
    """
    from numpyro.diagnostics import effective_sample_size

    return np.asarray(effective_sample_size(np.asarray(values)))
