"""Samplers that need the whole data set in each transition."""

from typing import TYPE_CHECKING

from jaxtyping import Array, Float, PyTree

from ..._training.batch import Batch, num_rows, unpack
from ..._types import Model
from .chains import AbstractChains
from .forward_mode import forward_gradient
from .kept_draws import KeptDraws

if TYPE_CHECKING:  # see _training/capabilities.py
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractFullBatch(AbstractChains):
    """Base class of samplers whose target is the same density in each update.

    Models are in inference mode: dropout is off, running statistics are constants.

    **Fields:**

    - `forward_mode`: whether gradients are computed by forward-mode differentiation.
    """

    forward_mode: AbstractVar[bool]

    def log_density(
        self, model: Model, vector: Float[Array, " dim"], data: PyTree
    ) -> Float[Array, ""]:
        """Return the log joint, whose gradient is computed as `forward_mode` says."""

        def density(vector):
            return super(AbstractFullBatch, self).log_density(model, vector, data)

        return (forward_gradient(density) if self.forward_mode else density)(vector)

    @property
    def schedule(self) -> KeptDraws:
        return KeptDraws(self.num_warmup, self.num_draws, self.thin)

    def check_num_rows(self, rows: int, *, largest: int = 0) -> None:
        """Reject rows that are not `num_data`, in the data set or in its batches."""
        self._check_count(largest or rows)

    def check_whole(self, batch: PyTree) -> None:
        """Raise `ValueError` for a batch that is not the whole data set."""
        data, _ = unpack(batch)
        rows = num_rows(data)
        if isinstance(batch, Batch):  # of which some may be padding
            rows = min(rows, self.log_joint.num_data)
        self._check_count(rows)

    def trains_statistics(self, model: Model) -> bool:
        return False

    def _check_count(self, rows):
        if rows > self.log_joint.num_data:
            raise ValueError(
                f"the data have {rows} rows and num_data is {self.log_joint.num_data}: "
                "it is the number of rows that are trained on, len(x). A smaller one "
                "would widen the posterior; LogJoint(..., temperature=T) does that"
            )
        if rows < self.log_joint.num_data:
            raise ValueError(
                f"this batch has {rows} rows and num_data is "
                f"{self.log_joint.num_data}: the sampler needs the whole data set in "
                "each step, batch_size=len(x). For minibatches use SGLD."
            )
