"""Curvature of the log-likelihood in the network's output."""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...tree._ravel import ravel
from ...tree._single import single
from .expected_information import information_root
from .joint_distribution import JointDistribution
from .likelihood import Likelihood
from .log_joint import LogJoint
from .target import log_likelihood_of, observe

Kind: TypeAlias = Literal["ggn", "hessian", "fisher"]


def output_hessian(
    joint: LogJoint, output: PyTree, y: PyTree, kind: Kind
) -> tuple[Float[Array, "out out"], Float[Array, "2"]]:
    r"""Return H of one row; and $(\log p(y \mid f), |\nabla_f \log p(y \mid f)|^2)$.

    H is the expected information where it is known: positive semi-definite for every y.
    Elsewhere it is the negative Hessian at y, with its negative eigenvalues, most of
    which vanish in the sum over the rows. For `"fisher"` it is the outer product of the
    gradient.
    """
    flat, unflatten = ravel(output)
    root, values = output_root(joint, output, y, kind)
    if root is not None:
        return root.T @ root, values

    def negative(flat):
        return -single(log_likelihood_of(joint.likelihood(unflatten(flat)), y))

    return jax.hessian(negative)(flat), values


def output_root(
    joint: LogJoint, output: PyTree, y: PyTree, kind: Kind
) -> tuple[Float[Array, "root out"] | None, Float[Array, "2"]]:
    r"""Return R with $R^\top R = H$, and the second result of `output_hessian`.

    R is `None` where the expected information is not known: H has no root there.
    """
    flat, unflatten = ravel(output)

    def negative(flat):
        return -single(log_likelihood_of(joint.likelihood(unflatten(flat)), y))

    value, gradient = jax.value_and_grad(negative)(flat)
    values = jnp.stack([-value, jnp.sum(gradient**2)])
    if kind == "fisher":
        return gradient[None], values

    def observed(output):
        return _observed(joint.likelihood(output), y)

    return information_root(observed, unflatten, flat), values


def _observed(p, y):
    """The distribution of the entries that the target has."""
    if not isinstance(p, JointDistribution):
        return observe(p, y)[0]
    parts = tuple(_observed(*part) for part in p.with_targets(y))
    return JointDistribution(p.names, parts)


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
