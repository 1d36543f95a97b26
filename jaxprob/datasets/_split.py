"""Training, test and validation rows of a data set."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from .._checks import check_arrays, check_finite
from ._seed import Seed, generator
from ._standardizer import Standardizer


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Training, test and optional validation rows of one set.

    **Arguments:**

    - `x_train`, `x_test`: inputs, shape `(rows, *shape)`.
    - `y_train`, `y_test`: targets, shape `(rows, targets)`, or labels, shape `(rows,)`.
    - `x_val`, `y_val`: validation rows, for the choice of settings.
    - `feature_names`: names of the columns of x.
    - `target_names`: names of the columns of y, or of the classes.
    - `name`: name of the set.
    """

    x_train: Float[np.ndarray, "train *shape"]
    y_train: Shaped[np.ndarray, "train *target"]
    x_test: Float[np.ndarray, "test *shape"]
    y_test: Shaped[np.ndarray, "test *target"]
    x_val: Float[np.ndarray, "val *shape"] | None = None
    y_val: Shaped[np.ndarray, "val *target"] | None = None
    feature_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    name: str = ""

    def __repr__(self) -> str:
        arrays = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if isinstance(getattr(self, field.name), np.ndarray)
        }
        shapes = (f"{name}: {a.dtype}{list(a.shape)}" for name, a in arrays.items())
        return f"Split({self.name!r}, {', '.join(shapes)})"

    @property
    def num_classes(self) -> int:
        """Number of classes of the labels."""
        if not np.issubdtype(self.y_train.dtype, np.integer):
            raise TypeError(f"{self!r} has real-valued targets and no classes")
        return len(self.target_names) or int(self.y_train.max()) + 1

    def standardize(
        self, *, shared: bool = False, constant: str = "raise"
    ) -> tuple["Split", Standardizer, Standardizer | None]:
        """Standardise inputs and real-valued targets by the training rows.

        **Arguments:**

        - `shared`, `constant`: as in `Standardizer.fit`, for the inputs.

        **Returns:** the new split, the standardizer of x and that of y, which is `None`
        for labels.
        """
        x_scaler = Standardizer.fit(
            self.x_train,
            names=self.feature_names,
            shared=shared,
            constant=constant,  # pyright: ignore[reportArgumentType]
        )
        new: dict[str, Any] = {
            name: x_scaler(getattr(self, name))
            for name in ("x_train", "x_test", "x_val")
            if getattr(self, name) is not None
        }
        if np.issubdtype(self.y_train.dtype, np.integer):
            return replace(self, **new), x_scaler, None
        y_scaler = Standardizer.fit(self.y_train, names=self.target_names)
        new |= {
            name: y_scaler(getattr(self, name))
            for name in ("y_train", "y_test", "y_val")
            if getattr(self, name) is not None
        }
        return replace(self, **new), x_scaler, y_scaler


def train_test_split(
    x: Float[np.ndarray, "rows *shape"],
    y: Shaped[np.ndarray, "rows *target"],
    *,
    test: float = 0.1,
    val: float = 0.0,
    seed: Seed = 0,
    feature_names: tuple[str, ...] = (),
    target_names: tuple[str, ...] = (),
    name: str = "",
) -> Split:
    """Split rows at random into two or three parts.

    ```python
    split = train_test_split(x, y, test=0.2, val=0.1, seed=0)
    ```

    **Arguments:**

    - `x`, `y`: inputs and targets, one row each.
    - `test`, `val`: fractions of all rows in the test and the validation part, each
        rounded to at least one row (no validation part for `val=0`).
    - `seed`: a number, or a key of JAX.
    - `feature_names`, `target_names`, `name`: fields of the result.

    **Raises:** `ValueError` for no rows, different lengths, NaN and infinite values (by
    row and column), or fractions that leave no training row.
    """
    x, y = check_arrays(x=x, y=y)
    check_finite("x", x)
    check_finite("y", y)
    if not (0.0 < test < 1.0 and 0.0 <= val < 1.0):
        raise ValueError(
            f"test={test}, val={val}: give fractions of all rows between 0 and 1; val "
            "may be 0"
        )
    rows = len(x)
    num_test = max(1, round(test * rows))
    num_val = max(1, round(val * rows)) if val else 0
    if num_test + num_val >= rows:
        raise ValueError(
            f"{rows} row(s) with test={test}, val={val} leave no training row"
        )
    order = generator(seed).permutation(rows)
    test_rows, val_rows, train_rows = np.split(order, [num_test, num_test + num_val])
    return Split(
        x_train=x[train_rows],
        y_train=y[train_rows],
        x_test=x[test_rows],
        y_test=y[test_rows],
        x_val=x[val_rows] if num_val else None,
        y_val=y[val_rows] if num_val else None,
        feature_names=feature_names,
        target_names=target_names,
        name=name,
    )
