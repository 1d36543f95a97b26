"""Outputs of all sampled models in each row: kept, or computed when needed."""

import abc

import equinox as eqx
import jax
from jaxtyping import Array, Num, PyTree

from .draw_outputs import DrawOutputs
from .row_batches import map_batches
from .static import Static


class AbstractOutputs(eqx.Module):
    """Base class of the outputs of all sampled models.

    **Fields:**

    - `rows`: arrays with a leading axis of rows.
    """

    rows: eqx.AbstractVar[PyTree]

    @abc.abstractmethod
    def of(self, rows: PyTree) -> PyTree[Num[Array, "rows samples ..."]]:
        """Return the outputs of some of the rows."""

    @abc.abstractmethod
    def whole(self, batch_size: int) -> PyTree[Num[Array, "rows samples ..."]]:
        """Return the outputs of all rows, computed `batch_size` rows at a time."""

    @property
    @abc.abstractmethod
    def num_samples(self) -> int:
        """Number of sampled models."""


class KeptOutputs(AbstractOutputs):
    """Outputs in memory.

    **Arguments:**

    - `rows`: the outputs, with leading axes of rows and samples.
    """

    rows: PyTree[Num[Array, "rows samples ..."]]

    def of(self, rows: PyTree) -> PyTree[Num[Array, "rows samples ..."]]:
        return rows

    def whole(self, batch_size: int) -> PyTree[Num[Array, "rows samples ..."]]:
        return self.rows

    @property
    def num_samples(self) -> int:
        return jax.tree.leaves(self.rows)[0].shape[1]


class RecomputedOutputs(AbstractOutputs):
    """Outputs that are computed anew for each statistic, always the same ones.

    **Arguments:**

    - `rows`: inputs.
    - `draw`: a `DrawOutputs`.
    """

    rows: PyTree
    draw: Static[DrawOutputs]

    def of(self, rows: PyTree) -> PyTree[Num[Array, "rows samples ..."]]:
        return self.draw.value(rows)

    def whole(self, batch_size: int) -> PyTree[Num[Array, "rows samples ..."]]:
        return map_batches(self.of, self.rows, batch_size)

    @property
    def num_samples(self) -> int:
        return self.draw.value.num_samples
