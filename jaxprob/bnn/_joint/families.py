"""The dispatch on the family of a distribution.

This is the one place that knows classes of distributions over y. All methods ask
`family_of(p)`, and a user's own distribution answers after `register_family`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array

from . import (
    distribution_facts as facts,
    information_roots as roots,
    vector_information_roots as vector_roots,
)
from .family import Family
from .student_t import StudentT

WRAPPERS = (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)
"""Distributions whose density in y is that of their `base_dist`."""

UNKNOWN = Family()
"""The family of a distribution of which nothing is registered."""


def register_family(distribution: type[dist.Distribution], family: Family) -> None:
    """Register facts about a distribution class that numpyro does not know.

    ```python
    class ProbitBernoulli(dist.Distribution): ...

    def log_probs(p):
        return jax.scipy.stats.norm.logcdf(jnp.stack([-p.score, p.score], -1))

    register_family(ProbitBernoulli, Family(class_log_probs=log_probs, is_binary=True))
    ```

    Subclasses share the facts of the nearest registered class. A subclass with another
    `log_prob` shares those about classes only, since information and mean belong to the
    density. Programs that were compiled before do not change: register a class where it
    is defined.

    **Arguments:**

    - `distribution`: a class of numpyro distributions.
    - `family`: its facts.

    **Raises:** `TypeError` for anything but a distribution class; `ValueError` for a
    class that is registered already.
    """
    if not (
        isinstance(distribution, type) and issubclass(distribution, dist.Distribution)
    ):
        raise TypeError(
            f"distribution={distribution!r}: give a subclass of "
            "numpyro.distributions.Distribution"
        )
    if distribution in _families:
        raise ValueError(
            f"{distribution.__name__} is registered already: register a subclass of it "
            "with its own log_prob"
        )
    _families[distribution] = family


def family_of(p: Any) -> Family:
    """Return the facts about a distribution, seen through `to_event` and `mask`.

    A subclass of a registered class has the same facts.
    """
    return _nearest(type(base(p)))[1]


def density_family(p: Any) -> Family:
    """Return the facts about a density.

    A subclass with another density, such as one that weights its rows, is unknown.
    """
    kind, family = _nearest(type(p))
    return family if kind is None or type(p).log_prob is kind.log_prob else UNKNOWN


def cdf_of(p: Any, y: Array) -> Array:
    """Return the distribution function, of numpyro or registered.

    **Raises:** `NotImplementedError` where there is none.
    """
    known = density_family(p).cdf
    return p.cdf(y) if known is None else known(p, y)


def base(p: Any) -> Any:
    """Return the distribution that `to_event` and `mask` were applied to."""
    while isinstance(p, dist.Independent | dist.MaskedDistribution):
        p = p.base_dist
    return p


def unwrapped(p: Any) -> Any:
    """Return the distribution inside of all `WRAPPERS`."""
    while isinstance(p, WRAPPERS):
        p = p.base_dist
    return p


def _nearest(cls: type) -> tuple[Any, Family]:
    for kind in cls.__mro__:
        if kind in _families:
            return kind, _families[kind]
    return None, UNKNOWN


def _binary_log_probs(p: Any) -> Array:
    logits = jnp.asarray(p.logits)
    return jax.nn.log_sigmoid(jnp.stack([-logits, logits], -1))


def _binary_log_probs_of_probs(p: Any) -> Array:
    probs = jnp.asarray(p.probs)
    return jnp.stack([jnp.log1p(-probs), jnp.log(probs)], -1)


def _zero_inflated(p: Any, y: Array) -> Array:
    gate = jnp.asarray(p.gate)
    return gate + (1.0 - gate) * cdf_of(p.base_dist, y)


def _gaussian(root: roots.Root) -> Family:
    return Family(root, gaussian_mean=lambda p: p.loc)


_gumbel = roots.location_scale_root(
    1.0, math.pi**2 / 6.0 + (1 - roots.EULER) ** 2, roots.EULER - 1.0
)

_families: dict[type, Family] = {
    dist.Normal: _gaussian(roots.location_scale_root(1.0, 2.0)),
    StudentT: Family(roots.student_t_root),
    dist.StudentT: Family(roots.student_t_root),
    dist.Cauchy: Family(roots.location_scale_root(0.5, 0.5)),
    dist.Laplace: Family(roots.location_scale_root(1.0, 1.0)),
    dist.Logistic: Family(
        roots.location_scale_root(1.0 / 3.0, (3.0 + math.pi**2) / 9.0)
    ),
    dist.Gumbel: Family(_gumbel),
    dist.AsymmetricLaplace: Family(roots.asymmetric_laplace_root),
    dist.HalfNormal: Family(roots.scale_root(2.0)),
    dist.HalfCauchy: Family(roots.scale_root(0.5)),
    dist.Exponential: Family(roots.exponential_root),
    dist.Gamma: Family(roots.gamma_root),
    dist.Weibull: Family(roots.weibull_root),
    dist.Beta: Family(roots.beta_root),
    dist.Dirichlet: Family(vector_roots.dirichlet_root),
    dist.Poisson: Family(roots.poisson_root),
    dist.NegativeBinomialLogits: Family(roots.negative_binomial_logits_root),
    dist.GammaPoisson: Family(roots.negative_binomial_root),
    dist.GeometricProbs: Family(roots.geometric_probs_root, cdf=facts.geometric),
    dist.GeometricLogits: Family(roots.geometric_logits_root, cdf=facts.geometric),
    dist.ZeroInflatedPoisson: Family(cdf=_zero_inflated),
    dist.ZeroInflatedProbs: Family(cdf=_zero_inflated),
    dist.ZeroInflatedLogits: Family(cdf=_zero_inflated),
    dist.VonMises: Family(roots.von_mises_root, resultant=facts.von_mises_resultant),
    dist.BernoulliLogits: Family(
        roots.bernoulli_logits_root,
        class_log_probs=_binary_log_probs,
        class_probs=lambda p: p.probs,
        class_logits=lambda p: p.logits,
        is_binary=True,
    ),
    dist.BernoulliProbs: Family(
        roots.bernoulli_probs_root,
        class_log_probs=_binary_log_probs_of_probs,
        class_probs=lambda p: p.probs,
        is_binary=True,
    ),
    dist.BinomialLogits: Family(
        roots.trials(roots.bernoulli_logits_root), cdf=facts.binomial
    ),
    dist.BinomialProbs: Family(
        roots.trials(roots.bernoulli_probs_root), cdf=facts.binomial
    ),
    dist.CategoricalLogits: Family(
        vector_roots.categorical_logits_root,
        class_log_probs=lambda p: jax.nn.log_softmax(p.logits),
        class_probs=lambda p: p.probs,
        class_logits=lambda p: p.logits,
    ),
    dist.CategoricalProbs: Family(
        vector_roots.categorical_probs_root,
        class_log_probs=lambda p: jnp.log(p.probs),
        class_probs=lambda p: p.probs,
    ),
    dist.MultinomialLogits: Family(
        vector_roots.multinomial(vector_roots.categorical_logits_root)
    ),
    dist.MultinomialProbs: Family(
        vector_roots.multinomial(vector_roots.categorical_probs_root)
    ),
    dist.MultivariateNormal: _gaussian(vector_roots.multivariate_normal_root),
    dist.LowRankMultivariateNormal: _gaussian(vector_roots.multivariate_normal_root),
    dist.MultivariateStudentT: Family(vector_roots.multivariate_student_t_root),
}
