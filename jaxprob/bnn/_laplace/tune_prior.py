"""Scales of prior and noise by the evidence, without another pass over the data."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ... import tree
from ..._types import Model
from .._joint.gaussian_prior import GaussianPrior
from .._joint.likelihood import NormalLikelihood, gaussian_noise
from .._joint.normal_priors import FanInNormal
from .._joint.prior import Prior, log_prior
from .._joint.prior_by_path import PriorByPath
from .newton import newton_ascent
from .posterior import LaplacePosterior
from .prior_precision import prior_precision
from .spectrum import spectrum


def per_layer(model: Model, prior: Prior | None = None) -> PriorByPath:
    """Return a prior with one scale for each layer, for `tune_prior` to tune.

    ```python
    log_joint = LogJoint(likelihood, per_layer(model), num_data=len(x))
    ```

    **Arguments:**

    - `model`: every part of it that holds floating-point arrays itself is a layer.
    - `prior`: that of each layer before tuning; `FanInNormal()` by default.
    """
    params = eqx.filter(model, eqx.is_inexact_array)
    layers = dict.fromkeys(
        path.rpartition(".")[0] or path for path in tree.paths(params)
    )
    # The first pattern that matches is used, so a part stands before its parent.
    inner_first = sorted(layers, key=lambda path: -path.count("."))
    return PriorByPath({path: prior or FanInNormal() for path in inner_first})


def with_noise(
    posterior: LaplacePosterior, scale: float | Float[Array, ""]
) -> LaplacePosterior:
    """Return the posterior at the same mode under another scale of the noise.

    **Arguments:**

    - `posterior`: with a `NormalLikelihood` of one scale, and the GGN.
    - `scale`: the new one.

    **Returns:** a posterior with another curvature, likelihood and log-likelihood.

    **Raises:** `ValueError` for another likelihood or kind of curvature.
    """
    likelihood = posterior.likelihood
    scale_before = gaussian_noise(likelihood)
    if posterior.squares is None or scale_before is None:
        raise ValueError(
            "the scale of the noise can be changed for a NormalLikelihood with one "
            f"scale; this posterior has {type(likelihood).__name__}. For a scale of "
            "each output write train_by_evidence(..., noise=True); for other "
            "likelihoods train the noise, as LearnedNoise does"
        )
    if posterior.kind != "ggn":
        raise ValueError(
            f"kind={posterior.kind!r}: this curvature contains the residuals, so it "
            "is not proportional to a power of the noise scale. Write kind='ggn'"
        )
    dtype = posterior.log_likelihood.dtype
    old, new = scale_before.astype(dtype), jnp.asarray(scale, dtype)
    num = posterior.num_targets
    constant = num * jnp.log(new) + 0.5 * num * jnp.log(2 * jnp.pi)
    log_likelihood = -constant - 0.5 * posterior.squares / new**2
    return eqx.tree_at(
        lambda q: (q.curvature, q.likelihood, q.log_likelihood),
        posterior,
        (
            posterior.curvature.scaled((old / new) ** 2),
            NormalLikelihood(new),
            log_likelihood,
        ),
    )


def tune_prior(
    posterior: LaplacePosterior,
    *,
    noise: bool = False,
    num_steps: int = 100,
) -> LaplacePosterior:
    """Tune the scales of the prior to the highest evidence, by Newton's method.

    It needs no data, only the mode and the curvature there. The evidence of Gaussian
    priors is concave in the logarithms of all scales, because the determinant is a sum
    of products of their powers, so there is one maximum. The curvature is factorised
    once (see `spectrum.py`); a full matrix under several scales, and low rank, in each
    step. An `IsotropicNormal` or
    `FanInNormal` has one scale, a `PriorByPath` one for each pattern, such as
    `per_layer` makes. The mode stays; `train_by_evidence` moves it too.

    Reference: *Scalable marginal likelihood estimation for model selection in deep
    learning*, Immer, Bauer, Fortuin, Rätsch and Khan, 2021,
    https://arxiv.org/abs/2104.04975.

    ```python
    posterior = tune_prior(method.posterior(state, [(x, y)]), noise=True)
    predictive = predict(posterior, posterior.likelihood, x_test, key=key)
    ```

    **Arguments:**

    - `posterior`: its prior's floating-point leaves are all positive scales.
    - `noise`: whether the scale of a `NormalLikelihood` is tuned too; predict then
        with `posterior.likelihood`.
    - `num_steps`: of Newton's method, at most.

    **Returns:** the posterior under the tuned prior.

    **Raises:** `ValueError` when there is nothing to tune, and as `with_noise` does;
    `FloatingPointError` when the evidence has no maximum or `num_steps` do not reach
    it.
    """
    if not isinstance(posterior, LaplacePosterior):
        raise TypeError(
            f"posterior is a {type(posterior).__name__}: tune_prior takes the "
            "posterior of Laplace(MAP(log_joint, optimizer)), whose evidence has a "
            "closed form"
        )
    scales, rest = eqx.partition(posterior.prior, eqx.is_inexact_array)
    leaves = jax.tree.leaves(scales)
    fixed = isinstance(posterior.prior, GaussianPrior)
    if fixed or not leaves or not all(bool(jnp.all(leaf > 0)) for leaf in leaves):
        raise ValueError(
            f"the prior is {posterior.prior!r}: tune_prior tunes priors whose leaves "
            "are positive scales, IsotropicNormal, FanInNormal, or a PriorByPath of "
            "them"
        )
    dtype = posterior.log_likelihood.dtype
    logs = jax.tree.map(lambda s: jnp.log(s).astype(dtype), scales)
    log_noise = None
    if noise:
        with_noise(posterior, 1.0)  # raises where there is no noise to tune
        scale = gaussian_noise(posterior.likelihood)
        assert scale is not None
        log_noise = jnp.log(scale).astype(dtype)

    both = (logs, log_noise)
    tau = _precision(posterior, both, rest)
    others = [_precision(posterior, _moved(both, seed), rest) for seed in range(2)]
    log_det = spectrum(posterior.curvature, tau, jnp.stack(others) / tau[None])
    both, is_maximum = _ascend(posterior, log_det, both, rest, num_steps)
    if not bool(is_maximum):
        raise FloatingPointError(
            f"the log evidence has no maximum within num_steps={num_steps} steps from "
            "these scales, or is not finite on the way: set jax_enable_x64, or begin "
            "nearer. Where the model goes through every target there is no noise to be "
            "found"
        )
    return _tuned(posterior, both, rest)


def _tuned(posterior, both, rest):
    """The posterior under other logarithms of the prior's scales and of the noise."""
    logs, log_noise = both
    prior = eqx.combine(jax.tree.map(jnp.exp, logs), rest)
    out = eqx.tree_at(lambda q: q.prior, posterior, prior)
    return out if log_noise is None else with_noise(out, jnp.exp(log_noise))


def _moved(both, seed):
    """Other scales, whose ratios to those before differ from each other."""
    logs, unravel = ravel_pytree(both)
    return unravel(
        logs + jax.random.uniform(jax.random.key(seed), logs.shape, logs.dtype)
    )


@eqx.filter_jit
def _precision(posterior, both, rest):
    return prior_precision(_tuned(posterior, both, rest).prior, posterior.params)


@eqx.filter_jit
def _ascend(posterior, log_det, both, rest, num_steps):
    """The scales of highest evidence, and whether they were reached."""
    start, unravel = ravel_pytree(both)
    before = gaussian_noise(posterior.likelihood)

    def evidence(logs):
        both = unravel(logs)
        tuned = _tuned(posterior, both, rest)
        tau = prior_precision(tuned.prior, tuned.params)
        value = tuned.log_likelihood + log_prior(tuned.prior, tuned.params)
        if before is None or both[1] is None:
            return value - 0.5 * log_det(tau)
        # Of c G + T: that of G + T / c, and the logarithm of c for each weight.
        log_factor = 2.0 * (jnp.log(before).astype(logs.dtype) - both[1])
        scaled = log_det(tau / jnp.exp(log_factor)) + tau.size * log_factor
        return value - 0.5 * scaled

    found, is_maximum = newton_ascent(evidence, start, num_steps=num_steps)
    return unravel(found), is_maximum
