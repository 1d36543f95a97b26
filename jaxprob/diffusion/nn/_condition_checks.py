"""Validation of conditions on the host, before anything is traced."""

import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from ..._types import Model
from .._types import ARRAYS
from ._condition import (
    GuidedCondition,
    check_not_boolean,
    is_condition,
    null_is_untrained,
    reader_of,
)
from ._parts import ConditionReader, ImageReader, SequenceReader


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
    _check_part(reader_of(model), cond)


def _check_part(reader, cond, name="cond"):
    if isinstance(reader, ConditionReader):
        parts = {} if cond is None else reader.named(cond)
        for part, value in parts.items():
            where = name if reader.alone else f"{name}[{part!r}]"
            _check_part(reader.parts[part], value, where)
        return
    rows, present = cond, None
    if is_condition(cond):
        rows, present = cond.value, cond.present
    leaves = (rows, present)
    if reader is None or not isinstance(rows, ARRAYS):
        return
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return
    if isinstance(reader, ImageReader | SequenceReader):
        _check_array(name, rows, present, reader)
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
        _check_classes(name, rows, known, reader.num_classes)
    else:
        _check_vectors(name, rows, known, reader)


def _check_array(name, rows, present, reader):
    """Check images or sequences of several examples."""
    if isinstance(reader, ImageReader):
        right = rows.ndim >= 3 and rows.shape[1] == reader.kind.channels
        wanted = f"(rows, {reader.kind.channels}, ...)"
    else:
        length = reader.kind.length
        right = rows.ndim == 3 and rows.shape[2] == reader.kind.dim
        right = right and length in (None, rows.shape[1])
        wanted = f"(rows, {'length' if length is None else length}, {reader.kind.dim})"
    if not right or not np.issubdtype(rows.dtype, np.floating):
        raise ValueError(
            f"{name} is {rows.dtype}{list(rows.shape)} where floats of shape {wanted} "
            "are needed"
        )
    rows = np.asarray(rows)
    known = np.ones((), bool) if present is None else np.asarray(present)
    known = known.reshape(known.shape + (1,) * (rows.ndim - known.ndim))
    bad = known & ~np.isfinite(rows)
    if reader.missing_entries:
        bad &= ~np.isnan(rows)
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        raise ValueError(
            f"{name} row {row} is not finite. Give nn.Condition(value, present) with "
            "Booleans of the rows, elements or pixels that are there; pixels need "
            "nn.ImageCondition(channels, missing=True)"
        )


def _check_classes(name, rows, present, num_classes):
    if rows.ndim != 1:
        raise ValueError(
            f"{name} is {rows.dtype}{list(rows.shape)} where classes are needed, one "
            f"integer in 0, ..., {num_classes - 1} for each row"
        )
    if not np.issubdtype(rows.dtype, np.integer):
        raise TypeError(
            f"{name} is {rows.dtype}{list(rows.shape)} where classes are needed, "
            f"integers in 0, ..., {num_classes - 1}: write cond.astype(int)"
        )
    bad = present & ((rows < 0) | (rows >= num_classes))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"{name} row {row} is class {rows[row]}, outside 0, ..., "
            f"{num_classes - 1}. Relabel the rows or raise num_classes. If it stands "
            "for no class, write nn.Condition(np.where(known, cond, 0), known) with "
            "known = cond >= 0"
        )


def _check_vectors(name, rows, present, reader):
    dim = reader.cond_dim
    if rows.shape[1:] != (dim,):
        raise ValueError(
            f"{name} has rows of shape {rows.shape[1:]} where ({dim},) is needed"
        )
    if present.ndim == 2 and not reader.missing_entries:
        raise ValueError(
            f"{name} has entries that may be missing, and the network was built "
            "without them: build it with conditions=nn.VectorCondition("
            f"{dim}, missing=True)"
        )
    if not np.issubdtype(rows.dtype, np.inexact):
        return
    bad = ~np.isfinite(rows) & (present if present.ndim == 2 else present[:, None])
    if reader.missing_entries:
        bad &= ~np.isnan(rows)
    if not bad.any():
        return
    row, column = (int(i) for i in np.argwhere(bad)[0])
    raise ValueError(
        f"{name} row {row} is not finite, first in column {column}. If the row has no "
        "condition, write nn.Condition(np.nan_to_num(cond), known) with known = "
        "np.isfinite(cond).all(axis=1). If single entries are missing, build the "
        f"network with conditions=nn.VectorCondition({dim}, missing=True), and write "
        "nn.masked_condition(cond)"
    )
