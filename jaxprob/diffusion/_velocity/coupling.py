"""Couplings: which example of the source goes with which of the data, in a batch."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.optimize import linear_sum_assignment

from ..._types import PRNGKey
from .._schedule.argument_checks import check_count


class AbstractCoupling(eqx.Module):
    """Base class of couplings of the rows of a batch.

    Any coupling with the right marginals gives a flow from the source to the data. It
    decides how straight the paths are, and so how many steps a sampler needs.
    """

    @abc.abstractmethod
    def __call__(
        self,
        x_source: Float[Array, "batch dim"],
        x: Float[Array, "batch dim"],
        allowed: Bool[Array, "batch batch"],
        *,
        key: PRNGKey,
    ) -> Int[Array, " batch"]:
        """Return the row of the source for each row of the data.

        **Arguments:**

        - `x_source`, `x`: rows of source and data, in units of the velocity's scale.
        - `allowed`: whether row i of the data may be paired with row j of the source,
            `True` on the diagonal: the rows have equal conditions, and both count.
        - `key`: of a random coupling.
        """


class IndependentCoupling(AbstractCoupling):
    """Row i with row i: independent if the source is drawn, as given if it is paired.

    Reference: *Flow Matching for Generative Modeling*, Lipman et al., 2023.
    """

    def __call__(self, x_source, x, allowed, *, key):
        return jnp.arange(len(x))


class OTCoupling(AbstractCoupling):
    r"""The permutation of least $\sum_i |y_{\pi(i)} - x_i|^2$ in the batch.

    It is found on the host by SciPy's `linear_sum_assignment`, whose time grows as the
    cube of the rows: keep batches to some hundred. The flow of a batch of B rows
    approaches that of optimal transport, whose paths are straight, as B grows: slowly
    in many dimensions.

    Reference: *Improving and Generalizing Flow-Based Generative Models with Minibatch
    Optimal Transport*, Tong et al., 2024; *Multisample Flow Matching*, Pooladian et
    al., 2023.
    """

    def __call__(self, x_source, x, allowed, *, key):
        cost = jnp.where(allowed, _cost(x_source, x), jnp.inf)
        shape = jax.ShapeDtypeStruct((len(x),), jnp.int32)
        return jax.pure_callback(_assignment, shape, cost, vmap_method="sequential")


class SinkhornCoupling(AbstractCoupling):
    r"""Pairs drawn from the plan of optimal transport with an entropy term.

    The plan P minimises $\sum_{ij} P_{ij} |x_i - y_j|^2 - \epsilon H(P)$ with uniform
    marginals, by Sinkhorn's iterations in the log-domain, on the device. Each row of
    the data draws one row of the source from its row of P; a row of the source may be
    drawn more than once. It is between `OTCoupling` ($\epsilon \to 0$) and
    `IndependentCoupling` ($\epsilon \to \infty$). Prefer `OTCoupling`, which has no
    parameters, for batches of a few hundred rows.

    Reference: *Sinkhorn Distances*, Cuturi, 2013; Tong et al., 2024, section 3.3.

    **Arguments:**

    - `regularisation`: $\epsilon$ over the mean of the squared distances; 0.05 by
        default, as in Tong et al. for standardised data.
    - `num_iterations`: updates of both marginals.
    """

    regularisation: float = eqx.field(static=True)
    num_iterations: int = eqx.field(static=True)

    def __init__(self, regularisation: float = 0.05, *, num_iterations: int = 100):
        if not 0.0 < regularisation < np.inf:
            raise ValueError(
                f"regularisation={regularisation}: give a positive number, e.g. 0.05; "
                "OTCoupling() is the limit of 0"
            )
        check_count("num_iterations", num_iterations, "update at least once")
        self.regularisation = regularisation
        self.num_iterations = num_iterations

    def __call__(self, x_source, x, allowed, *, key):
        logits = jnp.where(allowed, self.log_plan(x_source, x, allowed), -jnp.inf)
        return jax.random.categorical(key, logits, axis=1)

    def log_plan(
        self,
        x_source: Float[Array, "batch dim"],
        x: Float[Array, "batch dim"],
        allowed: Bool[Array, "batch batch"],
    ) -> Float[Array, "batch batch"]:
        """Return log P of each row of the data and of the source, up to a constant.

        **Arguments:** as in a call.
        """
        squares = jnp.mean(jnp.sum(x**2, axis=1) + jnp.sum(x_source**2, axis=1))
        mean = squares - 2.0 * jnp.mean(x, axis=0) @ jnp.mean(x_source, axis=0)
        epsilon = self.regularisation * jnp.maximum(mean, jnp.finfo(x.dtype).tiny)
        # Terms of one row alone are absorbed by the marginals, as in `_cost`.
        kernel = jnp.where(allowed, -2.0 * _cost(x_source, x) / epsilon, -jnp.inf)

        def update(potentials, _):
            _, g = potentials
            f = -jax.nn.logsumexp(kernel + g[None, :], axis=1)
            g = -jax.nn.logsumexp(kernel + f[:, None], axis=0)
            return (f, g), None

        zeros = jnp.zeros(len(x), x.dtype)
        (f, g), _ = jax.lax.scan(update, (zeros, zeros), length=self.num_iterations)
        return kernel + f[:, None] + g[None, :]


def _cost(x_source, x):
    """Return half of each squared distance, up to terms of one row alone.

    Sums over a permutation, and plans with fixed marginals, do not depend on those
    terms. Rows are centred, so that products keep their digits.
    """
    x, x_source = (
        rows - jnp.mean(rows, axis=0, keepdims=True) for rows in (x, x_source)
    )
    return -jnp.matmul(x, x_source.T, precision="highest")


def _assignment(cost):
    # A NaN comes from the data and shows in the loss, which names the step.
    cost = np.nan_to_num(np.asarray(cost, np.float64), nan=0.0, posinf=np.inf)
    return linear_sum_assignment(cost)[1].astype(np.int32)
