"""The prior of a leaf in its unconstrained coordinates."""

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.transforms import (
    ExpTransform,
    OrderedTransform,
    SigmoidTransform,
    StickBreakingTransform,
    Transform,
)

from ..._types import PRNGKey

# Transforms without parameters, which can be compared while they are traced.
_PLAIN = (ExpTransform, OrderedTransform, SigmoidTransform, StickBreakingTransform)


def unconstrained_prior(
    p: dist.Distribution, bijector: Transform, temperature: float
) -> dist.Distribution:
    r"""Return the distribution of $u = T^{-1}(w)$ for $w \sim p$.

    Where p is itself a distribution pushed through T, as a LogNormal is, it is that
    distribution, so that whatever is exact for a Normal prior is exact here.

    **Arguments:**

    - `p`: the prior of w.
    - `bijector`: T.
    - `temperature`: of the joint density; see `UnconstrainedPrior`.
    """
    pushed = isinstance(p, dist.TransformedDistribution)
    if pushed and temperature == 1.0 and isinstance(bijector, _PLAIN):
        (first, *others) = p.transforms
        if not others and type(first) is type(bijector):
            return p.base_dist
    return UnconstrainedPrior(p, bijector, temperature)


class UnconstrainedPrior(dist.Distribution):
    r"""Density $\log p(T(u)) + \tau \log |\partial T / \partial u|$ of u.

    A joint density at temperature $\tau$ is divided by $\tau$ as a whole. The factor
    of the Jacobian cancels that, because $p(w \mid \mathcal D)^{1/\tau}$ is a density
    over w: it must not depend on the coordinates in which a method moves.

    **Arguments:**

    - `base`: p.
    - `bijector`: T.
    - `temperature`: $\tau$; the density is normalised at 1.
    """

    support = constraints.real  # pyright: ignore[reportAssignmentType]
    pytree_data_fields = ("base", "bijector")
    pytree_aux_fields = ("temperature",)

    def __init__(
        self,
        base: dist.Distribution,
        bijector: Transform,
        temperature: float = 1.0,
        *,
        validate_args: bool | None = None,
    ):
        self.base = base
        self.bijector = bijector
        self.temperature = temperature
        domain, codomain = bijector.domain.event_dim, bijector.codomain.event_dim
        event_dim = max(domain, base.event_dim + domain - codomain)
        shape = base.batch_shape + base.event_shape
        # A scalar prior stands for each entry of its leaf, and has no shape to change.
        shape = bijector.inverse_shape(shape) if len(shape) >= codomain else shape
        cut = len(shape) - event_dim
        super().__init__(shape[:cut], shape[cut:], validate_args=validate_args)

    def sample(self, key: PRNGKey, sample_shape: tuple[int, ...] = ()) -> Any:
        return self.bijector.inv(self.base.sample(key, sample_shape))

    def log_prob(self, value: Array) -> Float[Array, "..."]:
        w = self.bijector(value)
        volume = jnp.asarray(self.bijector.log_abs_det_jacobian(value, w))
        extra = volume.ndim - (value.ndim - self.event_dim)
        if extra > 0:
            volume = jnp.sum(volume, axis=tuple(range(-extra, 0)))
        return jnp.asarray(self.base.log_prob(w) + self.temperature * volume)
