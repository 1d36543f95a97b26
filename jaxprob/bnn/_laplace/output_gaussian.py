"""Gaussian over the outputs of the network linearised at the mode.

Each function is compiled whole: line by line, each line would be a program for each
shape.
"""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from ...tree._ravel import ravel
from .._weights.unconstrained import constrained
from .curvature import AbstractCurvature
from .sum_over_rows import batch_size_for

MAX_ROWS = 64


class LinearisedNetwork(eqx.Module):
    r"""$f_{\hat w}(x) + J(x) (w - \hat w)$, as a function of one row.

    **Arguments:**

    - `params`: $\hat w$, `None` at leaves that are not random.
    - `rest`: all other leaves.
    - `apply`: as in `LogJoint`.
    """

    params: PyTree
    rest: PyTree
    apply: Any

    def at(self, x: PyTree) -> tuple[Float[Array, " out"], Float[Array, "out dim"]]:
        """Return the outputs for one row, flattened, and their Jacobian."""
        vector, unravel = ravel(self.params)
        rest = eqx.nn.inference_mode(self.rest)

        def output(vector):
            model = constrained(eqx.combine(unravel(vector), rest))
            return ravel(self.apply(model, x, key=jax.random.key(0)))[0]

        return output(vector), jax.jacrev(output)(vector)

    def output_shapes(self, x: PyTree) -> Any:
        """Return the shapes of the output for the first row."""
        model = constrained(eqx.combine(self.params, self.rest))
        model = eqx.nn.inference_mode(model)
        return eqx.filter_eval_shape(
            lambda row: self.apply(model, row, key=jax.random.key(0)), _first(x)
        )

    def map_rows(self, function: Any, x: PyTree) -> Any:
        """Map a function over rows, as many at a time as their Jacobians allow."""
        _, jacobian = jax.eval_shape(self.at, _first(x))
        # The Jacobian, and the products that the curvature makes of it.
        size = batch_size_for(4 * jacobian.size * jacobian.dtype.itemsize, MAX_ROWS)
        return jax.lax.map(function, x, batch_size=size)


@eqx.filter_jit
def output_distribution(
    network: LinearisedNetwork,
    curvature: AbstractCurvature,
    tau: Float[Array, " dim"],
    temperature: float,
    x: PyTree,
) -> tuple[Float[Array, "rows out"], Float[Array, "rows out out"]]:
    """Return mean and covariance of the outputs of each row."""
    root = curvature.root(tau)

    def one(x):
        mean, jacobian = network.at(x)
        return mean, temperature * curvature.spread(root, jacobian)

    return network.map_rows(one, x)


@eqx.filter_jit
def joint_output_distribution(
    network: LinearisedNetwork,
    curvature: AbstractCurvature,
    tau: Float[Array, " dim"],
    temperature: float,
    x: PyTree,
) -> tuple[Float[Array, "rows out"], Float[Array, "rows out rows out"]]:
    """Return mean and covariance of the outputs of all rows together."""
    mean, jacobian = network.map_rows(network.at, x)
    rows = jacobian.reshape(-1, jacobian.shape[-1])
    covariance = curvature.spread(curvature.root(tau), rows)
    return mean, temperature * covariance.reshape(mean.shape + mean.shape)


def _first(x):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
