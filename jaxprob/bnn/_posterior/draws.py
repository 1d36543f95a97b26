"""Posterior of the draws of Markov chains."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Integer, PyTree, Shaped

from ..._random.keys import check_key
from ..._types import Model, PRNGKey
from .._weights.unconstrained import constrained
from .posterior import AbstractPosterior


class DrawsPosterior(AbstractPosterior):
    """Finitely many models with equal weights, from one or more chains.

    `predict` uses each of them once. `diagnose` checks whether chains have mixed.

    **Arguments:**

    - `draws`: the random leaves, `None` elsewhere, with two leading axes: chains and
        draws.
    - `rest`: all other leaves.
    - `sample_stats`: statistics of the transition that ended in each draw, by name.
        `NUTS` and `HMC` have `"log_density"`, `"energy"`, `"acceptance"`,
        `"divergent"` (1 or 0), `"step_size"` and `"num_leapfrog"`, `NUTS` also
        `"tree_depth"`; the log density is that of `LogJoint`, in nats.
    """

    draws: PyTree
    rest: PyTree
    sample_stats: dict[str, Shaped[Array, "chains draws"]] = eqx.field(
        default_factory=dict
    )

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
        """Return a draw: draw i of chain c has the index `c * draws + i`."""
        _, draws = self.shape
        chain, draw = index // draws, index % draws
        params = jax.tree.map(lambda a: a[chain, draw], self.draws)
        return constrained(eqx.combine(params, self.rest))

    def sample(self, *, key: PRNGKey) -> Model:
        check_key(key)
        return self.atom(jax.random.randint(key, (), 0, self.num_atoms))

    def mean(self) -> Model:
        """Return the average of the weights, meaningful for a posterior of one mode."""
        params = jax.tree.map(_mean, self.draws)
        return constrained(eqx.combine(params, self.rest))


def _mean(draws):
    if not jnp.issubdtype(draws.dtype, jnp.inexact):
        return draws[0, 0]  # a counter of running statistics, which has no mean
    return jnp.mean(draws, (0, 1))
