"""Samplers that need the whole data set in each transition."""

from jaxtyping import PyTree

from ..._training.batch import Batch, num_rows, unpack
from ..._types import Model
from .chains import AbstractChains
from .kept_draws import KeptDraws


class AbstractFullBatch(AbstractChains):
    """Base class of samplers whose target is the same density in each update.

    Models are in inference mode: dropout is off, running statistics are constants.
    """

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
