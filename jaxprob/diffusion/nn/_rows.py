"""Readers of a class or a vector, which give one vector."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .._types import ARRAYS
from ._condition import (
    AbstractReader,
    Condition,
    check_not_boolean,
    is_condition,
    when_present,
)


class AbstractRowReader(AbstractReader):
    """A reader of a class by a table, or of a vector by a linear map.

    **Fields:**

    - `classes`: the table.
    - `vector`: the linear map.
    - `missing`: a vector for each entry that may be missing; `None` if none may.
    """

    classes: eqx.AbstractVar[Float[Array, "classes dim"] | None]
    vector: eqx.AbstractVar[eqx.nn.Linear | None]
    missing: eqx.AbstractVar[Float[Array, "entries dim"] | None]

    @property
    def missing_entries(self) -> bool:
        return self.missing is not None

    def row(self, cond: Array | Condition | None) -> Float[Array, " dim"] | None:
        """Return the vector of a condition, `None` if the network reads none."""
        if self.nothing is None:
            if cond is None:
                return None
            raise ValueError(
                "the network was given a condition but built without one; build it "
                "with num_classes or cond_dim"
            )
        if self.missing is not None and cond is not None:
            return self._row_with_missing(cond)
        if isinstance(cond, Condition) and jnp.ndim(cond.present):
            raise ValueError(
                f"present has shape {cond.present.shape} for one example: the network "
                "was built for conditions without missing entries. Build it with "
                "conditions=nn.VectorCondition(dim, missing=True)"
            )
        return when_present(cond, self._row, self.nothing)

    def _row_with_missing(self, cond):
        missing = self.missing
        assert self.nothing is not None
        assert missing is not None
        value = cond.value if is_condition(cond) else cond
        row_of, shape = self._row, (self.cond_dim,)
        if jnp.shape(value) != shape:
            return row_of(value)  # raises
        check_not_boolean(value)
        present = cond.present if is_condition(cond) else jnp.asarray(True)
        value = jnp.asarray(value, self.nothing.dtype)
        known = jnp.broadcast_to(present, shape) & ~jnp.isnan(value)
        # The value is replaced before the product: `where` passes NaN to gradients.
        row = row_of(jnp.where(known, value, 0.0))
        row = row + (~known).astype(row.dtype) @ missing
        return jnp.where(known.any(), row, self.nothing)

    def _row(self, cond):
        if not isinstance(cond, ARRAYS):
            raise TypeError(
                f"cond is a {type(cond).__name__} where an Embedding takes one array: "
                "give it jnp.asarray(...) of a class or a vector, or the leaf of a "
                "tree that it is to read"
            )
        check_not_boolean(cond)
        if self.classes is not None:
            if jnp.shape(cond) != () or not jnp.issubdtype(cond.dtype, jnp.integer):
                raise ValueError(
                    f"cond is {cond.dtype}{list(jnp.shape(cond))} where one class, an "
                    f"integer in 0, ..., {len(self.classes) - 1}, is needed"
                )
            # An unknown class reads as NaN, which training and sampling report. JAX
            # would clamp the index to the last class. uint8 cannot hold 256.
            cond = cond.astype(jnp.int32)
            index = jnp.where(cond < 0, len(self.classes), cond)
            return self.classes.at[index].get(mode="fill", fill_value=jnp.nan)
        assert self.vector is not None
        if jnp.shape(cond) != (self.cond_dim,):
            raise ValueError(
                f"cond has shape {jnp.shape(cond)} where ({self.cond_dim},) is needed"
            )
        return self.vector(jnp.asarray(cond, self.vector.weight.dtype))


class RowReader(AbstractRowReader):
    """One class or vector of a dictionary of conditions.

    **Arguments:**

    - `dim`: size of the vector.
    - `num_classes`, `cond_dim`, `missing_entries`: as in `Embedding`.
    - `key`: of the initial weights.
    """

    classes: Float[Array, "classes dim"] | None
    vector: eqx.nn.Linear | None
    missing: Float[Array, "entries dim"] | None
    nothing: Float[Array, " dim"] | None
    num_classes: int | None = eqx.field(static=True)
    cond_dim: int | None = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        *,
        num_classes: int | None = None,
        cond_dim: int | None = None,
        missing_entries: bool = False,
        key: PRNGKey,
    ):
        self.classes = self.vector = self.missing = None
        if num_classes is not None:
            self.classes = jax.random.normal(key, (num_classes, dim))
        if cond_dim is not None:
            self.vector = eqx.nn.Linear(cond_dim, dim, key=key)
            self.missing = jnp.zeros((cond_dim, dim)) if missing_entries else None
        self.nothing = jnp.zeros((dim,))
        self.num_classes = num_classes
        self.cond_dim = cond_dim
