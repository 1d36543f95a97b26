"""A mixture of posteriors."""

from collections.abc import Iterable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Integer

from ..._random.keys import check_key
from ..._types import Model, PRNGKey
from .._joint.likelihood import Likelihood
from .._weights.scale import is_traced
from .posterior import (
    AbstractPosterior,
    first_known,
    part_atom_linearisation_point,
    part_linearisation_point,
)


class Mixture(AbstractPosterior):
    r"""Several posteriors as one, $q(w) = \sum_m \pi_m q_m(w)$.

    `Mixture([swag_1, swag_2])` is multi-SWAG. Laplace approximations around several
    modes, or chains of several runs, are combined the same way. The evidence of each
    mode is its weight:

    ```python
    evidence = jnp.stack([laplace.log_evidence() for laplace in modes])
    posterior = Mixture(modes, weights=jax.nn.softmax(evidence))
    ```

    References: *Bayesian deep learning and a probabilistic perspective of
    generalization*, Wilson and Izmailov, 2020, https://arxiv.org/abs/2002.08791;
    *Mixtures of Laplace approximations for improved post-hoc uncertainty in deep
    learning*, Eschenhagen, Daxberger, Hennig and Kristiadi, 2021,
    https://arxiv.org/abs/2111.03577.

    **Arguments:**

    - `components`: posteriors over models of one class and one set of shapes.
    - `weights`: $\pi$, positive numbers that sum to one; equal by default. With equal
        weights `predict` uses each of finitely many models once; with others it draws
        models.

    **Raises:** `TypeError` or `ValueError` naming the component or the weight.
    """

    components: tuple[AbstractPosterior, ...]
    weights: Float[Array, " components"] | None

    def __init__(
        self,
        components: Iterable[AbstractPosterior],
        *,
        weights: ArrayLike | Sequence[float] | None = None,
    ):
        components = tuple(components)
        if not components:
            raise ValueError("a mixture needs at least one component")
        for index, component in enumerate(components):
            if not isinstance(component, AbstractPosterior):
                raise TypeError(
                    f"component {index} is a {type(component).__name__}: give "
                    "posteriors, and for one model PointPosterior(model)"
                )
        shapes = [eqx.filter_eval_shape(c.mean) for c in components]
        for index, shape in enumerate(shapes[1:], start=1):
            if not eqx.tree_equal(shape, shapes[0]):
                raise ValueError(
                    f"components 0 and {index} are over different models: their "
                    "classes, shapes or dtypes differ"
                )
        self.components = components
        self.weights = None if weights is None else _checked(weights, len(components))

    def _index(self, key):
        """Index of a component, drawn with the weights."""
        if self.weights is None:
            return jax.random.randint(key, (), 0, len(self.components))
        return jax.random.categorical(key, jnp.log(self.weights))

    def sample(self, *, key: PRNGKey) -> Model:
        check_key(key)
        index_key, sample_key = jax.random.split(key)
        index = self._index(index_key)
        return self._switch(index, lambda c: c.sample(key=sample_key))

    def linearisation_point(self, *, key: PRNGKey) -> tuple[Model, Model]:
        """Return a draw and the mean of its component.

        If only some components are linearised, the others are linearised at the draw
        itself, which changes nothing.
        """
        index_key, sample_key = jax.random.split(key)
        index = self._index(index_key)
        return self._switch(
            index, lambda c: part_linearisation_point(self, c, key=sample_key)
        )

    def factorised(self) -> "Mixture":
        factorised = [c.factorised() for c in self.components]
        return Mixture(factorised, weights=self.weights)

    @property
    def linearized(self) -> bool:
        """True if any component is linearised by default."""
        return any(c.linearized for c in self.components)

    @property
    def output_likelihood(self) -> Likelihood | None:
        return first_known(c.output_likelihood for c in self.components)

    def mean(self) -> Model:
        """Return the weighted average of the components' means."""
        means = [c.mean() for c in self.components]
        arrays = [eqx.filter(m, eqx.is_inexact_array) for m in means]
        mean = jax.tree.map(self._average, *arrays)
        return eqx.combine(mean, means[0])

    def _average(self, *arrays):
        if self.weights is None:
            return sum(arrays) / len(arrays)
        weights = self.weights.astype(arrays[0].dtype)
        return jnp.tensordot(weights, jnp.stack(arrays), 1)

    def log_prob(self, model: Model) -> Float[Array, ""]:
        terms = jnp.stack([c.log_prob(model) for c in self.components])
        if self.weights is None:
            return jax.nn.logsumexp(terms) - jnp.log(float(len(self.components)))
        return jax.nn.logsumexp(terms, b=self.weights.astype(terms.dtype))

    @property
    def num_atoms(self) -> int | None:
        """Number of models, if all components have equally many and equal weights.

        Otherwise the weights of the models would differ, and it is `None`.
        """
        numbers = {c.num_atoms for c in self.components}
        if len(numbers) > 1 or None in numbers or self.weights is not None:
            return None
        return sum(c.num_atoms or 0 for c in self.components)

    def atom(self, index: int | Integer[Array, ""]) -> Model:
        inner = self._atoms_of_each
        return self._switch(
            jnp.asarray(index // inner), lambda c: c.atom(index % inner)
        )

    def atom_linearisation_point(
        self, index: int | Integer[Array, ""]
    ) -> tuple[Model, Model]:
        inner = self._atoms_of_each
        return self._switch(
            jnp.asarray(index // inner),
            lambda c: part_atom_linearisation_point(self, c, index % inner),
        )

    @property
    def _atoms_of_each(self):
        if self.num_atoms is None:
            raise NotImplementedError(
                "this mixture has no finite support: draw with sample(key=key)"
            )
        return self.num_atoms // len(self.components)

    def _switch(self, index, function):
        rest = eqx.filter(
            eqx.filter_eval_shape(function, self.components[0]),
            lambda leaf: not isinstance(leaf, jax.ShapeDtypeStruct),
        )
        branches = [
            lambda c=c: eqx.filter(function(c), eqx.is_array) for c in self.components
        ]
        return eqx.combine(jax.lax.switch(index, branches), rest)


def _checked(weights, num):
    weights = jnp.asarray(weights)
    if weights.shape != (num,) or not jnp.issubdtype(weights.dtype, jnp.floating):
        raise ValueError(
            f"weights is {weights.dtype} of shape {weights.shape}: give one positive "
            f"number for each of the {num} components"
        )
    if is_traced(weights):
        return weights
    values = np.asarray(weights, np.float64)
    if not (values > 0).all():
        bad = int(np.argmin(values > 0))
        raise ValueError(
            f"weights[{bad}] = {values[bad]}: all have to be positive. Leave out a "
            "component of weight zero"
        )
    if not np.isclose(values.sum(), 1.0, atol=1e-4):
        raise ValueError(
            f"weights sum to {values.sum():.6g} and not to one: write weights / "
            "weights.sum(), or jax.nn.softmax(log_evidence)"
        )
    return weights
