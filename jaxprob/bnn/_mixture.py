"""A mixture of posteriors, of whatever kinds."""

from collections.abc import Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from .._types import Model, PRNGKey
from ._posterior import AbstractPosterior, part_expansion


class Mixture(AbstractPosterior):
    r"""Posteriors with equal weights, $q(w) = \frac 1 M \sum_m q_m(w)$.

    `Mixture([swag_1, swag_2])` is multi-SWAG; Laplace approximations round several
    modes, or chains of several runs, are joined the same way.

    Reference: *Bayesian deep learning and a probabilistic perspective of
    generalization*, Wilson and Izmailov, 2020, https://arxiv.org/abs/2002.08791.

    **Arguments:**

    - `components`: posteriors over models of one class and one set of shapes.
    """

    components: tuple[AbstractPosterior, ...]

    def __init__(self, components: Iterable[AbstractPosterior]):
        components = tuple(components)
        if not components:
            raise ValueError("a mixture needs at least one component")
        for index, component in enumerate(components):
            if not isinstance(component, AbstractPosterior):
                raise TypeError(
                    f"component {index} is a {type(component).__name__}: a mixture is "
                    "of posteriors, and of one model PointPosterior(model)"
                )
        shapes = [eqx.filter_eval_shape(c.mean) for c in components]
        for index, shape in enumerate(shapes[1:], start=1):
            if not eqx.tree_equal(shape, shapes[0]):
                raise ValueError(
                    f"components 0 and {index} are over different models: their "
                    "classes, shapes or dtypes differ"
                )
        self.components = components

    def sample(self, key: PRNGKey) -> Model:
        index_key, sample_key = jax.random.split(key)
        index = jax.random.randint(index_key, (), 0, len(self.components))
        return self._switch(index, lambda c: c.sample(sample_key))

    def expansion(self, key: PRNGKey) -> tuple[Model, Model]:
        """A draw and the mean of its component; where components differ in whether
        they are linearised, those that are not stand at the draw itself.
        """
        index_key, sample_key = jax.random.split(key)
        index = jax.random.randint(index_key, (), 0, len(self.components))
        return self._switch(index, lambda c: part_expansion(self, c, sample_key))

    def prepared(self) -> "Mixture":
        return Mixture([c.prepared() for c in self.components])

    @property
    def linearized(self) -> bool:
        """Where any component asks for it."""
        return any(c.linearized for c in self.components)

    def mean(self) -> Model:
        """The average of the components' means."""
        means = [c.mean() for c in self.components]
        arrays = [eqx.filter(m, eqx.is_inexact_array) for m in means]
        mean = jax.tree.map(lambda *a: sum(a) / len(a), *arrays)
        return eqx.combine(mean, means[0])

    def log_prob(self, model: Model) -> Float[Array, ""]:
        terms = jnp.stack([c.log_prob(model) for c in self.components])
        return jax.nn.logsumexp(terms) - jnp.log(float(len(self.components)))

    @property
    def num_atoms(self) -> int | None:
        """Finite if all components have equally many; else their weights would not be
        equal.
        """
        numbers = {c.num_atoms for c in self.components}
        if len(numbers) > 1 or None in numbers:
            return None
        return sum(c.num_atoms or 0 for c in self.components)

    def atom(self, index: int | Integer[Array, ""]) -> Model:
        if self.num_atoms is None:
            raise NotImplementedError("this mixture has no finite support")
        inner = self.num_atoms // len(self.components)
        return self._switch(
            jnp.asarray(index // inner), lambda c: c.atom(index % inner)
        )

    def _switch(self, index, function):
        rest = eqx.filter(
            eqx.filter_eval_shape(function, self.components[0]),
            lambda leaf: not isinstance(leaf, jax.ShapeDtypeStruct),
        )
        branches = [
            lambda c=c: eqx.filter(function(c), eqx.is_array) for c in self.components
        ]
        return eqx.combine(jax.lax.switch(index, branches), rest)
