"""The trace of a Jacobian, exact or from random probes."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._random.keys import check_key
from ..._types import PRNGKey


class AbstractTrace(eqx.Module):
    """An estimator of tr J from products of J with vectors.

    It returns several replicates, whose mean is the estimate and whose spread is its
    error. The same key gives the same probes, so along a solve all times share the
    error of each replicate, and the integral of a replicate is a replicate.
    """

    num_replicates: eqx.AbstractVar[int]

    @abc.abstractmethod
    def __call__(
        self,
        product: Callable[[Float[Array, " dim"]], Float[Array, " dim"]],
        dim: int,
        dtype,
        *,
        key: PRNGKey | None,
    ) -> Float[Array, " replicates"]:
        """Return replicates of tr J.

        **Arguments:**

        - `product`: v to J v.
        - `dim`, `dtype`: of v.
        - `key`: of the probes.
        """


class ExactTrace(AbstractTrace):
    """The exact trace, by one product for each dimension; for up to about a hundred."""

    num_replicates: int = eqx.field(static=True)

    def __init__(self):
        self.num_replicates = 1

    def __call__(self, product, dim, dtype, *, key):
        return jnp.trace(jax.vmap(product)(jnp.eye(dim, dtype=dtype)))[None]


class Hutchinson(AbstractTrace):
    r"""$v^T J v$ for random v with $E[v v^T] = I$.

    For a symmetric J the variance of one replicate is $2 \sum_{i \ne j} J_{ij}^2$ for
    Rademacher probes and $2 \|J\|_F^2$ for Gaussian ones.

    Reference: *FFJORD*, Grathwohl et al., 2019; Hutchinson, 1990.

    **Arguments:**

    - `num_probes`: replicates; at least 2 give an error bar.
    - `gaussian`: Gaussian probes; Rademacher (signs) otherwise.
    """

    num_replicates: int = eqx.field(static=True)
    gaussian: bool = eqx.field(static=True)

    def __init__(self, num_probes: int = 1, *, gaussian: bool = False):
        if num_probes < 1:
            raise ValueError(f"num_probes={num_probes}: take at least one")
        self.num_replicates = num_probes
        self.gaussian = gaussian

    def __call__(self, product, dim, dtype, *, key):
        assert key is not None
        draw = jax.random.normal if self.gaussian else jax.random.rademacher
        probes = draw(key, (self.num_replicates, dim), dtype)
        return jax.vmap(lambda v: v @ product(v))(probes)


class HutchPP(AbstractTrace):
    r"""Hutch++: the trace on a random subspace exactly, the rest by Hutchinson.

    $$\mathrm{tr}(Q^T J Q) + g^T (I - Q Q^T) J (I - Q Q^T) g, \quad
      Q = \mathrm{qr}(J S)$$

    Exact when the rank of J is at most the size of the subspace, and better than
    `Hutchinson` where the eigenvalues fall fast. It takes `2 rank + num_probes`
    products.

    Reference: *Hutch++: Optimal Stochastic Trace Estimation*, Meyer et al., 2021.

    **Arguments:**

    - `rank`: columns of S, at most the dimension.
    - `num_probes`: replicates of the rest.
    """

    num_replicates: int = eqx.field(static=True)
    rank: int = eqx.field(static=True)

    def __init__(self, rank: int = 1, num_probes: int = 1):
        if rank < 1 or num_probes < 1:
            raise ValueError(f"rank={rank}, num_probes={num_probes}: at least one each")
        self.rank = rank
        self.num_replicates = num_probes

    def __call__(self, product, dim, dtype, *, key):
        assert key is not None
        sketch_key, probe_key = jax.random.split(key)
        sketch = jax.random.normal(sketch_key, (min(self.rank, dim), dim), dtype)
        basis = jnp.linalg.qr(jax.vmap(product)(sketch).T)[0].T
        main = jnp.sum(basis * jax.vmap(product)(basis))
        probes = jax.random.rademacher(probe_key, (self.num_replicates, dim), dtype)
        rest = probes - (probes @ basis.T) @ basis
        return main + jax.vmap(lambda v: v @ product(v))(rest)


def checked_trace(
    function: str, trace: AbstractTrace | None, key: PRNGKey | None
) -> AbstractTrace:
    """Return the estimator of a density, exact by default.

    **Raises:** `ValueError` for random probes without a key.
    """
    trace = ExactTrace() if trace is None else trace
    if key is None and not isinstance(trace, ExactTrace):
        raise ValueError(f"{type(trace).__name__} draws probes: give {function} a key")
    if key is not None:
        check_key(key)
    return trace
