"""The evidence of a model from the draws of chains, by bridge sampling."""

import dataclasses
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Float, PyTree

from ..._jaxpr.host_errors import checks_give_nan
from ..._random.keys import check_key
from ..._types import PRNGKey
from .._posterior.draws import DrawsPosterior
from .._posterior.mixing import ess
from .chains import AbstractChains
from .initial import initial_positions

MAX_ITERATIONS = 1000
TOLERANCE = 1e-10
LARGE_ERROR = 0.2
AT_ONCE = 64


class Evidence(eqx.Module):
    """Result of `log_evidence`.

    **Fields:**

    - `value`: the log evidence, in nats.
    - `standard_error`: of the value, by the variance over draws.
    """

    value: float
    standard_error: float

    def __repr__(self) -> str:
        return f"log evidence {self.value:.3f} +- {self.standard_error:.3f} nats"


def log_evidence(
    method: AbstractChains,
    posterior: DrawsPosterior,
    data: PyTree,
    *,
    key: PRNGKey,
) -> Evidence:
    r"""Return $\log p(\mathcal D)$ from the draws of chains, by bridge sampling.

    $$p(\mathcal D) = \frac{E_g[h(w)\, p(\mathcal D, w)]}{E_{p(w \mid \mathcal D)}[h(w)
      \, g(w)]}, \quad h \propto \frac{1}{s_1 p(w \mid \mathcal D) + s_2 g(w)}$$

    g is a normal distribution with the moments of the first half of each chain, in
    unconstrained coordinates; the second half and as many draws from g are the bridge.
    The optimal h depends on the answer, which is found by iteration.

    The difference of two models is their log Bayes factor. It depends on the prior,
    however wide; `loo` compares predictions instead. A posterior with several modes,
    such as that of a network, is far from every normal distribution: look at the
    standard error.

    References: *Simulating ratios of normalizing constants via a simple identity*, Meng
    and Wong, 1996; *A tutorial on bridge sampling*, Gronau et al., 2017,
    https://arxiv.org/abs/1703.05984, equations (14) and (16).

    ```python
    print(log_evidence(method, posterior, (x, y), key=key))
    ```

    **Arguments:**

    - `method`: with which the chains were run.
    - `posterior`: of `run_chains`.
    - `data`: that of the run.
    - `key`: of the draws from g.

    **Raises:** `ValueError` for fewer draws than twice the random numbers plus two, a
    temperature other than one, or draws without a finite density. Warns where the
    standard error is above .2 nats.
    """
    if method.log_joint.temperature != 1.0:
        raise ValueError(
            f"temperature={method.log_joint.temperature}: the evidence is that of the "
            "posterior itself, LogJoint(..., temperature=1.0)"
        )
    check_key(key)
    draws, density = _coordinates(method, posterior, data)
    chains, num, dim = draws.shape
    if chains * (num // 2) < dim + 2:
        raise ValueError(
            f"the posterior has {chains * num} draws of {dim} random numbers: half of "
            f"them have to determine a covariance, so at least {2 * dim + 4} are "
            "needed, and some thousand for a small error. Raise num_draws"
        )
    first, second = draws[:, : num // 2], draws[:, num // 2 :]
    normal = _Normal(first.reshape(-1, dim))
    drawn = normal.sample(key, second.shape[0] * second.shape[1])
    at_draws = density(second.reshape(-1, dim))
    if not np.isfinite(at_draws).all():
        raise ValueError(
            "a draw of the posterior has no finite log density: give the method and "
            "the data with which the chains were run"
        )
    evidence = _bridge(
        (at_draws - normal.log_prob(second.reshape(-1, dim))).reshape(chains, -1),
        density(drawn) - normal.log_prob(drawn),
        effective=float(np.median(ess(second))),
    )
    if evidence.standard_error > LARGE_ERROR:
        warnings.warn(
            f"the log evidence has a standard error of {evidence.standard_error:.2f} "
            "nats: the posterior is far from a normal distribution, or its draws are "
            "few. Raise num_draws",
            stacklevel=2,
        )
    return evidence


def _bridge(
    posterior: Float[np.ndarray, "chains draws"],
    normal: Float[np.ndarray, " total"],
    *,
    effective: float,
) -> Evidence:
    """Return the fixed point of the optimal bridge.

    **Arguments:**

    - `posterior`, `normal`: log ratios of the joint density to g, at draws from the
        posterior and from g.
    - `effective`: number of independent draws from the posterior.
    """
    centre = np.median(posterior)
    share = effective / (effective + normal.size)
    with np.errstate(over="ignore"):
        # Ratios far in a tail overflow to infinity, and their terms to zero.
        up = np.exp(posterior - centre)
        down = np.exp(centre - normal)
    ratio = 1.0
    for _ in range(MAX_ITERATIONS):
        top = 1.0 / (share + (1.0 - share) * ratio * down)
        bottom = 1.0 / (share * up + (1.0 - share) * ratio)
        before, ratio = ratio, float(top.mean() / bottom.mean())
        if abs(ratio - before) <= TOLERANCE * before:
            break
    variance = top.var() / top.mean() ** 2 / top.size
    variance += bottom.var() / bottom.mean() ** 2 / float(ess(bottom))
    return Evidence(float(np.log(ratio) + centre), float(np.sqrt(variance)))


class _Normal:
    """The normal distribution with the moments of points."""

    def __init__(self, points: Float[np.ndarray, "draws dim"]):
        self.mean = points.mean(axis=0)
        covariance = np.atleast_2d(np.cov(points.T))
        self.factor = np.linalg.cholesky(covariance)

    def sample(self, key: PRNGKey, num_samples: int) -> Float[np.ndarray, "draws dim"]:
        shape = (num_samples, self.mean.size)
        noise = np.asarray(jax.random.normal(key, shape), np.float64)
        return self.mean + noise @ self.factor.T

    def log_prob(
        self, points: Float[np.ndarray, "draws dim"]
    ) -> Float[np.ndarray, " draws"]:
        white = scipy.linalg.solve_triangular(
            self.factor, (points - self.mean).T, lower=True
        )
        log_det = np.sum(np.log(np.diag(self.factor)))
        constant = log_det + 0.5 * self.mean.size * np.log(2 * np.pi)
        return -0.5 * np.sum(white**2, axis=0) - constant


def _coordinates(method, posterior, data):
    """Draws in the coordinates of the chains, and their log density there."""
    at_model = dataclasses.replace(method, initial="model", num_chains=1)
    state = at_model.init(posterior.atom(0), key=jax.random.key(0))
    position = initial_positions(
        state.model,
        method.random,
        posterior,
        prior=method.log_joint.prior,
        num_chains=posterior.num_atoms,
        key=jax.random.key(0),  # nothing is drawn: each chain starts at an atom
    )
    draws = np.asarray(position, np.float64).reshape(*posterior.shape, -1)
    data = jax.tree.map(jnp.asarray, data)

    @eqx.filter_jit
    def densities(model, points):
        one = checks_give_nan(lambda v: method.log_density(model, v, data))
        return jax.lax.map(one, points, batch_size=AT_ONCE)

    def density(points):
        values = densities(state.model, jnp.asarray(points, position.dtype))
        values = np.asarray(values, np.float64)
        return np.where(np.isnan(values), -np.inf, values)

    return draws, density
