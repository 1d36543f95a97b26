"""Curvature of the log-likelihood in the network's output."""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...tree._ravel import ravel
from ...tree._single import single
from .expected_information import information_root
from .likelihood import Likelihood
from .log_joint import LogJoint, log_likelihood_of

Kind: TypeAlias = Literal["ggn", "hessian", "fisher"]


def output_hessian(
    joint: LogJoint, output: PyTree, y: Array, kind: Kind
) -> tuple[Float[Array, "out out"], Float[Array, "2"]]:
    r"""Return H of one row; and $(\log p(y \mid f), |\nabla_f \log p(y \mid f)|^2)$.

    H is the expected information where it is known: positive semi-definite for every y.
    Elsewhere it is the negative Hessian at y, with its negative eigenvalues, most of
    which vanish in the sum over the rows. For `"fisher"` it is the outer product of the
    gradient.
    """
    flat, unflatten = ravel(output)

    def negative(flat):
        return -single(log_likelihood_of(joint.likelihood(unflatten(flat)), y))

    value, gradient = jax.value_and_grad(negative)(flat)
    values = jnp.stack([-value, jnp.sum(gradient**2)])
    if kind == "fisher":
        return jnp.outer(gradient, gradient), values
    root = information_root(joint.likelihood, unflatten, flat)
    hessian = jax.hessian(negative)(flat) if root is None else root.T @ root
    return hessian, values


def has_information(likelihood: Likelihood, output: PyTree) -> bool:
    """Return whether the expected information is known.

    **Arguments:**

    - `likelihood`: output -> distribution.
    - `output`: arrays, or their shapes and dtypes.
    """

    def root(output):
        flat, unflatten = ravel(output)
        return information_root(likelihood, unflatten, flat)

    return jax.eval_shape(root, output) is not None
