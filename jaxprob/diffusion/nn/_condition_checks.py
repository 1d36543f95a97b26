"""Validation of conditions on the host, before anything is traced."""

from typing import Any

import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from ..._types import Model
from .._types import ARRAYS
from ._condition import GuidedCondition, is_condition, null_is_untrained, reader_of


def check_given(model: Model, cond: PyTree) -> None:
    """Check that a condition is given where a model requires one.

    **Raises:** `ValueError` for no condition where the vector for none was never
    trained.
    """
    if cond is None and null_is_untrained(model):
        raise ValueError(
            "cond=None, but the network takes a condition and its vector for no "
            "condition is zero, so it was never trained: give a condition, or train "
            "with DenoisingLoss(cond_dropout=0.1)"
        )


def check_condition(model: Model, cond: PyTree) -> None:
    """Check that the rows of a condition are ones that the model has.

    Inside a traced computation an unknown class can only read as NaN; here, on the
    host, the error names it. Only the model's `reader` is consulted, so a user's
    network may take any condition.

    **Arguments:**

    - `model`: a network or a denoiser.
    - `cond`: conditions of several examples, or `None`.

    **Raises:** `ValueError` that names the row; `TypeError` for Booleans and for
    classes that are not integers.
    """
    if isinstance(cond, GuidedCondition):
        check_condition(model, cond.value)
        check_condition(model, cond.negative)
        return
    reader = reader_of(model)
    rows, present = cond, None
    if is_condition(cond):
        rows, present = cond.value, cond.present
    leaves = (rows, present)
    if reader is None or not isinstance(rows, ARRAYS):
        return
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return
    if reader.num_classes is None and reader.cond_dim is None:
        raise ValueError(
            "there is a condition, but the network was built without one; build it "
            "with num_classes or cond_dim"
        )
    check_not_boolean(rows)
    rows = np.asarray(rows)
    known = np.ones(rows.shape[:1], bool) if present is None else np.asarray(present)
    if reader.num_classes is not None:
        _check_classes(rows, known, reader.num_classes)
    else:
        _check_vectors(rows, known, reader.cond_dim)


def _check_classes(rows, present, num_classes):
    if rows.ndim != 1:
        raise ValueError(
            f"cond is {rows.dtype}{list(rows.shape)} where classes are needed, one "
            f"integer in 0, ..., {num_classes - 1} for each row"
        )
    if not np.issubdtype(rows.dtype, np.integer):
        raise TypeError(
            f"cond is {rows.dtype}{list(rows.shape)} where classes are needed, "
            f"integers in 0, ..., {num_classes - 1}: write cond.astype(int)"
        )
    bad = present & ((rows < 0) | (rows >= num_classes))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"cond row {row} is class {rows[row]}, outside 0, ..., {num_classes - 1}. "
            "Relabel the rows or raise num_classes. If it stands for no class, write "
            "nn.Condition(np.where(known, cond, 0), known) with known = cond >= 0"
        )


def _check_vectors(rows, present, dim):
    if rows.shape[1:] != (dim,):
        raise ValueError(
            f"cond has rows of shape {rows.shape[1:]} where ({dim},) is needed"
        )
    finite = np.isfinite(rows) if np.issubdtype(rows.dtype, np.inexact) else None
    if finite is None or finite[present].all():
        return
    row = int(np.argmax(present & ~finite.all(axis=1)))
    column = int(np.argmax(~finite[row]))
    raise ValueError(
        f"cond row {row} is not finite, first in column {column}. If the row has no "
        "condition, write nn.Condition(np.nan_to_num(cond), known) with known = "
        "np.isfinite(cond).all(axis=1). If single entries are missing, impute them, "
        "and give the network a mask as further entries"
    )


def check_not_boolean(cond: Any) -> None:
    """Check that a condition is a class or a vector, as a Boolean may be either.

    **Raises:** `TypeError` with what to write for each.
    """
    if cond.dtype == bool:
        raise TypeError(
            f"cond is bool{list(cond.shape)}: write cond.astype(int) if it is a class "
            "and cond.astype(float) if it is a vector"
        )
