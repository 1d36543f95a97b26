"""One update of an extended Kalman filter, in information form."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Bool, Float, PyTree

from ...tree._ravel import ravel
from ...tree._single import single
from .._joint.log_joint import LogJoint
from .._joint.output_hessian import has_information, output_hessian
from .._joint.output_link import LinkedApply, LinkedLikelihood, output_link
from .._joint.row import Row, weighted
from .._joint.target import log_likelihood_of
from .._weights.unconstrained import constrained
from .sum_over_rows import batch_size_for, sum_over_rows


@eqx.filter_jit
def kalman_step(
    posterior: Any, rows: Row, point: PyTree, num_iterations: int
) -> tuple[PyTree, Float[Array, "dim dim"], Bool[Array, ""]]:
    r"""Return mean and precision after some rows, and whether they are finite.

    The information form adds positive matrices: the precision stays positive definite
    where a covariance, from which a product of gains is subtracted, may lose it.

    **Arguments:**

    - `posterior`: a `KalmanPosterior`.
    - `rows`: with the weight of each.
    - `point`: the random leaves at which the network is linearised first.
    - `num_iterations`: how often the network is linearised.
    """
    with jax.default_matmul_precision("highest"):
        start, unravel = ravel(posterior.params)
        sums = _sums_at(posterior, rows)

        def iterate(_, carry):
            mean, _ = carry
            matrix, slope = sums(mean)
            precision = posterior.precision + matrix
            precision = 0.5 * (precision + precision.T)
            # The Gaussian of the linearised network, whose prior is that at the start.
            right = slope + matrix @ (mean - start)
            root = jnp.linalg.cholesky(precision)
            return start + cho_solve((root, True), right), precision

        carry = (ravel(point)[0], posterior.precision)
        mean, precision = jax.lax.fori_loop(0, num_iterations, iterate, carry)
        finite = jnp.all(jnp.isfinite(mean)) & jnp.all(jnp.isfinite(precision))
        return unravel(mean), precision, finite


def _sums_at(posterior, rows):
    """The function mean -> sums of J'HJ and J'g over the rows."""
    x, y, weights = jax.tree.map(jnp.asarray, tuple(rows))
    model = eqx.combine(posterior.params, posterior.rest)
    joint = LogJoint(
        posterior.likelihood, dist.Normal(0.0, 1.0), 1, apply=posterior.apply
    )
    first = jax.tree.map(lambda a: a[0], x)
    shapes = eqx.filter_eval_shape(
        lambda x: joint.apply(constrained(model), x, key=jax.random.key(0)), first
    )
    link = output_link(joint.likelihood, shapes)
    if link is not None:
        joint = eqx.tree_at(
            lambda j: (j.likelihood, j.apply),
            joint,
            (LinkedLikelihood(link), LinkedApply(link, joint.apply)),
        )
        shapes = eqx.filter_eval_shape(
            lambda x: joint.apply(constrained(model), x, key=jax.random.key(0)), first
        )
    known = has_information(joint.likelihood, shapes)
    _, unravel = ravel(posterior.params)

    def output(mean, x):
        there = constrained(eqx.combine(unravel(mean), posterior.rest))
        return joint.apply(there, x, key=jax.random.key(0))

    def one(mean, x, y):
        out = output(mean, x)
        flat, unflatten = ravel(out)

        def log_likelihood(flat):
            return single(log_likelihood_of(joint.likelihood(unflatten(flat)), y))

        hessian, _ = output_hessian(joint, out, y, "ggn")
        hessian = hessian if known else _positive(hessian)
        jacobian = jax.jacrev(lambda v: ravel(output(v, x))[0])(mean)
        return jacobian, hessian @ jacobian, jax.grad(log_likelihood)(flat)

    def sums(mean):
        def some_rows(data, weights):
            jacobian, scaled, slopes = jax.vmap(lambda x, y: one(mean, x, y))(*data)
            jacobian = jacobian.reshape(-1, mean.size)
            scaled = weighted(weights, scaled).reshape(-1, mean.size)
            slopes = weighted(weights, slopes).reshape(-1)
            return jacobian.T @ scaled, jacobian.T @ slopes

        flat = jax.eval_shape(lambda x: ravel(output(mean, x))[0], first)
        size = 3 * flat.size * mean.size * mean.dtype.itemsize
        return sum_over_rows(
            some_rows, (x, y), weights, batch_size_for(size, len(weights))
        )

    return sums


def _positive(hessian):
    values, vectors = jnp.linalg.eigh(hessian)
    return (vectors * jnp.maximum(values, 0.0)[None]) @ vectors.T
