"""Input checks before anything is traced: errors that name row and column."""

from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

__all__ = [
    "check_arrays",
    "check_columns",
    "check_finite",
    "check_floating",
    "check_labels",
    "check_same_length",
    "path_name",
]


def check_arrays(**arrays: Any) -> list[np.ndarray]:
    """Each argument as a NumPy array with at least one row, all of one length."""
    out = []
    for name, value in arrays.items():
        reject_masked(name, value)
        array = np.asarray(value)
        if array.dtype == object:
            raise TypeError(
                f"{name} is no rectangular array of numbers (its dtype is object): "
                "rows of different lengths, or strings among numbers"
            )
        if array.ndim == 0:
            raise ValueError(f"{name} has shape (): it needs a leading axis of rows")
        if len(array) == 0:
            raise ValueError(f"{name} is empty: its shape is {array.shape}")
        out.append(array)
    check_same_length(**dict(zip(arrays, out, strict=True)))
    return out


def reject_masked(name: str, value: Any) -> None:
    """No entry is masked: what lies below a mask would be taken for data."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(
            f"{name} is a masked array, {np.ma.count_masked(value)} of whose entries "
            "are masked: leave those rows out, or impute them; targets that are "
            "missing go in as bnn.masked_targets(y)"
        )


def check_same_length(**arrays: Any) -> None:
    """All have as many rows."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{name} has {rows}" for name, rows in lengths.items())
        raise ValueError(f"arguments differ in their number of rows: {listing}")


def check_finite(name: str, array: np.ndarray) -> None:
    """No NaN and no infinity."""
    if not _is(array, np.inexact):
        return
    bad = ~np.isfinite(array)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        place = f"row {where[0]}"
        if len(where) > 1:
            place += f", column {', '.join(map(str, where[1:]))}"
        second = name == "y" or name.startswith("data[1]")
        remedy = (
            " Missing targets go in as bnn.masked_targets(y), missing entries of a "
            "condition as diffusion.nn.masked_condition(cond)."
            if np.isnan(array[where]) and second
            else ""
        )
        raise ValueError(
            f"{name} holds {bad.sum()} non-finite value(s), the first at {place}: "
            f"{array[where]}. Remove or impute those rows.{remedy}"
        )


def check_floating(name: str, array: np.ndarray) -> None:
    """Reject integers where floating-point numbers are needed."""
    if array.dtype.kind in "OSU":
        raise TypeError(f"{name} is {array.dtype} where numbers are needed")
    if not _is(array, np.floating):
        raise TypeError(
            f"{name} is {array.dtype} where floating-point numbers are needed: write "
            f"{name}.astype(np.float32)"
        )


def check_columns(name: str, array: np.ndarray, *, remedy: str) -> None:
    """Reject a constant column: standardising it would divide by zero."""
    flat = array.reshape(len(array), -1)
    constant = np.flatnonzero(np.ptp(flat, axis=0) == 0)
    if constant.size:
        column = int(constant[0])
        raise ValueError(
            f"{name} column {column} is constant ({flat[0, column]} in each of "
            f"{len(flat)} rows), so it cannot be standardised. {remedy}"
        )


def check_labels(name: str, labels: np.ndarray, num_classes: int) -> None:
    """Reject labels that are not integers in `0, ..., num_classes - 1`."""
    if not np.issubdtype(labels.dtype, np.integer):
        remedy = f"{name}.astype(np.int32)"
        if labels.dtype.kind in "OSU":
            remedy = f"np.unique({name}, return_inverse=True)[1]"
        elif labels.ndim == 2 and labels.shape[1] > 1:
            remedy = f"{name}.argmax(-1) if its rows are one-hot"
        raise TypeError(
            f"{name} is {labels.dtype} where class labels are needed: write {remedy}"
        )
    check_classes(name, labels, num_classes)


def check_classes(name: str, labels: np.ndarray, num_classes: int) -> None:
    """Reject what is not a whole number in `0, ..., num_classes - 1`, in any dtype."""
    bad = (labels < 0) | (labels >= num_classes) | (labels != np.floor(labels))
    if bad.any():
        row = int(np.flatnonzero(bad.reshape(len(labels), -1).any(axis=1))[0])
        raise ValueError(
            f"{name} row {row} is {labels[row]}, outside the classes "
            f"0, ..., {num_classes - 1}. Relabel the rows or raise num_classes."
        )


def _is(array, kind):
    # To NumPy bfloat16 is no number at all.
    import jax

    return jax.dtypes.issubdtype(array.dtype, kind)


def check_tree_values(name: str, tree: PyTree) -> None:
    """Reject arrays that are not finite, or not any more in the dtype of JAX."""
    import jax

    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        check_finite(name + jax.tree_util.keystr(path), array)
        check_range(name + jax.tree_util.keystr(path), array)


def check_range(name: str, array: np.ndarray) -> None:
    """Reject values of 64 bits that do not fit the 32 bits that JAX makes of them.

    It would wrap integers and make large floating-point numbers infinite.
    """
    import jax

    narrow = {"int64": np.int32, "uint64": np.uint32, "float64": np.float32}
    kind = narrow.get(array.dtype.name)
    if kind is None or jax.config.read("jax_enable_x64") or not array.size:
        return
    limits = np.finfo(kind) if kind is np.float32 else np.iinfo(kind)
    if array.min() >= limits.min and array.max() <= limits.max:
        return
    bad = (array < limits.min) | (array > limits.max)
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    raise ValueError(
        f"{name} row {place[0] if place else 0} holds {array[place]}, and JAX computes "
        f"with {np.dtype(kind).name}, which ends at {limits.max}: rescale the values, "
        "or call jax.config.update('jax_enable_x64', True) first"
    )


def path_name(path: tuple[Any, ...]) -> str:
    """Return a path of JAX's as `"layers.0.weight"`; `""` for the whole tree."""
    return jax.tree_util.keystr(path, simple=True, separator=".")
