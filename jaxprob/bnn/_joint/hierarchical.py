"""Gaussian priors with one unknown scale for each group of weights."""

import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from ..._types import PRNGKey


class HierarchicalNormal(eqx.Module):
    r"""Gaussian weights with one precision for each group, integrated out.

    $$w_g \mid \tau_g \sim \mathcal N(0, \tau_g^{-1} I), \quad \tau_g \sim
      \mathrm{Gamma}(a, b): \qquad \log p(w_g) = -(a + \tfrac n 2)
      \log(b + \tfrac 1 2 \lVert w_g \rVert^2) + \text{const}$$

    It is a multivariate Student t distribution with 2a degrees of freedom. With groups
    by input, all weights of one input share a scale, and the data switch off inputs
    that explain nothing (automatic relevance determination). Sampling and variational
    methods average over all scales. Do not maximise this density: at its mode whole
    groups collapse to zero.

    Reference: *Bayesian learning for neural networks*, Neal, 1996, sections 1.2.2 and
    4.1.

    ```python
    prior = PriorByPath({"layers.0.weight": HierarchicalNormal("input"),
                         "*": HierarchicalNormal("leaf")})
    ```

    **Arguments:**

    - `groups`: `"leaf"`, one scale for each array; `"input"` or `"output"`, one for
        each index of the second or first axis of a weight, in Equinox's layout. Arrays
        of one axis are one group.
    - `shape`, `rate`: a and b above zero. The prior of $\tau$ has mean a / b, and is
        wide where both are small.
    """

    groups: Literal["leaf", "input", "output"] = eqx.field(static=True, default="leaf")
    shape: float = eqx.field(static=True, default=1.0)
    rate: float = eqx.field(static=True, default=0.1)

    def __check_init__(self):
        if self.groups not in ("leaf", "input", "output"):
            raise ValueError(
                f"groups={self.groups!r}: give 'leaf', 'input' or 'output'"
            )
        for name in ("shape", "rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: it has to be positive")

    def __call__(self, path: str, leaf: Any) -> dist.Distribution:
        axis = None
        if self.groups != "leaf" and leaf.ndim > 1:
            axis = 1 if self.groups == "input" else 0
        return GroupedStudentT(leaf.shape, axis, self.shape, self.rate)


class GroupedStudentT(dist.Distribution):
    """Array of independent multivariate Student t vectors, the slices along `axis`.

    Each has 2 `shape` degrees of freedom. Without an axis the array is one vector.

    **Arguments:**

    - `array_shape`: of the whole array, which is one event.
    - `axis`: its indices are the groups; `None` for one group.
    - `shape`, `rate`: of the Gamma distribution of each group's precision.
    """

    support = constraints.real  # pyright: ignore[reportAssignmentType]
    pytree_aux_fields = ("array_shape", "axis", "shape_", "rate")

    def __init__(
        self,
        array_shape: tuple[int, ...],
        axis: int | None,
        shape: float,
        rate: float,
        *,
        validate_args: bool | None = None,
    ):
        self.array_shape = tuple(array_shape)
        self.axis = axis
        self.shape_ = shape
        self.rate = rate
        super().__init__((), self.array_shape, validate_args=validate_args)

    @property
    def _rest(self):
        """The axes of one group."""
        axes = range(len(self.array_shape))
        return tuple(a - len(self.array_shape) for a in axes if a != self.axis)

    @property
    def _size(self):
        return math.prod(self.array_shape[a] for a in self._rest)

    @property
    def mean(self) -> Float[Array, "..."]:
        """Zero; undefined up to one degree of freedom."""
        return jnp.full(self.array_shape, 0.0 if self.shape_ > 0.5 else jnp.nan)

    @property
    def variance(self) -> Float[Array, "..."]:
        """b / (a - 1); infinite up to two degrees of freedom."""
        value = self.rate / (self.shape_ - 1.0) if self.shape_ > 1.0 else jnp.inf
        return jnp.full(self.array_shape, value)

    def sample(self, key: PRNGKey, sample_shape: tuple[int, ...] = ()) -> Array:
        scale_key, key = jax.random.split(key)
        groups = [1] * len(self.array_shape)
        if self.axis is not None:
            groups[self.axis] = self.array_shape[self.axis]
        # In logarithms, because a precision below 1e-38 would be zero in float32.
        log_precision = jax.random.loggamma(
            scale_key, self.shape_, (*sample_shape, *groups)
        ) - math.log(self.rate)
        noise = jax.random.normal(key, (*sample_shape, *self.array_shape))
        return noise * jnp.exp(-0.5 * log_precision)

    def log_prob(self, value: Array) -> Float[Array, "..."]:
        a, b, n = self.shape_, self.rate, self._size
        squares = jnp.sum(value**2, axis=self._rest)
        constant = math.lgamma(a + n / 2) - math.lgamma(a) + a * math.log(b)
        constant -= n / 2 * math.log(2 * math.pi)
        terms = constant - (a + n / 2) * jnp.log(b + squares / 2)
        batch = terms.ndim if self.axis is None else terms.ndim - 1
        return jnp.sum(terms, axis=tuple(range(batch, terms.ndim)))
