"""Columns of a table that are not numbers, and values that are missing."""

import sys
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Columns:
    """The map from the columns of a table to numbers, as the training rows define it.

    - A column of text, booleans or categories becomes one column of 0 and 1 for each of
      its values; a missing value is all 0.
    - A missing number becomes the mean of its column, and a column that says where
      numbers are missing is added if the training rows have any.

    **Fields:**

    - `names`: of the columns.
    - `values`: for each column its values, or `None` for a column of numbers.
    - `means`: of the columns of numbers, 0 for the others.
    - `gaps`: whether numbers of the column were missing.
    """

    names: tuple[str, ...]
    values: tuple[tuple[str, ...] | None, ...]
    means: Float[np.ndarray, " columns"]
    gaps: tuple[bool, ...]

    @classmethod
    def fit(cls, table: Any) -> "Columns":
        """Read the kinds and values of the columns.

        **Raises:** `ValueError` for two columns of one name, or a column without any
        value.
        """
        names, columns = _split(table)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"X has more than one column named {twice[0]!r}: rename or drop it"
            )
        values, means, gaps = [], [], []
        for name, column in zip(names, columns, strict=True):
            missing = _missing(column)
            if missing.all():
                raise ValueError(f"column {name!r} of X has no value: drop it")
            numbers = column.dtype.kind in "iuf"
            known = column[~missing]
            values.append(None if numbers else tuple(sorted(set(map(str, known)))))
            means.append(float(known.astype(np.float64).mean()) if numbers else 0.0)
            gaps.append(bool(numbers and missing.any()))
        return cls(tuple(names), tuple(values), np.asarray(means), tuple(gaps))

    @property
    def number_names(self) -> list[str]:
        """Names of the columns of numbers that a table becomes."""
        out = []
        for name, values, gap in zip(self.names, self.values, self.gaps, strict=True):
            out += [name] if values is None else [f"{name}={value}" for value in values]
            out += [f"{name} is missing"] if gap else []
        return out

    def __call__(self, table: Any) -> Float[np.ndarray, "rows features"]:
        """Return the numbers of a table with the same columns.

        Warns of values that the training rows do not have, which are treated as
        missing, and of missing numbers in a column that had none.

        **Raises:** `ValueError` for text in a column of numbers.
        """
        _, columns = _split(table)
        parts = [
            part
            for i, column in enumerate(columns)
            for part in (
                self._numbers(i, column)
                if self.values[i] is None
                else self._indicators(i, column)
            )
        ]
        return np.stack(parts, axis=1)

    def _numbers(self, index, column):
        if column.dtype.kind not in "iufb":
            raise ValueError(
                f"column {self.names[index]!r} of X was numbers in fit and is "
                f"{column.dtype} now: convert it"
            )
        column = column.astype(np.float64)
        missing = np.isnan(column)
        if missing.any() and not self.gaps[index]:
            warnings.warn(
                f"column {self.names[index]!r} of X has missing values, and in fit it "
                "had none: they are replaced by the column's mean, and these rows are "
                "less certain than their predictions say",
                stacklevel=5,
            )
        filled = np.where(missing, self.means[index], column)
        return [filled, missing.astype(np.float64)] if self.gaps[index] else [filled]

    def _indicators(self, index, column):
        known, missing = self.values[index], _missing(column)
        assert known is not None
        text = np.asarray([str(value) for value in column])
        new = sorted(set(text[~missing]) - set(known))
        if new:
            warnings.warn(
                f"column {self.names[index]!r} of X has values that fit has not seen: "
                f"{', '.join(new[:_SHOWN])}. They are treated as missing, and these "
                "rows are less certain than their predictions say",
                stacklevel=5,
            )
        return [((text == value) & ~missing).astype(np.float64) for value in known]


def needs_columns(table: Any) -> bool:
    """Return whether a table has columns that are not numbers, or missing numbers."""
    if not is_frame(table):
        return False
    _, columns = _split(table)
    return any(c.dtype.kind not in "iuf" or _missing(c).any() for c in columns)


def is_frame(table: Any) -> bool:
    """Return whether a table is a DataFrame of pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(table, pandas.DataFrame)


def _split(table):
    """Names and arrays of the columns."""
    names = [str(name) for name in table.columns]
    return names, [_array(table.iloc[:, i]) for i in range(len(names))]


def _array(column):
    """The column as float64 if it is numbers, booleans not among them, else objects."""
    plain = column.dtype.kind if isinstance(column.dtype, np.dtype) else "O"
    if plain in "iuf":
        return column.to_numpy(np.float64)
    if plain == "b":
        return column.to_numpy(object)
    pandas = sys.modules["pandas"]
    if pandas.api.types.is_numeric_dtype(column.dtype) and not (
        pandas.api.types.is_bool_dtype(column.dtype)
    ):
        return column.to_numpy(np.float64, na_value=np.nan)  # nullable numbers
    return column.to_numpy(object)


def _missing(column):
    if column.dtype.kind == "f":
        return np.isnan(column)
    pandas = sys.modules["pandas"]
    return np.asarray(pandas.isna(column), bool)
