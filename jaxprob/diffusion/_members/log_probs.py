"""Log-densities under each of several denoisers."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._types import PRNGKey
from .._denoiser.averaged import Averaged
from .._density.density_flow import LogProb
from .._density.log_prob import log_prob
from .._density.map_examples import map_examples
from .._types import Numbers
from .each import each, members_of


class MemberLogProbs(eqx.Module):
    """Log-densities of examples under K denoisers, in nats.

    **Fields:**

    - `value`: of example i under member k, `value[k, i]`.
    - `trace_error`: standard errors of the values, from random probes.
    """

    value: Float[Array, "members num"]
    trace_error: Float[Array, "members num"]

    @property
    def mean(self) -> Float[Array, " num"]:
        """Mean over the members."""
        return jnp.mean(self.value, axis=0)

    @property
    def std(self) -> Float[Array, " num"]:
        """Standard deviation over the members, the epistemic error of the value.

        Random probes add to it: with an inexact trace their mean square error, which
        is known, is subtracted.
        """
        variance = jnp.var(self.value, axis=0, ddof=1)
        noise = jnp.mean(jnp.nan_to_num(self.trace_error) ** 2, axis=0)
        return jnp.sqrt(jnp.maximum(variance - noise, 0.0))

    @property
    def log_mean(self) -> Float[Array, " num"]:
        """Log-density of the mixture of the members, $\\log \\frac1K \\sum_k p_k$."""
        log_num = jnp.log(jnp.asarray(len(self.value), self.value.dtype))
        return jnp.logaddexp.reduce(self.value, axis=0) - log_num

    def interval(
        self, mass: float = 0.9
    ) -> tuple[Float[Array, " num"], Float[Array, " num"]]:
        """Return quantiles over the members with a mass between them.

        **Arguments:**

        - `mass`: in (0, 1); an interval of 0.9 needs 20 members and more.
        """
        if not 0.0 < mass < 1.0:
            raise ValueError(f"mass={mass}: the mass of an interval is in (0, 1)")
        tails = jnp.asarray([0.5 - mass / 2.0, 0.5 + mass / 2.0])
        low, high = jnp.quantile(self.value, tails.astype(self.value.dtype), axis=0)
        return low, high


def log_prob_members(
    averaged: Averaged,
    x: Numbers,
    *,
    cond: PyTree = None,
    key: PRNGKey | None = None,
    batch_size: int | None = None,
    function: Callable[..., LogProb] = log_prob,
    **settings: Any,
) -> MemberLogProbs:
    """Return the log-density of many examples under each member of an average.

    The members are separate diffusion models, and the spread of their densities is
    the error bar that the finite data leave on `log_prob`.

    ```python
    averaged = Averaged.of([denoiser_1, denoiser_2, denoiser_3])
    out = log_prob_members(averaged, x)
    nats, error = out.mean, out.std
    ```

    **Arguments:**

    - `averaged`: the members, at least two.
    - `x`, `cond`, `key`, `batch_size`, `settings`: as in `map_examples` of `log_prob`.
        All members have the same probes.
    - `function`: `log_prob` or a function of its form.

    **Raises:** as `map_examples`, with the member in a note.
    """
    members = members_of(averaged)

    def values(member):
        out = map_examples(
            function, member, x, cond=cond, key=key, batch_size=batch_size, **settings
        )
        return out.value, out.trace_error

    found = each(values, members)
    return MemberLogProbs(
        jnp.stack([value for value, _ in found]),
        jnp.stack([error for _, error in found]),
    )
