"""Random perturbations of log-likelihoods whose optima are posterior draws."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree, UInt32

from ..._types import PRNGKey
from .._joint.families import density_family, unwrapped
from .._joint.joint_distribution import JointDistribution
from .._joint.target import log_likelihood_of, observe


def perturbed_log_likelihood(
    p: dist.Distribution,
    y: PyTree,
    *,
    key: PRNGKey,
    temperature: float | Float[Array, ""],
) -> Float[Array, ""]:
    r"""Return the log-likelihood of a row, perturbed at random.

    A perturbation whose score has mean zero and the Fisher information I as covariance
    moves the optimum of the log joint like a draw from the posterior.

    - Gaussian in y: the target moves by a draw of the noise, $e \sim \mathcal N(0,
      T s^2)$, which is exact if the mean is linear in the weights. Only the mean sees
      the noise: a scale fitted to $y + e$ would come out $\sqrt 2$ times too large.
    - Everything else, and the scale of a Gaussian: the row is weighted by $w \sim
      \mathrm{Gamma}(1 / T, T)$, of mean 1 and variance T, as in the weighted-likelihood
      bootstrap. The spread is right as the number of rows grows.

    Reference: *Approximate Bayesian inference with the weighted likelihood bootstrap*,
    Newton and Raftery, 1994.

    **Arguments:**

    - `p`: distribution of the row's target.
    - `y`: the target.
    - `key`: of the row and the member, the same in each epoch.
    - `temperature`: T of the log joint, over the weight of the row.
    """
    if isinstance(p, JointDistribution):
        terms = [
            perturbed_log_likelihood(
                *part, key=jax.random.fold_in(key, index), temperature=temperature
            )
            for index, part in enumerate(p.with_targets(y))
        ]
        return sum(terms, start=jnp.zeros((), terms[0].dtype))
    weight_key, noise_key = jax.random.split(key)
    value = log_likelihood_of(p, y)
    p, y = observe(p, y)
    weight = temperature * jax.random.gamma(weight_key, 1.0 / temperature)
    weight = weight.astype(value.dtype)
    mean = density_family(unwrapped(p)).gaussian_mean
    if mean is None:
        return weight * value
    loc = jnp.broadcast_to(mean(unwrapped(p)), y.shape)
    still = jax.lax.stop_gradient
    # log p(y + e) = log p(y) + e (loc - y) / s^2 + a constant. The score in the mean at
    # y + e is minus the slope of the density in y there, masks and events included.
    scale = jnp.sqrt(temperature).astype(value.dtype)
    noise = scale * (_frozen(p).sample(noise_key) - still(loc))
    slope = jax.grad(lambda y: log_likelihood_of(_frozen(p), y))(still(loc) + noise)
    shifted = value + jnp.sum(-still(slope) * (loc - y))
    # Adds nothing to the value and (weight - 1) times the slope in the scale.
    scale_alone = log_likelihood_of(_with_still_mean(p, mean), y)
    return shifted + (weight - 1.0) * (scale_alone - still(scale_alone))


def row_key(key: PRNGKey, row: PyTree) -> PRNGKey:
    """Return the key of a row: a function of its bits, so the same in every epoch."""
    return jax.random.fold_in(key, _hash(row))


def _frozen(p):
    return jax.tree.map(jax.lax.stop_gradient, p)


def _with_still_mean(p, mean):
    """The same distribution; no gradient flows into its mean."""
    loc = mean(unwrapped(p))
    leaves, structure = jax.tree.flatten(p)
    still = [jax.lax.stop_gradient(a) if a is loc else a for a in leaves]
    return jax.tree.unflatten(structure, still)


def _hash(row) -> UInt32[Array, ""]:
    """Hash of a row to 32 bits, by a polynomial over its words."""
    words = []
    for leaf in jax.tree.leaves(row):
        # As integers of the same width: a cast would drop the fraction of a half.
        if leaf.dtype != jnp.bool_:
            kind = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)
            leaf = jax.lax.bitcast_convert_type(leaf, kind)
        words.append(leaf.astype(jnp.uint32).ravel())
    words = jnp.concatenate(words)
    multiplier = jnp.uint32(0x9E3779B1)
    powers = multiplier ** jnp.arange(1, len(words) + 1, dtype=jnp.uint32)
    mixed = (words ^ (words >> jnp.uint32(15))) * powers
    return jnp.sum(mixed, dtype=jnp.uint32)
