"""Expected log predictive density of new rows, without refitting: LOO and WAIC."""

import math
import warnings

import equinox as eqx
import numpy as np
import scipy.special
from jaxtyping import Float, PyTree

from ..._types import PRNGKey
from .._joint.log_joint import LogJoint
from .._posterior.draws import DrawsPosterior
from .._posterior.mixing import ess
from .._posterior.posterior import AbstractPosterior
from .pareto import largest_shape, pareto_smooth
from .pointwise import Unit, pointwise_log_likelihood

LARGE_VARIANCE = 0.4
"""Posterior variance of a log-likelihood above which WAIC is unreliable."""


class PredictiveFit(eqx.Module):
    """Result of `loo` and `waic`; `print` shows it in a line.

    **Fields:**

    - `elpd`: sum over rows of the expected log predictive density, in nats.
    - `standard_error`: of the sum, by the variance between rows.
    - `num_parameters`: effective number of parameters, p_loo or p_waic.
    - `pointwise`: the terms of the sum.
    - `pareto_k`: k-hat of each row; `None` for WAIC.
    - `largest_k`: the largest reliable k-hat.
    """

    elpd: float
    standard_error: float
    num_parameters: float
    pointwise: Float[np.ndarray, " n"]
    pareto_k: Float[np.ndarray, " n"] | None = None
    largest_k: float = math.inf

    def difference(self, other: "PredictiveFit") -> tuple[float, float]:
        """Return by how many nats this model predicts better, and the standard error.

        Both are those of the differences in each row, which vary less than the rows.

        **Arguments:**

        - `other`: of another model on the same rows.

        **Raises:** `ValueError` for another number of rows.
        """
        if len(self.pointwise) != len(other.pointwise):
            raise ValueError(
                f"other has {len(other.pointwise)} terms and this one "
                f"{len(self.pointwise)}: compare models on the same rows"
            )
        terms = self.pointwise - other.pointwise
        return float(terms.sum()), _error_of_sum(terms)

    def __repr__(self) -> str:
        text = (
            f"elpd {self.elpd:.2f} +- {self.standard_error:.2f} nats, effective "
            f"parameters {self.num_parameters:.2f}"
        )
        if self.pareto_k is None:
            return text
        many = int(np.sum(self.pareto_k > self.largest_k))
        return (
            f"{text}, {many} of {len(self.pareto_k)} k-hat above {self.largest_k:.2f}"
        )


def loo(
    posterior: AbstractPosterior,
    log_joint: LogJoint,
    data: PyTree,
    *,
    unit: Unit = "row",
    num_samples: int = 1000,
    key: PRNGKey | None = None,
) -> PredictiveFit:
    r"""Return the leave-one-out log predictive density, by importance sampling.

    $$\mathrm{elpd} = \sum_i \log p(y_i \mid y_{-i}), \quad p(y_i \mid y_{-i}) \approx
      \frac{\sum_s w_i^s \, p(y_i \mid w^s)}{\sum_s w_i^s}$$

    The weights are the Pareto-smoothed ratios $1 / p(y_i \mid w^s)$. A row that moves
    the posterior much has a large $\hat k$ and raises a warning. From a posterior that
    is not one of chains the result is that of the approximation.

    References: *Practical Bayesian model evaluation using leave-one-out
    cross-validation and WAIC*, Vehtari, Gelman and Gabry, 2017,
    https://arxiv.org/abs/1507.04544; *Pareto smoothed importance sampling*, Vehtari et
    al., 2024, https://arxiv.org/abs/1507.02646.

    ```python
    print(loo(posterior, log_joint, (x, y), key=key))
    ```

    **Arguments:**

    - `posterior`: of chains, with all draws; or one with a density, which is sampled.
    - `log_joint`: with which it was trained, at temperature 1.
    - `data`: the training data, `(x, y)`.
    - `unit`: what is left out: a `"row"`, or an `"entry"` of a target whose entries are
        independent given the model, such as one time of a trajectory.
    - `num_samples`, `key`: draws from a posterior that is not one of chains.

    **Raises:** `ValueError` for a posterior of a few models, a temperature other than
    one, or entries that are not independent. Warns of a large k-hat.
    """
    terms = _terms(posterior, log_joint, data, unit, num_samples, key)
    flat = terms.reshape(-1, terms.shape[-1])
    num = len(flat)
    efficiency = np.ones(flat.shape[1])
    if isinstance(posterior, DrawsPosterior):
        # Of the density, which is bounded; scaled, because it may underflow.
        efficiency = np.minimum(ess(np.exp(terms - flat.max(axis=0))) / num, 1.0)
    weights, shapes = pareto_smooth(-flat, efficiency)
    pointwise = scipy.special.logsumexp(weights + flat, axis=0)
    limit = largest_shape(num)
    bad = np.flatnonzero(shapes > limit)
    if bad.size:
        listing = ", ".join(f"{i} ({shapes[i]:.2f})" for i in bad[:5])
        warnings.warn(
            f"{bad.size} of {len(shapes)} values of k-hat are above {limit:.2f}, of "
            f"{unit} {listing}{', ...' if bad.size > 5 else ''}. Without one of them "
            "the posterior is much different, and its term is unreliable: look at the "
            "data there, take a likelihood with heavier tails, or refit without them",
            stacklevel=2,
        )
    return _fit(pointwise, flat, shapes, limit)


def waic(
    posterior: AbstractPosterior,
    log_joint: LogJoint,
    data: PyTree,
    *,
    unit: Unit = "row",
    num_samples: int = 1000,
    key: PRNGKey | None = None,
) -> PredictiveFit:
    r"""Return the widely applicable information criterion, as a log density.

    $$\mathrm{elpd} = \sum_i \log \tfrac 1 S \sum_s p(y_i \mid w^s) - V_s[\log p(y_i
      \mid w^s)]$$

    Prefer `loo`, which says where it is unreliable. WAIC itself is -2 times this.

    Reference: *Asymptotic equivalence of Bayes cross validation and widely applicable
    information criterion*, Watanabe, 2010, https://arxiv.org/abs/1004.2316.

    ```python
    print(waic(posterior, log_joint, (x, y), key=key))
    ```

    **Arguments:** as in `loo`.

    **Raises:** as `loo`. Warns of log-likelihoods with a variance above 0.4.
    """
    terms = _terms(posterior, log_joint, data, unit, num_samples, key)
    flat = terms.reshape(-1, terms.shape[-1])
    variances = flat.var(axis=0, ddof=1)
    bad = np.flatnonzero(variances > LARGE_VARIANCE)
    if bad.size:
        warnings.warn(
            f"the log-likelihood of {bad.size} of {len(variances)} terms, the first of "
            f"them {unit} {bad[0]}, has a variance above {LARGE_VARIANCE}: WAIC is "
            "unreliable there. Use loo",
            stacklevel=2,
        )
    return _fit(_lppd(flat) - variances, flat)


def _terms(posterior, log_joint, data, unit, num_samples, key):
    if log_joint.temperature != 1.0:
        raise ValueError(
            f"temperature={log_joint.temperature}: leaving out a row of a tempered "
            "posterior is not defined. Use LogJoint(..., temperature=1.0)"
        )
    return pointwise_log_likelihood(
        posterior, log_joint, data, unit=unit, num_samples=num_samples, key=key
    )


def _fit(pointwise, flat, shapes=None, limit=math.inf):
    return PredictiveFit(
        float(pointwise.sum()),
        _error_of_sum(pointwise),
        float((_lppd(flat) - pointwise).sum()),
        pointwise,
        shapes,
        limit,
    )


def _lppd(flat):
    return np.asarray(scipy.special.logsumexp(flat, axis=0)) - math.log(len(flat))


def _error_of_sum(terms):
    if len(terms) < 2:
        return math.nan
    return float(np.sqrt(len(terms) * terms.var(ddof=1)))
