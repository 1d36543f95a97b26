"""Priors: one numpyro distribution for each leaf of a model."""

import contextlib
import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from ... import tree as trees
from ..._checks import path_name
from ..._random.keys import leaf_keys
from ..._types import Model, PRNGKey, Where
from ...tree._single import single
from .._weights.initial_scale import fan_in
from .._weights.random_leaves import is_random, mean_leaves
from .._weights.scale import is_traced, positive

Prior: TypeAlias = dist.Distribution | Callable[[str, Array], dist.Distribution]
"""One distribution for all leaves, or a function `(path, leaf) -> distribution`."""


class IsotropicNormal(eqx.Module):
    r"""The same Gaussian for every weight, $w \sim \mathcal N(0, s^2)$.

    The variance of the function then grows with the width; see `FanInNormal`.

    **Arguments:**

    - `scale`: $s > 0$; an array leaf, so that evidence can tune it.
    """

    scale: Float[Array, ""]

    def __init__(self, scale: float | Float[Array, ""] = 1.0):
        self.scale = positive("scale", scale)

    def __call__(self, path: str, leaf: Any) -> dist.Distribution:
        return dist.Normal(0.0, self.scale)


class FanInNormal(eqx.Module):
    r"""Gaussians whose layers pass the variance on, $w \sim \mathcal N(0, s^2 / n)$.

    $n$ is the fan-in: the product of all axes but the first, which is how Equinox lays
    out the weights of Linear and Conv, and 1 for a bias. The prior over functions then
    has a limit as the width grows. Where one array holds the weights of several layers,
    as for a scan over them, its first axis is that of layers and n is too large: give
    that leaf an `IsotropicNormal` of its own, by `PriorByPath`.

    Reference: *Priors for infinite networks*, Neal, 1996.

    **Arguments:**

    - `scale`: $s > 0$; an array leaf, so that evidence can tune it.
    """

    scale: Float[Array, ""]

    def __init__(self, scale: float | Float[Array, ""] = 1.0):
        self.scale = positive("scale", scale)

    def __call__(self, path: str, leaf: Any) -> dist.Distribution:
        return dist.Normal(0.0, self.scale / math.sqrt(fan_in(leaf)))


class ScaleMixtureNormal(eqx.Module):
    r"""A wide and a narrow Gaussian, $w \sim \pi \mathcal N(0, s_1^2) + (1 - \pi)
    \mathcal N(0, s_2^2)$: most weights near zero, some far from it.

    It has no closed-form divergence from a Gaussian, so `MeanFieldVI` estimates it, and
    is not concave, so `Laplace` refuses it where the narrow part ends.

    Reference: *Weight uncertainty in neural networks*, Blundell, Cornebise, Kavukcuoglu
    and Wierstra, 2015, whose ranges the defaults are from.

    **Arguments:**

    - `share`: $\pi$ in (0, 1), of the wide part.
    - `wide`, `narrow`: $s_1$ and $s_2$.
    """

    share: Float[Array, ""]
    wide: Float[Array, ""]
    narrow: Float[Array, ""]

    def __init__(
        self,
        share: float | Float[Array, ""] = 0.5,
        wide: float | Float[Array, ""] = 1.0,
        narrow: float | Float[Array, ""] = math.exp(-6.0),
    ):
        self.share = positive("share", share)
        if not is_traced(self.share) and not bool(self.share < 1):
            raise ValueError(f"share={share}: it lies inside (0, 1)")
        self.wide = positive("wide", wide)
        self.narrow = positive("narrow", narrow)

    def __call__(self, path: str, leaf: Any) -> dist.Distribution:
        share, *scales = (
            jnp.asarray(a, leaf.dtype) for a in (self.share, self.wide, self.narrow)
        )
        probs = jnp.stack([share, 1.0 - share])
        scale = jnp.stack(scales)
        components = dist.Normal(jnp.zeros_like(scale), scale)
        return dist.MixtureSameFamily(dist.CategoricalProbs(probs), components)


class PriorByPath(eqx.Module):
    """Another prior for each part of the model; the first pattern that fits is used.

    ```python
    prior = PriorByPath({"layers.0": IsotropicNormal(0.1), "*": FanInNormal()})
    ```

    **Arguments:**

    - `priors`: a prior for each pattern. A pattern is a path, the path of a part, or
        holds `*` for anything.

    **Raises:** `ValueError` at a leaf that no pattern fits.
    """

    # No dictionary: JAX sorts the keys of one that goes through jit or a tree map, and
    # "*" comes before all letters.
    patterns: tuple[str, ...] = eqx.field(static=True)
    parts: tuple[Any, ...]

    def __init__(self, priors: Mapping[str, Prior]):
        self.patterns = tuple(priors)
        self.parts = tuple(priors.values())

    @property
    def priors(self) -> dict[str, Any]:
        """The prior of each pattern, in the order in which they are tried."""
        return dict(zip(self.patterns, self.parts, strict=True))

    def __call__(self, path: str, leaf: Any) -> dist.Distribution:
        for pattern, prior in self.priors.items():
            if fnmatchcase(path, pattern) or fnmatchcase(path, pattern + ".*"):
                return prior_at(prior, path, leaf)
        raise ValueError(
            f"no prior for the leaf {path}: the patterns are {list(self.priors)}. End "
            "them with '*' for all other leaves."
        )


def prior_at(prior: Prior, path: str, leaf: Any) -> dist.Distribution:
    """The prior of one leaf.

    **Raises:** `TypeError` when it is no numpyro distribution, `ValueError` when its
    shape does not broadcast to the leaf's; both name the leaf.
    """
    out = prior
    if not isinstance(prior, dist.Distribution):
        if not callable(prior):
            raise TypeError(
                f"prior={prior!r}: give a numpyro distribution, or a function "
                "(path, leaf) -> distribution"
            )
        out = prior(path, leaf)
    if not isinstance(out, dist.Distribution):
        raise TypeError(
            f"the prior of {path} is {out!r}, which is no numpyro distribution"
        )
    shape = out.batch_shape + out.event_shape
    try:
        fits = jnp.broadcast_shapes(shape, leaf.shape) == tuple(leaf.shape)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"the prior of {path} has shape {shape}, the leaf {leaf.shape}: a scalar "
            "distribution means the same prior for each entry"
        )
    return out


def density(p: dist.Distribution, leaf: Array) -> Float[Array, ""]:
    """Log-density of a leaf, summed over its entries, in nats."""
    with _leniently():
        return jnp.sum(p.log_prob(single(leaf)))


@contextlib.contextmanager
def _leniently():
    # Some of numpyro's own lines, as in its mixtures, mix dtypes and ranks.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def log_prior(prior: Prior, params: PyTree) -> Float[Array, ""]:
    """Log-density of all floating-point arrays of a tree under their priors, in nats.

    **Arguments:**

    - `prior`: one distribution, or one for each leaf.
    - `params`: a model, or the part of it that has a prior (`None` elsewhere).
    """
    terms = [
        density(prior_at(prior, path, leaf), leaf)
        for path, leaf in trees.paths(params).items()
        if eqx.is_inexact_array(leaf)
    ]
    return jnp.asarray(sum(terms, start=0.0))


def sample_prior(
    model: Model, prior: Prior, *, key: PRNGKey, where: Where = True
) -> Model:
    """The model with weights drawn from the prior: what it believes before any data.

    ```python
    prior_model = sample_prior(model, FanInNormal(), key=key)
    ```

    **Arguments:**

    - `model`: gives the structure and all leaves that are not drawn. Arrays come in
        the places of random leaves, as in `BayesianLinear`.
    - `prior`: one distribution, or one for each leaf.
    - `key`: of this draw.
    - `where`: the leaves to draw (see `jaxprob.tree`).
    """
    params, rest = trees.partition(mean_leaves(model), where)
    keys = leaf_keys(key, params)

    def draw(path, leaf, key):
        name = path_name(path)
        p = prior_at(prior, name, leaf)
        p = p.expand(leaf.shape[: leaf.ndim - p.event_dim])
        with _leniently():
            return jnp.asarray(p.sample(key), leaf.dtype)

    return eqx.combine(jax.tree_util.tree_map_with_path(draw, params, keys), rest)


def check_prior(prior: Prior, params: PyTree, *, reach: str | None = None) -> None:
    """Refuses a prior that gives a leaf no density where it starts, naming the leaf.

    A random leaf, whose Gaussian reaches every real number, needs a prior that does.

    **Arguments:**

    - `prior`, `params`: as in `log_prior`.
    - `reach`: what of the method reaches every real number, if anything does. It
        would go over the edge of a support, where numpyro's densities go on.

    **Raises:** `ValueError`, or `TypeError` for a complex leaf.
    """
    nodes = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_random)
    for path, node in nodes:
        name = path_name(path)
        if is_random(node):
            _check_real(prior_at(prior, name, node), name, "its Gaussian posterior")
        elif eqx.is_inexact_array(node):
            if jnp.iscomplexobj(node):
                raise TypeError(
                    f"{name} is {node.dtype}, and a prior is over real numbers: store "
                    "real and imaginary parts, or leave it out of `random`"
                )
            p = prior_at(prior, name, node)
            _check_support(p, name, node)
            if reach is not None:
                _check_real(p, name, reach)


def _check_support(p, name, leaf):
    if is_traced(leaf):
        return
    inside = np.asarray(p.support(np.asarray(leaf)))
    if not inside.all():
        raise ValueError(
            f"the prior of {name}, {type(p).__name__} with support {p.support}, gives "
            f"its value no density: {np.sum(~inside)} of {inside.size} entries "
            "lie outside. Start inside the support or use a prior on the real line."
        )


def _check_real(p, name, what):
    if not _is_real(p.support):
        raise ValueError(
            f"the prior of {name}, {type(p).__name__}, has the support {p.support}, "
            f"and {what} reaches all real numbers. Use a prior on the real line: of a "
            "positive parameter let the leaf be its logarithm. NUTS and HMC take any."
        )


def _is_real(support):
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support is dist.constraints.real
