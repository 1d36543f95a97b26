r"""Expected (Fisher) information of numpyro distributions, as a square root.

$$F(f) = \mathbb E_{y \sim p(\cdot \mid f)}\big[\nabla_f \log p \, \nabla_f \log p^\top
  \big] = R^\top R, \qquad R = \partial_f \, \varphi(\theta(f); \theta_0)$$

where $\theta(f)$ are the arguments of the distribution and $\varphi$ is linear in them
with coefficients at $\theta_0$. So F depends on the likelihood and not on its
parametrisation: logits or probabilities, a rate or its logarithm. It is positive
semi-definite and equivariant under a change of units.

Reference: *New insights and perspectives on the natural gradient method*, Martens,
2014, https://arxiv.org/abs/1412.1193 (where the generalised Gauss-Newton matrix is the
Fisher information).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from ..._jaxpr.depends import depends
from ...tree._single import single
from .families import density_family
from .information_roots import Root
from .joint_distribution import JointDistribution
from .likelihood import Likelihood
from .student_t import StudentT

LOCATION_SCALE = (
    dist.Normal,
    dist.StudentT,
    dist.Cauchy,
    dist.Laplace,
    dist.Logistic,
    StudentT,
)


def information_root(
    likelihood: Likelihood,
    unflatten: Callable[[Array], PyTree],
    flat: Float[Array, " out"],
) -> Float[Array, "root out"] | None:
    r"""Return R with $R^\top R$ the expected information in the flat output.

    **Arguments:**

    - `likelihood`: output -> distribution.
    - `unflatten`: from that vector to the output.
    - `flat`: the output as a vector.

    **Returns:** R, or `None` for a distribution whose information has no closed form.
    """

    at = likelihood(unflatten(flat))
    moves = depends(lambda flat: likelihood(unflatten(flat)), flat)

    def root(flat):
        found = expected_root(likelihood(unflatten(flat)), at, moves)
        return None if found is None else single(found).reshape(-1)

    # numpyro and the roots mix numbers and arrays of several dtypes.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        if jax.eval_shape(root, flat) is None:
            return None
        return jax.jacfwd(root)(flat).astype(flat.dtype)


def expected_root(p: Any, at: Any, moves: Any) -> Array | None:
    """Return `varphi` of a distribution, through the wrappers of numpyro."""
    if type(p) in _WRAPPERS:
        return _WRAPPERS[type(p)](p, at, moves)
    root = density_family(p).information_root
    if root is not None:
        return _broadcast(root(p, at, moves), p.batch_shape)
    if isinstance(p, dist.TransformedDistribution):
        return _transformed(p, at, moves)
    return _enumerated(p, at, moves)


def _broadcast(root, shape):
    return None if root is None else jnp.broadcast_to(root, (*shape, root.shape[-1]))


def _independent(p, at, moves):
    root = expected_root(p.base_dist, at.base_dist, moves.base_dist)
    if root is None:
        return None
    return root.reshape(*p.batch_shape, -1)


def _expanded(p, at, moves):
    root = expected_root(p.base_dist, at.base_dist, moves.base_dist)
    if root is None:
        return None
    # An expanded event axis, as of an Independent, is part of the last axis.
    return _broadcast(root, p.batch_shape)


def _masked(p, at, moves):
    root = expected_root(p.base_dist, at.base_dist, moves.base_dist)
    if root is None:
        return None
    mask = jnp.broadcast_to(jnp.asarray(at._mask), p.batch_shape)
    root = jnp.broadcast_to(root, (*p.batch_shape, root.shape[-1]))
    return jnp.where(mask[..., None], root, jnp.zeros((), root.dtype))


def _transformed(p, at, moves):
    """Root of the base: a fixed transformation of y changes no information."""
    if type(p).log_prob is not dist.TransformedDistribution.log_prob:
        return None
    affine = _affine(p, at, moves)
    if affine is not None:
        return affine
    if any(jax.tree.leaves(moves.transforms)):
        return None
    root = expected_root(p.base_dist, at.base_dist, moves.base_dist)
    if root is None:
        return None
    return root.reshape(*p.batch_shape, -1)


def _affine(p, at, moves):
    """Root of the location and the scale of a fixed base."""
    affine = [type(t) is dist.transforms.AffineTransform for t in p.transforms]
    if affine != [True] or any(jax.tree.leaves(moves.base_dist)) or p.event_shape:
        return None
    if type(p.base_dist) not in LOCATION_SCALE:
        return None

    def moved(p):
        base, (move,) = p.base_dist, p.transforms
        loc, scale = move.loc + move.scale * base.loc, move.scale * base.scale
        df = (base.df,) if isinstance(base, dist.StudentT) else ()
        return type(base)(*df, loc, scale)

    class Moves:
        df, loc, scale = False, True, True

    root = density_family(p.base_dist).information_root
    assert root is not None
    return _broadcast(root(moved(p), moved(at), Moves), p.batch_shape)


def _enumerated(p, at, moves):
    """A sum over all values, for a distribution of numpyro with finite support."""
    if not type(p).__module__.startswith("numpyro.") or not p.is_discrete:
        return None
    if not getattr(p, "has_enumerate_support", False) or p.event_shape:
        return None
    try:
        values = p.enumerate_support(expand=True)
    except (NotImplementedError, ValueError, TypeError):
        # The number of trials is an array, or differs between entries.
        return None
    weights = jnp.exp(jnp.stack([at.log_prob(value) for value in values], -1))
    logs = jnp.stack([p.log_prob(value) for value in values], -1)
    possible = weights > 0
    return jnp.sqrt(weights) * jnp.where(possible, logs, jnp.zeros((), logs.dtype))


def _joint(p, at, moves):
    parts = zip(p.parts, at.parts, moves.parts, strict=True)
    roots = [expected_root(*part) for part in parts]
    if any(root is None for root in roots):
        return None
    return jnp.concatenate([single(root).reshape(-1) for root in roots])


_WRAPPERS: dict[type, Root] = {
    JointDistribution: _joint,
    dist.Independent: _independent,
    dist.ExpandedDistribution: _expanded,
    dist.MaskedDistribution: _masked,
    dist.AsymmetricLaplaceQuantile: lambda p, at, moves: expected_root(
        p._ald, at._ald, moves._ald
    ),
}
