"""Parameters of a simulator, their prior, and their vectors of real numbers."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree
from numpyro.distributions import Distribution

from ..._random.keys import check_key
from ..._types import PRNGKey
from ...tree._promotion import lenient_promotion
from .bijections import AbstractBijection, bijection_of


class ParameterSpace(eqx.Module):
    r"""The parameters $\theta$ of a simulator and their real coordinates u.

    Each parameter goes through a bijection from the real numbers onto the support of
    its prior, so that a sample of u is never outside: numpyro's `biject_to`, and for
    intervals the distribution function of the standard normal.

    ```python
    space = ParameterSpace({"rate": dist.LogNormal(0.0, 1.0), "p": dist.Beta(2.0, 2.0)})
    theta = space.sample(key=key, num_samples=1000)  # {"rate": (1000,), "p": (1000,)}
    u = space.to_vectors(theta)  # (1000, 2)
    ```

    **Arguments:**

    - `prior`: a numpyro distribution, or a pytree of independent ones; the parameters
        have its structure.

    **Raises:** `TypeError` for a prior that is discrete, cannot be sampled, or is no
    distribution.
    """

    prior: PyTree

    def __init__(self, prior: PyTree):
        leaves = jax.tree.leaves(prior, is_leaf=_is_distribution)
        if not leaves:
            raise TypeError("the prior has no distribution: give at least one")
        for leaf in leaves:
            _check_prior(leaf)
            bijection_of(leaf)
        self.prior = prior

    @property
    def priors(self) -> list[Distribution]:
        """The distributions, in the order of the coordinates."""
        return jax.tree.leaves(self.prior, is_leaf=_is_distribution)

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return sum(math.prod(shape) for shape in self._shapes)

    @property
    def structure(self) -> Any:
        """The tree structure of the prior and of its parameters."""
        return jax.tree.structure(self.prior, is_leaf=_is_distribution)

    @property
    def _bijections(self) -> list[AbstractBijection]:
        return [bijection_of(prior) for prior in self.priors]

    @property
    def _shapes(self) -> list[tuple[int, ...]]:
        pairs = zip(self._bijections, self.priors, strict=True)
        return [
            jax.eval_shape(bijection.coordinates, _example(prior)).shape
            for bijection, prior in pairs
        ]

    def sample(self, *, key: PRNGKey, num_samples: int) -> PyTree:
        """Return draws of the prior, with a leading axis."""
        check_key(key)
        keys = jax.random.split(key, len(self.priors))
        with lenient_promotion():
            draws = [
                _single(prior.sample(key, (num_samples,)))
                for prior, key in zip(self.priors, keys, strict=True)
            ]
        return jax.tree.unflatten(self.structure, draws)

    def log_prob(self, theta: PyTree) -> Float[Array, " num"]:
        """Return the prior's log-density, minus infinity outside of its support.

        **Arguments:**

        - `theta`: parameters with a leading axis.
        """
        leaves = self.leaves(theta)
        inside = self.contains(theta)

        def one(prior, value):
            value = jnp.where(_along(inside, value), value, _example(prior)[None])
            terms = prior.log_prob(value)
            return jnp.sum(terms.reshape(len(value), -1), axis=1)

        with lenient_promotion():
            terms = [one(p, v) for p, v in zip(self.priors, leaves, strict=True)]
        return jnp.where(inside, sum(terms[1:], start=terms[0]), -jnp.inf)

    def contains(self, theta: PyTree) -> Bool[Array, " num"]:
        """Return which rows are inside the support of the prior."""

        def one(prior, value):
            inside = jnp.asarray(prior.support(value))
            return jnp.all(inside.reshape(len(value), -1), axis=1)

        leaves = self.leaves(theta)
        with lenient_promotion():
            each = [one(p, v) for p, v in zip(self.priors, leaves, strict=True)]
        return jnp.all(jnp.stack(each), axis=0)

    def to_vectors(self, theta: PyTree) -> Float[Array, "num size"]:
        """Return the coordinates of parameters with a leading axis."""
        leaves = self.leaves(theta)
        parts = [
            jax.vmap(bijection.coordinates)(value).reshape(len(value), -1)
            for bijection, value in zip(self._bijections, leaves, strict=True)
        ]
        return jnp.concatenate(parts, axis=1)

    def from_vectors(self, u: Float[Array, "num size"]) -> PyTree:
        """Return the parameters of coordinates with a leading axis."""
        leaves = [
            jax.vmap(bijection.value)(part)
            for bijection, part in zip(self._bijections, self._parts(u), strict=True)
        ]
        return jax.tree.unflatten(self.structure, leaves)

    def log_volume(self, u: Float[Array, "num size"]) -> Float[Array, " num"]:
        r"""Return $\log |\partial \theta/\partial u|$ of each row."""
        terms = [
            jax.vmap(bijection.log_volume)(part)
            for bijection, part in zip(self._bijections, self._parts(u), strict=True)
        ]
        return sum(terms[1:], start=terms[0])

    def leaves(self, theta: PyTree) -> list[Float[Array, "num ..."]]:
        """Return the arrays of parameters, checked against the prior.

        **Raises:** `ValueError` for another structure, shape or number of rows.
        """
        leaves, structure = jax.tree.flatten(theta)
        if structure != self.structure:
            raise ValueError(
                f"theta has the structure {structure} and the prior {self.structure}: "
                "give the parameters as the prior is given"
            )
        leaves = [_single(leaf) for leaf in leaves]
        rows = {leaf.shape[:1] for leaf in leaves}
        for leaf, prior in zip(leaves, self.priors, strict=True):
            shape = _shape(prior)
            if leaf.shape[1:] != shape or len(rows) > 1 or not leaf.ndim:
                raise ValueError(
                    f"theta has a leaf of shape {leaf.shape} where the prior "
                    f"{type(prior).__name__} has parameters of shape {shape}: give "
                    "all leaves one leading axis, also for one row (theta[None])"
                )
        return leaves

    def _parts(self, u):
        begin = 0
        for shape in self._shapes:
            end = begin + math.prod(shape)
            yield u[:, begin:end].reshape(len(u), *shape)
            begin = end


def as_space(prior: Any) -> ParameterSpace:
    """Return the parameter space of a prior, or the one that is given."""
    return prior if isinstance(prior, ParameterSpace) else ParameterSpace(prior)


def _is_distribution(node):
    return isinstance(node, Distribution)


def _check_prior(prior):
    if not _is_distribution(prior):
        raise TypeError(
            f"the prior has a {type(prior).__name__} where a numpyro distribution is "
            "needed, e.g. numpyro.distributions.Uniform(0.0, 1.0)"
        )
    try:
        with lenient_promotion():
            jax.eval_shape(lambda key: prior.sample(key), jax.random.key(0))
    except NotImplementedError:
        raise TypeError(
            f"the prior {type(prior).__name__} cannot be sampled, which simulations "
            "need: give a proper prior with a sampler"
        ) from None


def _shape(prior):
    return (*prior.batch_shape, *prior.event_shape)


def _example(prior):
    """Return one value inside the support."""
    with lenient_promotion():
        return _single(prior.sample(jax.random.key(0)))


def _single(leaf):
    leaf = jnp.asarray(leaf)
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf if floating else leaf.astype(jnp.result_type(float))


def _along(flags, value):
    return flags.reshape(-1, *[1] * (value.ndim - 1))
