"""The full matrix and its diagonal, from one pass over rows."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._types import Model
from ...tree._ravel import ravel
from .._joint.log_joint import LogJoint
from .._joint.output_hessian import Kind, output_hessian
from .._joint.row import weighted
from .._joint.target import log_likelihood_of
from .._weights.unconstrained import constrained
from .forward_mode import has_forward_mode
from .sum_over_rows import batch_size_for

HESSIAN_COLUMNS = 16
"""Columns of the exact Hessian that are computed at a time."""


def full_matrix(
    joint: LogJoint,
    model: Model,
    flags: PyTree[bool],
    x: PyTree,
    y: PyTree,
    weights: Float[Array, " rows"],
    kind: Kind,
) -> tuple[Float[Array, "dim dim"], Float[Array, "rows 2"]]:
    r"""Return $\sum_i J_i^\top H_i J_i$; and the values of `output_hessian`."""
    vector, output = as_function(joint, model, flags)

    def one(x, y):
        hessian, value = output_hessian(joint, output(vector, x), y, kind)
        jacobian = jax.jacrev(lambda v: ravel(output(v, x))[0])(vector)
        return jacobian, hessian @ jacobian, value

    jacobian, scaled, values = jax.vmap(one)(x, y)
    scaled = weighted(weights, scaled)
    dim = vector.size
    return jacobian.reshape(-1, dim).T @ scaled.reshape(-1, dim), values


def diagonal(
    joint: LogJoint,
    model: Model,
    flags: PyTree[bool],
    x: PyTree,
    y: PyTree,
    weights: Float[Array, " rows"],
    kind: Kind,
) -> tuple[Float[Array, " dim"], Float[Array, "rows 2"]]:
    """Return the diagonal of `full_matrix`; and the values of `output_hessian`.

    It is computed for a few outputs at a time: with a thousand classes and a million
    weights the Jacobian of one row has four gigabytes.
    """
    vector, output = as_function(joint, model, flags)

    def one(x, y):
        hessian, value = output_hessian(joint, output(vector, x), y, kind)
        _, pull = jax.vjp(lambda v: ravel(output(v, x))[0], vector)

        def add(total, pair):
            (left,), (right,) = jax.vmap(pull)(pair[0]), jax.vmap(pull)(pair[1])
            return total + jnp.sum(left * right, 0), None

        pairs = batches_of_outputs(hessian[None], vector.size * vector.dtype.itemsize)
        pairs = jax.tree.map(lambda a: a[:, :, 0], pairs)
        return jax.lax.scan(add, jnp.zeros_like(vector), pairs)[0], value

    diagonals, values = jax.vmap(one)(x, y)
    return jnp.sum(weighted(weights, diagonals), 0), values


def batches_of_outputs(
    hessians: Float[Array, "rows out out"], bytes_of_one: int
) -> tuple[
    Float[Array, "batches size rows out"], Float[Array, "batches size rows out"]
]:
    """Return the rows of the identity and of each H, in batches of outputs.

    **Arguments:**

    - `hessians`: H of each row.
    - `bytes_of_one`: memory of the derivatives of one output, of all rows.
    """
    num, out, _ = hessians.shape
    batch_size = batch_size_for(2 * bytes_of_one, out)
    eye = jnp.broadcast_to(jnp.eye(out, dtype=hessians.dtype), hessians.shape)

    def split(matrices):
        by_output = jnp.swapaxes(matrices, 0, 1)
        padded = jnp.pad(by_output, ((0, -out % batch_size), (0, 0), (0, 0)))
        return padded.reshape(-1, batch_size, num, out)

    return split(eye), split(hessians)


def exact_hessian(
    joint: LogJoint,
    model: Model,
    flags: PyTree[bool],
    x: PyTree,
    y: PyTree,
    weights: Float[Array, " rows"],
) -> tuple[Float[Array, "dim dim"], Float[Array, "rows 2"]]:
    """Return minus the Hessian of the log-likelihood in the weights themselves.

    It includes the second derivatives of the network, which a Gauss-Newton matrix
    leaves out.
    """
    vector, output = as_function(joint, model, flags)

    def one(vector, x, y):
        return log_likelihood_of(joint.likelihood(output(vector, x)), y)

    def total(vector):
        values = jax.vmap(lambda x, y: one(vector, x, y))(x, y)
        return -jnp.sum(weighted(weights, values))

    slope = jax.grad(total)

    def forwards(column):
        return jax.jvp(slope, (vector,), (column,))[1]

    def backwards(column):
        return jax.grad(lambda v: slope(v) @ column)(vector)

    columns = jnp.eye(vector.size, dtype=vector.dtype)
    product = forwards if has_forward_mode(forwards, columns[0]) else backwards
    matrix = jax.lax.map(product, columns, batch_size=HESSIAN_COLUMNS)
    _, values = jax.vmap(
        lambda x, y: output_hessian(joint, output(vector, x), y, "fisher")
    )(x, y)
    return 0.5 * (matrix + matrix.T), values


def as_function(joint: LogJoint, model: Model, flags: PyTree[bool]) -> tuple[Any, Any]:
    """Return the chosen leaves as a vector, and `output(vector, x)` of one row."""
    params, rest = eqx.partition(model, flags)
    vector, unravel = ravel(params)

    def output(vector, x):
        model = constrained(eqx.combine(unravel(vector), rest))
        return joint.apply(model, x, key=jax.random.key(0))

    return vector, output
