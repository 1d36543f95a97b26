r"""Expected (Fisher) information of numpyro distributions, as a square root.

$$F(f) = \mathbb E_{y \sim p(\cdot \mid f)}\big[\nabla_f \log p \, \nabla_f \log p^\top
  \big] = R^\top R, \qquad R = \partial_f \, \varphi(\theta(f); \theta_0)$$

where $\theta(f)$ are the arguments of the distribution and $\varphi$ is linear in them
with coefficients at $\theta_0$. So F depends on the likelihood and not on how it is
written: logits or probabilities, a rate or its logarithm. It is positive semi-definite,
and follows any change of units.

Reference: *New insights and perspectives on the natural gradient method*, Martens,
2014, https://arxiv.org/abs/1412.1193 (where the generalised Gauss-Newton matrix is the
Fisher information).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import polygamma
from jaxtyping import Array, Float, PyTree

from ...tree._single import single
from .._weights.scale import real
from .depends import depends
from .likelihood import Likelihood
from .student_t import StudentT

EULER = 0.5772156649015329

Root = Callable[[Any, Any, Any], Array | None]
"""`root(p, at, moves) -> varphi`, of the shape of the batch and one axis more.

`at` is the same distribution, held constant; `moves` has a bool for each argument that
says whether it depends on the output. `None` where the information is not known.
"""


def information_root(
    likelihood: Likelihood,
    unflatten: Callable[[Array], PyTree],
    flat: Float[Array, " out"],
) -> Float[Array, "root out"] | None:
    r"""Return R with $R^\top R$ the expected information in the flat output.

    **Arguments:**

    - `likelihood`: output -> distribution.
    - `unflatten`: makes the output of a vector.
    - `flat`: the output as that vector.

    **Returns:** R, or `None` for a distribution whose information has no closed form.
    """

    at = likelihood(unflatten(flat))
    moves = depends(lambda flat: likelihood(unflatten(flat)), flat)

    def root(flat):
        found = expected_root(likelihood(unflatten(flat)), at, moves)
        return None if found is None else single(found).reshape(-1)

    # As in `log_likelihood_of`: numpyro and these lines mix numbers and arrays.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        if jax.eval_shape(root, flat) is None:
            return None
        return jax.jacfwd(root)(flat).astype(flat.dtype)


def expected_root(p: Any, at: Any, moves: Any) -> Array | None:
    """`varphi` of a distribution, through the wrappers of numpyro."""
    for kind, root in WRAPPERS:
        if type(p) is kind:
            return root(p, at, moves)
    for kind, root in FAMILIES:
        # A subclass with a density of its own, such as one that weighs its rows, is
        # another distribution.
        if isinstance(p, kind) and type(p).log_prob is kind.log_prob:
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
    # An event axis that was expanded, as of an Independent, is within the last one.
    return _broadcast(root, p.batch_shape)


def _masked(p, at, moves):
    root = expected_root(p.base_dist, at.base_dist, moves.base_dist)
    if root is None:
        return None
    mask = jnp.broadcast_to(jnp.asarray(at._mask), p.batch_shape)
    root = jnp.broadcast_to(root, (*p.batch_shape, root.shape[-1]))
    return jnp.where(mask[..., None], root, jnp.zeros((), root.dtype))


def _transformed(p, at, moves):
    """A fixed transformation of y changes no information."""
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
    """A fixed base that is shifted and stretched: a location and a scale."""
    affine = [type(t) is dist.transforms.AffineTransform for t in p.transforms]
    if affine != [True] or any(jax.tree.leaves(moves.base_dist)) or p.event_shape:
        return None

    def stretched(p):
        base, (move,) = p.base_dist, p.transforms
        loc, scale = move.loc + move.scale * base.loc, move.scale * base.scale
        return type(base)(*((base.df,) if hasattr(base, "df") else ()), loc, scale)

    base = p.base_dist
    known = (dist.Normal, dist.StudentT, dist.Cauchy, dist.Laplace, dist.Logistic)
    if type(base) not in (*known, StudentT):
        return None
    root = dict(FAMILIES)[type(base)]

    class Moves:
        df, loc, scale = False, True, True

    return _broadcast(root(stretched(p), stretched(at), Moves), p.batch_shape)


def _enumerated(p, at, moves):
    """A sum over all values, for a distribution of numpyro that lists them."""
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


# Families. Each line is the information in the distribution's own arguments.


def _real(value):
    return single(real(value))


def _stack(*roots):
    return jnp.stack(jnp.broadcast_arrays(*map(_real, roots)), -1)


def _tiny(value):
    """The value, so far from zero that it can be divided by."""
    value = _real(value)
    return jnp.maximum(value, jnp.finfo(value.dtype).tiny)


def _pair(first, second, aa, ab, bb):
    """Two arguments with the information ((aa, ab), (ab, bb)): its Cholesky factor."""
    low = jnp.sqrt(aa)
    cross = ab / low
    return _stack(low * first + cross * second, jnp.sqrt(bb - cross**2) * second)


def _location_scale(loc, scale, cross=0.0):
    def root(p, at, moves):
        first, second = p.loc / at.scale, p.scale / at.scale
        if not cross:
            return _stack(math.sqrt(loc) * first, math.sqrt(scale) * second)
        return _pair(first, second, *map(_real, (loc, cross, scale)))

    return root


def _student_t(p, at, moves):
    if moves.df:
        return None
    df = _real(at.df)
    loc = jnp.sqrt((df + 1.0) / (df + 3.0)) * p.loc / at.scale
    return _stack(loc, jnp.sqrt(2.0 * df / (df + 3.0)) * p.scale / at.scale)


def _scale(information):
    return lambda p, at, moves: _stack(math.sqrt(information) * p.scale / at.scale)


def _asymmetric_laplace(p, at, moves):
    if moves.asymmetry:
        return None
    # The slopes on both sides are 1 / (scale asymmetry) and asymmetry / scale.
    return _stack(p.loc / at.scale, p.scale / at.scale)


def _gamma(p, at, moves):
    a, rate = _real(at.concentration), _real(at.rate)
    cross = -1.0 / rate
    # In this order the factor's second entry is that of the concentration alone.
    return _pair(p.rate, p.concentration, a / rate**2, cross, polygamma(1, a))


def _beta(p, at, moves):
    a, b = _real(at.concentration1), _real(at.concentration0)
    both = polygamma(1, a + b)
    return _pair(
        p.concentration1,
        p.concentration0,
        polygamma(1, a) - both,
        -both,
        polygamma(1, b) - both,
    )


def _dirichlet(p, at, moves):
    a = _real(at.concentration)
    total = polygamma(1, jnp.sum(a, -1))[..., None, None]
    matrix = polygamma(1, a)[..., None] * jnp.eye(a.shape[-1], dtype=a.dtype) - total
    return jnp.einsum("...ij,...i->...j", jnp.linalg.cholesky(matrix), p.concentration)


def _negative_binomial(p, at, moves):
    """The concentration's own information is an infinite sum."""
    if moves.concentration:
        return None
    a, rate = _real(at.concentration), _real(at.rate)
    return _stack(jnp.sqrt(a / (1.0 + rate)) * p.rate / rate)


def _negative_binomial_logits(p, at, moves):
    if moves.total_count:
        return None
    a, logits = _real(at.total_count), _real(at.logits)
    return _stack(jnp.sqrt(a * jax.nn.sigmoid(logits)) * p.logits)


def _weibull(p, at, moves):
    scale, k = _real(at.scale), _real(at.concentration)
    cross = -(1.0 - EULER) / scale
    second = (math.pi**2 / 6.0 + (1.0 - EULER) ** 2) / k**2
    return _pair(p.scale, p.concentration, (k / scale) ** 2, cross, second)


def _bernoulli_logits(p, at, moves):
    logits = _real(at.logits)
    information = jax.nn.sigmoid(logits) * jax.nn.sigmoid(-logits)
    return _stack(jnp.sqrt(information) * p.logits)


def _bernoulli_probs(p, at, moves):
    probs = _real(at.probs)
    return _stack(p.probs / jnp.sqrt(_tiny(probs * (1.0 - probs))))


def _trials(root):
    def scaled(p, at, moves):
        if moves.total_count:
            return None
        return jnp.sqrt(_real(at.total_count))[..., None] * root(p, at, moves)

    return scaled


def _categorical_logits(p, at, moves):
    probs = jax.nn.softmax(_real(at.logits))
    return jnp.sqrt(probs) * jax.nn.log_softmax(_real(p.logits))


def _categorical_probs(p, at, moves):
    return _real(p.probs) / jnp.sqrt(_tiny(at.probs))


def _multinomial(root):
    """The number of trials is no leaf: it is known, or an array that is not."""

    def scaled(p, at, moves):
        return jnp.sqrt(_real(at.total_count))[..., None] * root(p, at, moves)

    return scaled


def _geometric_probs(p, at, moves):
    probs = _tiny(at.probs)
    return _stack(p.probs / (probs * jnp.sqrt(_tiny(1.0 - probs))))


def _geometric_logits(p, at, moves):
    return _stack(jnp.sqrt(jax.nn.sigmoid(-_real(at.logits))) * p.logits)


def _multivariate_normal(p, at, moves):
    loc = jnp.broadcast_to(p.loc, p.batch_shape + p.event_shape)
    if type(p) is dist.LowRankMultivariateNormal:
        covariance_moves = moves.cov_factor or moves.cov_diag
        factor = jnp.linalg.cholesky(at.covariance_matrix)
    else:
        covariance_moves, factor = moves.scale_tril, at.scale_tril
    factor = jnp.broadcast_to(factor, (*p.batch_shape, *factor.shape[-2:]))
    white = solve_triangular(factor, loc[..., None], lower=True)[..., 0]
    if not covariance_moves:
        return white
    covariance = jnp.broadcast_to(jnp.asarray(p.covariance_matrix), factor.shape)
    half = solve_triangular(factor, covariance, lower=True)
    inner = solve_triangular(factor, jnp.swapaxes(half, -1, -2), lower=True)
    inner = inner.reshape(*p.batch_shape, -1) / math.sqrt(2.0)
    return jnp.concatenate([white, inner], -1)


def _multivariate_student_t(p, at, moves):
    if moves.df or moves.scale_tril:
        return None
    df, num = _real(at.df), p.event_shape[-1]
    loc = jnp.broadcast_to(p.loc, p.batch_shape + p.event_shape)
    factor = jnp.broadcast_to(at.scale_tril, (*p.batch_shape, num, num))
    white = solve_triangular(factor, loc[..., None], lower=True)[..., 0]
    return jnp.sqrt((df + num) / (df + num + 2.0))[..., None] * white


WRAPPERS: tuple[tuple[type, Root], ...] = (
    (dist.Independent, _independent),
    (dist.ExpandedDistribution, _expanded),
    (dist.MaskedDistribution, _masked),
    (
        dist.AsymmetricLaplaceQuantile,
        lambda p, at, moves: expected_root(p._ald, at._ald, moves._ald),
    ),
)

FAMILIES: tuple[tuple[type, Root], ...] = (
    (StudentT, _student_t),
    (dist.Normal, _location_scale(1.0, 2.0)),
    (dist.StudentT, _student_t),
    (dist.Cauchy, _location_scale(0.5, 0.5)),
    (dist.Laplace, _location_scale(1.0, 1.0)),
    (dist.Logistic, _location_scale(1.0 / 3.0, (3.0 + math.pi**2) / 9.0)),
    (
        dist.Gumbel,
        _location_scale(1.0, math.pi**2 / 6.0 + (1 - EULER) ** 2, EULER - 1.0),
    ),
    (dist.AsymmetricLaplace, _asymmetric_laplace),
    (dist.HalfNormal, _scale(2.0)),
    (dist.HalfCauchy, _scale(0.5)),
    (dist.Exponential, lambda p, at, moves: _stack(p.rate / _tiny(at.rate))),
    (dist.Gamma, _gamma),
    (dist.Weibull, _weibull),
    (dist.Beta, _beta),
    (dist.Dirichlet, _dirichlet),
    (dist.Poisson, lambda p, at, moves: _stack(p.rate / jnp.sqrt(_tiny(at.rate)))),
    (dist.NegativeBinomialLogits, _negative_binomial_logits),
    (dist.GammaPoisson, _negative_binomial),
    (dist.GeometricProbs, _geometric_probs),
    (dist.GeometricLogits, _geometric_logits),
    (dist.BernoulliLogits, _bernoulli_logits),
    (dist.BernoulliProbs, _bernoulli_probs),
    (dist.BinomialLogits, _trials(_bernoulli_logits)),
    (dist.BinomialProbs, _trials(_bernoulli_probs)),
    (dist.CategoricalLogits, _categorical_logits),
    (dist.CategoricalProbs, _categorical_probs),
    (dist.MultinomialLogits, _multinomial(_categorical_logits)),
    (dist.MultinomialProbs, _multinomial(_categorical_probs)),
    (dist.MultivariateNormal, _multivariate_normal),
    (dist.LowRankMultivariateNormal, _multivariate_normal),
    (dist.MultivariateStudentT, _multivariate_student_t),
)
