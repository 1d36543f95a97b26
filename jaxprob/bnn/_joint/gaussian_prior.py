"""A Gaussian over all weights as the prior, such as the posterior of earlier data."""

import math
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from ..._checks import path_name
from ..._random.keys import check_key
from ..._types import PRNGKey
from ...tree._ravel import ravel
from ...tree._single import single
from .._weights.edge import Edge, bijection, constraint_of
from .._weights.random_leaves import is_random, mean_leaves
from .._weights.unconstrained import is_unconstrained
from .covariance import AbstractCovariance, DenseCovariance


class GaussianPrior(eqx.Module):
    r"""$w \sim \mathcal N(\mu, \Sigma)$ over all random leaves of a model.

    With `posterior.as_prior()` the posterior of earlier data is the prior of the next
    data, for any method: where the posterior is Gaussian, a stream of data sets gives
    the posterior of all of them.

    ```python
    prior = posterior.as_prior()
    next_joint = bnn.LogJoint(likelihood, prior, num_data=len(x))
    method = bnn.MAP(next_joint, optimizer)
    ```

    References: *Online structured Laplace approximations for overcoming catastrophic
    forgetting*, Ritter, Botev and Barber, 2018, https://arxiv.org/abs/1805.07810;
    *Variational continual learning*, Nguyen, Li, Bui and Turner, 2018,
    https://arxiv.org/abs/1710.10628.

    **Arguments:**

    - `mean`: a model, or its random leaves and `None` elsewhere. The next method has to
        have the same random leaves.
    - `covariance`: $\Sigma$ in the order of `jaxprob.tree.ravel`, a matrix or one of
        the forms that are derived from `AbstractCovariance`.

    **Raises:** `ValueError` when the covariance is not that of so many weights, or not
    positive definite.
    """

    paths: tuple[str, ...] = eqx.field(static=True)
    leaves: tuple[Any, ...]
    covariance: AbstractCovariance

    def __init__(
        self, mean: PyTree, covariance: AbstractCovariance | Float[Array, "dim dim"]
    ):
        found = dict(_leaves(mean_leaves(mean)))
        self.paths = tuple(found)
        self.leaves = tuple(found.values())
        dim = sum(jnp.size(_values(leaf)) for leaf in self.leaves)
        if not isinstance(covariance, AbstractCovariance):
            covariance = _from_matrix(covariance, dim)
        self.covariance = covariance
        given = jax.eval_shape(covariance.variance).shape
        if given != (dim,):
            raise ValueError(
                f"covariance is that of {given[0]} weights, and mean holds {dim}: give "
                "a matrix over all leaves of mean, in the order of jaxprob.tree.ravel"
            )

    def __call__(self, path: str, leaf: Any) -> dist.Distribution:
        """Return the marginal distribution of a leaf."""
        if path not in self.paths:
            raise self._other_leaves([path])
        index = self.paths.index(path)
        vector, unravel = ravel(self.leaves)
        scales = unravel(jnp.sqrt(self.covariance.variance()).astype(vector.dtype))
        node = self.leaves[index]
        mean, scale = _values(node), _values(scales[index])
        marginal = dist.Normal(mean, scale)
        if not is_unconstrained(node):
            return marginal
        return _Pushed(marginal, node.edge)

    @property
    def is_diagonal(self) -> bool:
        """True if the weights are independent: then the marginals are all there is."""
        return self.covariance.is_diagonal

    def mean_vector(self) -> Float[Array, " dim"]:
        r"""Return $\mu$ in the order of `jaxprob.tree.ravel`."""
        return ravel(self.leaves)[0]

    def log_prob(self, params: PyTree, *, temperature: float = 1.0) -> Float[Array, ""]:
        """Return the log-density of the random leaves, in nats.

        **Arguments:**

        - `params`, `temperature`: as in `bnn.log_prior`.

        **Raises:** `ValueError` for other leaves than those of the prior.
        """
        nodes = {p: n for p, n in _leaves(params) if not is_random(n)}
        if not nodes:
            return jnp.zeros(())
        self.check_leaves(nodes)
        volume = jnp.zeros(())
        coordinates = []
        for mean, node in zip(self.leaves, nodes.values(), strict=True):
            if is_unconstrained(mean):
                held = is_unconstrained(node)
                node = node if is_unconstrained(node) else mean.at(node)
                # A density of w has the inverse of the Jacobian; one of u that is
                # divided by T afterwards has T times it besides.
                factor = temperature - 1.0 if held else -1.0
                volume = volume + factor * node.log_volume()
            coordinates.append(single(_values(node)))
        mean = self.mean_vector()
        delta = ravel(coordinates)[0].astype(mean.dtype) - mean
        return self._gaussian(delta) + volume.astype(mean.dtype)

    def expected_log_prob(
        self, mean: Float[Array, " dim"], variance: Float[Array, " dim"]
    ) -> Float[Array, ""]:
        r"""Return $\mathbb E[\log p(w)]$ over independent Gaussian coordinates."""
        trace = jnp.sum(variance * self.covariance.precision_diagonal())
        return self._gaussian(mean - self.mean_vector()) - 0.5 * trace

    def draw(self, *, key: PRNGKey) -> dict[str, Array]:
        """Draw all leaves together, by path."""
        check_key(key)
        vector, unravel = ravel(self.leaves)
        drawn = unravel(vector + self.covariance.draw(key=key))
        values = [n.value() if is_unconstrained(n) else n for n in drawn]
        return dict(zip(self.paths, values, strict=True))

    def at_temperature(self, temperature: float) -> "GaussianPrior":
        r"""Return $p(w)^{1/T}$, normalised: the covariance is multiplied by T."""
        return eqx.tree_at(
            lambda p: p.covariance, self, self.covariance.scaled(temperature)
        )

    def around(self, params: PyTree) -> "GaussianPrior":
        """Return the Gaussian with another mean and the same covariance."""
        return GaussianPrior(params, self.covariance)

    @property
    def has_edges(self) -> bool:
        """True if it is over unconstrained coordinates of a leaf."""
        return any(map(is_unconstrained, self.leaves))

    def check_leaves(self, paths: Any) -> None:
        """Raise `ValueError` unless these are the leaves of the prior, in order."""
        found = tuple(paths)
        if found != self.paths:
            raise self._other_leaves(found)

    def _gaussian(self, delta: Float[Array, " dim"]) -> Float[Array, ""]:
        constant = delta.size * math.log(2 * math.pi)
        log_det, quadratic = self.covariance.log_det(), self.covariance.quadratic(delta)
        return -0.5 * (constant + log_det + quadratic)

    def _other_leaves(self, found):
        unknown = [path for path in found if path not in self.paths]
        if unknown:
            return ValueError(
                f"no prior for the leaf {unknown[0]}: this GaussianPrior is over "
                f"{_listing(self.paths)}. Choose the same random leaves as in the "
                "posterior that it was made of, random=... (or where=...)"
            )
        missing = [path for path in self.paths if path not in found]
        return ValueError(
            f"the prior correlates the leaf {(missing or self.paths)[0]} with others, "
            "and it is not among the random leaves here: choose all leaves of this "
            f"GaussianPrior, {_listing(self.paths)}"
        )


class _Pushed(dist.TransformedDistribution):
    """A Gaussian of unconstrained coordinates, with the support of their leaf."""

    pytree_aux_fields = ("edge",)

    def __init__(self, base: dist.Distribution, edge: Edge):
        self.edge = edge
        bijector = bijection(edge)
        super().__init__(base.to_event(bijector.domain.event_dim), bijector)

    @property
    def support(self):
        return constraint_of(self.edge)


def correlated_prior(prior: Any) -> GaussianPrior | None:
    """Return the prior if it correlates leaves, for methods that need independence."""
    if isinstance(prior, GaussianPrior) and not prior.is_diagonal:
        return prior
    return None


def _leaves(tree: PyTree) -> Iterator[tuple[str, Any]]:
    nodes = jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=lambda n: is_random(n) or is_unconstrained(n)
    )
    for path, node in nodes:
        held = node.coordinates if is_unconstrained(node) else node
        if is_random(held) or eqx.is_inexact_array(held):
            yield path_name(path), node


def _values(node: Any) -> Array:
    return node.coordinates if is_unconstrained(node) else node


def _from_matrix(matrix: Array, dim: int) -> DenseCovariance:
    matrix = jnp.asarray(matrix)
    if matrix.shape != (dim, dim):
        raise ValueError(
            f"covariance has shape {matrix.shape}, and mean holds {dim} weights: give "
            f"a matrix of shape {(dim, dim)}, in the order of jaxprob.tree.ravel"
        )
    root = jnp.linalg.cholesky(matrix)
    if not bool(jnp.all(jnp.isfinite(root))):
        raise ValueError(
            "covariance is not positive definite: add a small number to its diagonal"
        )
    return DenseCovariance(root)


def _listing(paths: tuple[str, ...]) -> str:
    return ", ".join(paths[:8]) + (", ..." if len(paths) > 8 else "")
