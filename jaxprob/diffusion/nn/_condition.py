"""How "no condition" is said inside a batch, where every row has one."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from ..._types import Model
from ._embedding import Embedding, as_vector, check_not_boolean


def no_condition(cond: PyTree) -> PyTree:
    """A condition of the same shape that means none: -1 in integers, NaN in floats.

    Give classes as integers and vectors, one-hot ones too, as floats: an integer vector
    of -1 is a vector. `DenoisingLoss` and `Guided` do so by `as_condition`.

    Rows of a batch differ in whether their condition is left out, and the two calls of
    classifier-free guidance are one batch, so it cannot be `None`. `Embedding` reads it
    as `None`; a network of your own has to know it.

    **Raises:** `TypeError` for Booleans, which have no third value.
    """

    def nothing(leaf):
        leaf = _signed(leaf)
        empty = -1 if jnp.issubdtype(leaf.dtype, jnp.integer) else jnp.nan
        return jnp.full_like(leaf, empty)

    return jax.tree.map(nothing, cond)


def as_condition(model: Model, cond: PyTree) -> PyTree:
    """A condition in a dtype in which "none" can be said, before `no_condition`.

    Unsigned classes become int32, as -1 would be the last of them; the vectors of an
    `Embedding(cond_dim=...)` become floats, as -1 is a number in them.

    **Raises:** `TypeError` for Booleans.
    """
    cond = jax.tree.map(_signed, cond)
    vectors = any(e.cond_dim is not None for e in _embeddings(model))
    if vectors and hasattr(cond, "dtype"):
        return as_vector(cond)
    return cond


def _signed(leaf):
    leaf = jnp.asarray(leaf)
    check_not_boolean(leaf)
    unsigned = jnp.issubdtype(leaf.dtype, jnp.unsignedinteger)
    return leaf.astype(jnp.int32) if unsigned else leaf


def _embeddings(model):
    leaves = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, Embedding))
    return [leaf for leaf in leaves if isinstance(leaf, Embedding)]


def check_condition(model: Model, cond: PyTree) -> None:
    """Rows of conditions are ones that the model's `Embedding` knows.

    Inside a traced computation an unknown class can only read as NaN; here, on the
    host, it is named. A model without an `Embedding` may take any condition.

    **Arguments:**

    - `model`: a network or a denoiser.
    - `cond`: conditions of several examples, or `None`.

    **Raises:** `ValueError` that names the row; `TypeError` for Booleans.
    """
    if not hasattr(cond, "dtype") or isinstance(cond, Tracer):
        return
    rows = np.asarray(cond)
    for embedding in _embeddings(model):
        if embedding.num_classes is not None:
            _check_classes(rows, embedding.num_classes)
        elif embedding.cond_dim is not None:
            check_not_boolean(rows)
            if rows.shape[1:] != (embedding.cond_dim,):
                raise ValueError(
                    f"cond has rows of shape {rows.shape[1:]} where "
                    f"({embedding.cond_dim},) is needed"
                )
        else:
            raise ValueError(
                "there is a condition, but the network was built without one; build "
                "it with num_classes or cond_dim"
            )


def _check_classes(rows, num_classes):
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(
            f"cond is {rows.dtype}{list(rows.shape)} where classes are needed, one "
            f"integer in 0, ..., {num_classes - 1} for each row"
        )
    bad = (rows < -1) | (rows >= num_classes)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"cond row {row} is class {rows[row]}, outside 0, ..., {num_classes - 1} "
            "(-1 is no class). Relabel the rows or raise num_classes."
        )
