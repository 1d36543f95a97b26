"""Scales of prior and noise by the evidence, without another pass over the data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ... import tree
from ..._types import Model
from .._joint.gaussian_prior import GaussianPrior
from .._joint.likelihood import NormalLikelihood, gaussian_noise
from .._joint.normal_priors import FanInNormal
from .._joint.prior import Prior
from .._joint.prior_by_path import PriorByPath
from .posterior import LaplacePosterior


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
    num_steps: int = 300,
    learning_rate: float = 0.1,
) -> LaplacePosterior:
    """Tune the scales of the prior to the highest evidence, by gradient ascent.

    It needs no data, only the mode and the curvature there. An `IsotropicNormal` or
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
    - `num_steps`, `learning_rate`: of Adam on the logarithms of the scales.

    **Returns:** the posterior under the tuned prior.

    **Raises:** `ValueError` when there is nothing to tune, and as `with_noise` does;
    `FloatingPointError` when the evidence is not finite where the ascent ended.
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

    both = _ascend(posterior, (logs, log_noise), rest, num_steps, learning_rate)
    finite = all(bool(jnp.isfinite(log).all()) for log in jax.tree.leaves(both))
    tuned = _tuned(posterior, both, rest) if finite else None
    if tuned is None or not bool(jnp.isfinite(tuned.log_evidence())):
        raise FloatingPointError(
            "the log evidence is not finite where its ascent ended: lower "
            f"learning_rate={learning_rate}, or set jax_enable_x64. Where the model "
            "goes through every target there is no noise to be found"
        )
    return tuned


def _tuned(posterior, both, rest):
    """The posterior under other logarithms of the prior's scales and of the noise."""
    logs, log_noise = both
    prior = eqx.combine(jax.tree.map(jnp.exp, logs), rest)
    out = eqx.tree_at(lambda q: q.prior, posterior, prior)
    return out if log_noise is None else with_noise(out, jnp.exp(log_noise))


@eqx.filter_jit
def _ascend(posterior, both, rest, num_steps, learning_rate):
    optimizer = optax.adam(learning_rate)

    def loss(both):
        return -_tuned(posterior, both, rest).log_evidence()

    def step(carry, _):
        both, state = carry
        updates, state = optimizer.update(jax.grad(loss)(both), state)
        return (optax.apply_updates(both, updates), state), None

    (both, _), _ = jax.lax.scan(step, (both, optimizer.init(both)), length=num_steps)
    return both
