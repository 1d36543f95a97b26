"""How the log-likelihood curves in the network's output."""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from ._likelihood import NormalLikelihood
from ._log_joint import LogJoint, log_likelihood_of
from ._ravel import ravel, single

Kind: TypeAlias = Literal["ggn", "fisher"]


def output_hessian(
    joint: LogJoint, output: PyTree, y: Array, kind: Kind
) -> tuple[Float[Array, "out out"], Float[Array, ""]]:
    r"""$-\nabla_f^2 \log p(y \mid f)$, or the outer product of the gradient; and
    $\log p(y \mid f)$.

    For most likelihoods the Hessian may have negative eigenvalues at some y, which are
    set to zero. Where theory excludes them it is left alone, and differentiable.
    """
    flat, unflatten = ravel(output)

    def negative(flat):
        return -single(log_likelihood_of(joint.likelihood(unflatten(flat)), y))

    if kind == "fisher":
        value, gradient = jax.value_and_grad(negative)(flat)
        return jnp.outer(gradient, gradient), -value
    hessian, value = jax.hessian(negative)(flat), negative(flat)
    p = joint.likelihood(output)
    natural = isinstance(p, dist.CategoricalLogits | dist.BernoulliLogits)
    if not natural and not isinstance(joint.likelihood, NormalLikelihood):
        values, vectors = jnp.linalg.eigh(hessian)
        hessian = (vectors * jnp.maximum(values, 0.0)[None]) @ vectors.T
    return hessian, -value
