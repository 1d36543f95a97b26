"""Uniform mixture of posteriors of one kind, as one tree."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from ..._random.keys import check_key
from ..._types import Model, PRNGKey
from .._posterior.posterior import AbstractPosterior
from .stacked import take


class EnsemblePosterior(AbstractPosterior):
    """Uniform mixture of posteriors of one kind, such as the members of an ensemble.

    **Arguments:**

    - `stack`: one posterior whose arrays have a leading axis of members.
    - `num_members`: its length.
    """

    stack: AbstractPosterior
    num_members: int = eqx.field(static=True)

    def member(self, index: int | Integer[Array, ""]) -> AbstractPosterior:
        """Return the posterior of one member."""
        return take(self.stack, index)

    @property
    def linearized(self) -> bool:
        return self.stack.linearized

    def linearisation_point(self, *, key: PRNGKey) -> tuple[Model, Model]:
        """A draw and the mean of its member."""
        index_key, sample_key = jax.random.split(key)
        index = jax.random.randint(index_key, (), 0, self.num_members)
        return self.member(index).linearisation_point(key=sample_key)

    def factorised(self) -> "EnsemblePosterior":
        if type(self.stack).factorised is AbstractPosterior.factorised:
            return self  # nothing to compute, and no copy of all members
        each = eqx.filter_vmap(lambda member: member.factorised())(self.stack)
        return EnsemblePosterior(each, self.num_members)

    def sample(self, *, key: PRNGKey) -> Model:
        """Draw a member at random, then a model from it."""
        check_key(key)
        index_key, sample_key = jax.random.split(key)
        index = jax.random.randint(index_key, (), 0, self.num_members)
        return self.member(index).sample(key=sample_key)

    def mean(self) -> Model:
        """Return the average of all weights.

        Between members that found different modes there is no good model: average their
        predictions, as `predict` does.
        """
        means = eqx.filter_vmap(lambda i: self.member(i).mean())(
            jnp.arange(self.num_members)
        )
        return jax.tree.map(
            lambda a: jnp.mean(a, 0) if eqx.is_inexact_array(a) else _first(a), means
        )

    def log_prob(self, model: Model) -> Float[Array, ""]:
        terms = jax.vmap(lambda i: self.member(i).log_prob(model))(
            jnp.arange(self.num_members)
        )
        return jax.nn.logsumexp(terms) - jnp.log(float(self.num_members))

    @property
    def num_atoms(self) -> int | None:
        inner = self.member(0).num_atoms
        return None if inner is None else inner * self.num_members

    def atom(self, index: int | Integer[Array, ""]) -> Model:
        inner = self.member(0).num_atoms
        if inner is None:
            raise NotImplementedError(
                "the members have a density, so they have no finite support"
            )
        return self.member(index // inner).atom(index % inner)

    def atom_linearisation_point(
        self, index: int | Integer[Array, ""]
    ) -> tuple[Model, Model]:
        inner = self.member(0).num_atoms or 1
        return self.member(index // inner).atom_linearisation_point(index % inner)


def _first(leaf):
    return leaf[0] if eqx.is_array(leaf) else leaf
