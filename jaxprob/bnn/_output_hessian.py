"""How the log-likelihood curves in the network's output."""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from .._low_precision import single
from ._likelihood import NormalLikelihood
from ._log_joint import LogJoint, log_likelihood_of
from ._ravel import ravel

Kind: TypeAlias = Literal["ggn", "fisher"]


def output_hessian(
    joint: LogJoint, output: PyTree, y: Array, kind: Kind
) -> tuple[Float[Array, "out out"], Float[Array, "2"]]:
    r"""$-\nabla_f^2 \log p(y \mid f)$, or the outer product of the gradient; and
    $(\log p(y \mid f), |\nabla_f \log p(y \mid f)|^2)$.

    For most likelihoods the Hessian may have negative eigenvalues at some y, which are
    set to zero. Where theory excludes them it is left alone, and differentiable.
    """
    flat, unflatten = ravel(output)

    def negative(flat):
        return -single(log_likelihood_of(joint.likelihood(unflatten(flat)), y))

    value, gradient = jax.value_and_grad(negative)(flat)
    values = jnp.stack([-value, jnp.sum(gradient**2)])
    if kind == "fisher":
        return jnp.outer(gradient, gradient), values
    hessian = jax.hessian(negative)(flat)
    p = joint.likelihood(output)
    natural = isinstance(p, dist.CategoricalLogits | dist.BernoulliLogits)
    if not natural and not isinstance(joint.likelihood, NormalLikelihood):
        bends, vectors = jnp.linalg.eigh(hessian)
        hessian = (vectors * jnp.maximum(bends, 0.0)[None]) @ vectors.T
    return hessian, values
