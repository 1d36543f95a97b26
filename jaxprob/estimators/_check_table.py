"""Checks of the numbers of a table that would make a fit silently worthless."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ._columns import is_frame

_SHOWN = 5
_FAR = 1e6
"""Multiple of the spread of nine rows in ten beyond which a value is enormous."""

_BEYOND = 1e8
"""Standard deviations of the training rows at which float32 leaves nothing to say."""

_LARGEST = 1e150
"""Largest number whose square is finite in double precision."""


def check_duplicates(table: Any) -> None:
    """Raise `ValueError` for two columns of one name."""
    if not is_frame(table):
        return
    names = [str(name) for name in table.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"X has more than one column named {twice[0]!r}: rename or drop it"
        )


def check_training(
    x: Float[np.ndarray, "rows columns"], names: Sequence[str], *, table: str = "X"
) -> None:
    """Warn of constant columns and of single values that dwarf all others.

    **Raises:** `ValueError` for numbers whose squares overflow.
    """
    size = np.abs(x)
    if size.max(initial=0.0) > _LARGEST:
        row, column = divmod(int(size.argmax()), x.shape[1])
        raise ValueError(
            f"row {row} of {table} has {x[row, column]:g} in the column "
            f"{names[column]!r}, whose square overflows: correct it or drop the row"
        )
    constant = np.flatnonzero(np.ptp(x, axis=0) == 0.0).tolist()
    flat = [names[column] for column in constant]
    if flat:
        warnings.warn(
            f"columns of {table} are constant: {', '.join(map(repr, flat[:_SHOWN]))}. "
            "They are not used; drop them",
            stacklevel=4,
        )
    distance = np.abs(x - np.median(x, axis=0))
    usual = np.quantile(distance, 0.9, axis=0)
    enormous = (usual > 0.0) & (distance.max(0) > _FAR * usual)
    for column in np.flatnonzero(enormous).tolist():
        row = int(distance[:, column].argmax())
        warnings.warn(
            f"row {row} of {table} has {x[row, column]:g} in the column "
            f"{names[column]!r}, and nine rows in ten are within {usual[column]:g} of "
            "the median: standardised, they become one number. Correct the value, clip "
            "it, or take the logarithm of the column",
            stacklevel=4,
        )


def check_new_rows(z: Float[np.ndarray, "rows columns"], names: Sequence[str]) -> None:
    """Raise `ValueError` for standardised rows that no training row is near to."""
    size = np.abs(z)
    if size.max(initial=0.0) > _BEYOND:
        row, column = divmod(int(size.argmax()), z.shape[1])
        raise ValueError(
            f"row {row} of X is {size[row, column]:.0e} standard deviations away from "
            f"the training rows in the column {names[column]!r}: no prediction there "
            "means anything. Correct the value or drop the row"
        )


def check_two_values(y: Float[np.ndarray, "rows targets"]) -> None:
    """Warn of a target with two values, which is a class label."""
    for column in y.T:
        values = np.unique(column)
        if len(values) == 2 and len(column) > 2:
            warnings.warn(
                f"y has two values, {values[0]:g} and {values[1]:g}, in {len(column)} "
                "rows: for probabilities of classes use BNNClassifier",
                stacklevel=4,
            )
