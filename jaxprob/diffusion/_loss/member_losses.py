"""The loss of several denoisers that are trained side by side."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..._training.call_loss import AbstractCheckedLoss
from ..._types import Metrics, PRNGKey
from .._denoiser.averaged import Averaged
from .._schedule.argument_checks import check_kind
from .._types import Scalar
from .loss import DenoisingLoss


class MemberLosses(AbstractCheckedLoss):
    """The sum of the losses of the members of an `Averaged`, each with other noise.

    Members have no parameters in common, so each is trained as it would be alone: they
    differ by their initial weights, their noise and their times.

    **Arguments:**

    - `loss`: of one member.
    """

    loss: DenoisingLoss

    def check(self, averaged: Averaged, data: PyTree) -> None:
        """Check the data by the loss of the first member.

        **Raises:** as `DenoisingLoss.check`; `TypeError` if there are no members.
        """
        check_kind("model", averaged, Averaged, "write Averaged.of([denoiser, ...])")
        first = jax.tree.map(lambda a: a[0] if eqx.is_array(a) else a, averaged.members)
        self.loss.check(first, data)

    def __call__(
        self, averaged: Averaged, batch: PyTree, *, key: PRNGKey
    ) -> tuple[Scalar, Metrics]:
        arrays, static = eqx.partition(averaged.members, eqx.is_array)

        def one(arrays, key):
            return self.loss(eqx.combine(arrays, static), batch, key=key)[0]

        losses = jax.vmap(one)(arrays, jax.random.split(key, averaged.num_members))
        return jnp.sum(losses), {"mean_loss": jnp.mean(losses)}
