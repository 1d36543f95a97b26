"""The parts of a network that read the noise and its conditions."""

import equinox as eqx
import jax
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .._types import Cond
from ._condition import AbstractReader
from ._embedding import Embedding, embedded
from ._kinds import (
    AbstractKind,
    ClassCondition,
    ImageCondition,
    Kinds,
    SequenceCondition,
    VectorCondition,
    check_kinds,
)
from ._parts import ConditionReader, ReadConditions

ROWS = ClassCondition, VectorCondition
ALL = ClassCondition, VectorCondition, ImageCondition, SequenceCondition


def build_readers(
    dim: int,
    conditions: Kinds | None,
    num_classes: int | None,
    cond_dim: int | None,
    *,
    allowed: tuple[type[AbstractKind], ...] = ALL,
    key: PRNGKey,
) -> tuple[Embedding, ConditionReader | None]:
    """Return the embedding of a network, and the reader of conditions beyond it.

    **Arguments:**

    - `dim`: size of the embedding.
    - `conditions`, `num_classes`, `cond_dim`: of the network; one class or vector is
        read by the embedding itself.
    - `allowed`: kinds that the network can read.
    - `key`: of the initial weights.

    **Raises:** `ValueError` for a kind given twice, `TypeError` for one that the
    network cannot read.
    """
    if conditions is None:
        embedding = Embedding(dim, num_classes=num_classes, cond_dim=cond_dim, key=key)
        return embedding, None
    if num_classes is not None or cond_dim is not None:
        raise ValueError(
            "give num_classes or cond_dim, or conditions, not both: write e.g. "
            "conditions={'label': nn.ClassCondition(10), 'low': nn.ImageCondition(1)}"
        )
    check_kinds(conditions, allowed)
    if isinstance(conditions, ClassCondition):
        return Embedding(dim, num_classes=conditions.num_classes, key=key), None
    if isinstance(conditions, VectorCondition):
        missing = conditions.missing
        embedding = Embedding(
            dim, cond_dim=conditions.dim, missing_entries=missing, key=key
        )
        return embedding, None
    reader = ConditionReader(conditions, dim, key=jax.random.fold_in(key, 1))
    return Embedding(dim, key=key), reader


def with_in_channels(
    conditions: Kinds | None, channels: int, in_channels: int | None
) -> Kinds | None:
    """Return the kinds of a network whose first layer has `in_channels` channels.

    Channels beyond those of the example are an image condition.

    **Raises:** `ValueError` for a number that does not fit.
    """
    if in_channels is None or in_channels == channels:
        return conditions
    if conditions is not None or in_channels < channels:
        raise ValueError(
            f"in_channels={in_channels}, but examples have {channels} channels: "
            "channels beyond them are an image condition, in_channels="
            f"{channels + 1}, or with other conditions "
            "conditions={..., 'image': nn.ImageCondition(1)}"
        )
    return ImageCondition(in_channels - channels)


class Readers(eqx.Module):
    """The embedding of a network and the reader of its other conditions."""

    embedding: Embedding
    conditions: ConditionReader | None

    @property
    def reader(self) -> AbstractReader:
        """The part that is given the condition as it is."""
        return self.embedding if self.conditions is None else self.conditions

    def __call__(
        self, x: Float[Array, "channels *spatial"], c: Float[Array, ""], cond: Cond
    ) -> tuple[Float[Array, " dim"], ReadConditions]:
        """Return silu of the embedding, and what else is read of the condition."""
        if self.conditions is None:
            return embedded(self.embedding, c, cond, x.dtype), ReadConditions()
        read = self.conditions(cond, x.shape[1:], x.dtype)
        return embedded(self.embedding, c, None, x.dtype, read.row), read
