"""Independent Gaussians as a posterior."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._random.keys import check_key
from ..._types import Model, PRNGKey, Where
from ...tree._ravel import ravel
from .._joint.covariance import DiagonalCovariance
from .._joint.gaussian_prior import GaussianPrior
from .._joint.kl import kl
from .._joint.prior import Prior
from .._weights.random_leaves import is_random, mean_leaves, sample_leaves
from .._weights.randomise import randomise
from .._weights.unconstrained import (
    constrained,
    coordinates_of,
    is_unconstrained,
    log_volume,
)
from .posterior import AbstractPosterior


class MeanFieldPosterior(AbstractPosterior):
    r"""Independent Gaussians, $q(w) = \prod_i \mathcal N(w_i; \mu_i, \sigma_i^2)$.

    `bayesianize` makes one from any model.

    **Arguments:**

    - `tree`: the model with `Gaussian` leaves where arrays are random.
    """

    tree: Model

    def sample(self, *, key: PRNGKey) -> Model:
        check_key(key)
        return constrained(sample_leaves(self.tree, key=key))

    def mean(self) -> Model:
        return constrained(mean_leaves(self.tree))

    def log_prob(self, model: Model) -> Float[Array, ""]:
        if jax.tree.structure(model) != jax.tree.structure(self.mean()):
            raise ValueError(
                f"model is a {type(model).__name__} whose classes, settings or number "
                "of leaves differ from those of the posterior's models: give a model "
                "such as posterior.sample(key=key) returns"
            )
        values = coordinates_of(mean_leaves(self.tree), model)
        return self.log_density(values) - log_volume(values)

    def log_density(self, values: PyTree) -> Float[Array, ""]:
        """Return the log-density of coordinates, a tree as `sample_leaves` returns."""
        terms = jax.tree.map(
            lambda node, value: node.log_prob(value) if is_random(node) else None,
            self.tree,
            values,
            is_leaf=is_random,
        )
        return jnp.asarray(sum(jax.tree.leaves(terms), start=0.0))

    def as_prior(self, *, temperature: float | None = None) -> GaussianPrior:
        nodes = _random_nodes(self.tree)
        scales = [
            node.single().scale for node in jax.tree.leaves(nodes, is_leaf=is_random)
        ]
        scale = ravel(scales)[0] / (temperature or 1.0) ** 0.5
        return GaussianPrior(nodes, DiagonalCovariance(scale))

    def kl(self, prior: Prior, *, key: PRNGKey | None = None) -> Float[Array, ""]:
        """Return the KL divergence from the prior in nats: `bnn.kl` of the tree."""
        return kl(self.tree, prior, key=key)


def _random_nodes(tree):
    """The random leaves, in whatever coordinates, and `None` elsewhere."""

    def one(node):
        held = node.coordinates if is_unconstrained(node) else node
        return node if is_random(held) else None

    return jax.tree.map(
        one, tree, is_leaf=lambda n: is_random(n) or is_unconstrained(n)
    )


def bayesianize(
    model: Model,
    where: Where | None = None,
    *,
    scale: float | Callable[[str, Array], Any] = 0.1,
) -> MeanFieldPosterior:
    r"""Replace each chosen array of any Equinox module by a Gaussian.

    Means start at the current weights, so a trained model is a warm start:
    $w \sim \mathcal N(w_0, \sigma_0^2)$ with $\sigma_0$ = `scale` over the square root
    of the fan-in, which disturbs the outputs of each layer by about `scale`.

    Reference for the start at trained weights: *Specifying weight priors in Bayesian
    deep neural networks with empirical Bayes*, Krishnan, Subedar and Tickoo, 2020.

    ```python
    posterior = bayesianize(eqx.nn.GRUCell(3, 8, key=key))
    cell = posterior.sample(key=key)            # an eqx.nn.GRUCell
    ```

    **Arguments:**

    - `model`: any Equinox module, or any pytree. Random leaves that it holds are kept.
    - `where`: which leaves (see `jaxprob.tree`); by default all but the parameters of
        normalisation layers and of `LearnedNoise`.
    - `scale`: initial standard deviation, relative to one over the square root of the
        fan-in; or a function `(path, leaf) -> standard deviation`, whose result is used
        unchanged.

    **Returns:** a posterior; its `sample(key=key)` is a model of the same class.

    **Raises:** `ValueError` when nothing is chosen or a scale is not positive,
    `TypeError` for a complex leaf.
    """
    return MeanFieldPosterior(randomise(model, where, scale=scale))
