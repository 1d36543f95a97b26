"""Draws of Markov chains as a posterior."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Integer, PyTree

from ..._random.keys import check_key
from ..._types import Model, PRNGKey
from .posterior import AbstractPosterior


class DrawsPosterior(AbstractPosterior):
    """Finitely many models with equal weights, from one or more chains.

    `predict` uses each of them once. `diagnose` says whether they can be trusted.

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

    def sample(self, *, key: PRNGKey) -> Model:
        check_key(key)
        return self.atom(jax.random.randint(key, (), 0, self.num_atoms))

    def mean(self) -> Model:
        """The average of the weights, of use where the posterior has one mode."""
        params = jax.tree.map(_mean, self.draws)
        return eqx.combine(params, self.rest)


def _mean(draws):
    if not jnp.issubdtype(draws.dtype, jnp.inexact):
        return draws[0, 0]  # a counter of running statistics
    return jnp.mean(draws, (0, 1))
