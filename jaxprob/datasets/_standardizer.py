"""Standardisation by mean and standard deviation of the training rows."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Array, Float, Num

from .._checks import check_arrays, check_finite, check_floating


@dataclass(frozen=True, eq=False)
class Standardizer:
    """The affine map z = (x - mean) / std, column by column.

    A density transforms with the map's Jacobian: log p(x) = log p(z) - sum_j log std_j.
    Results are computed in double precision. Standardised values have the dtype of the
    argument, or float64 for integers. Values in original units are float64, because a
    large offset may take all seven digits of single precision.

    ```python
    scaler = Standardizer.fit(y_train)
    z_train = scaler(y_train)
    ```

    **Arguments:**

    - `mean`, `std`: shape `(columns,)`, or `()` for all columns together.
    """

    mean: Float[np.ndarray, "*columns"]
    std: Float[np.ndarray, "*columns"]

    @classmethod
    def fit(
        cls,
        x: Float[Array | np.ndarray, "rows *columns"],
        *,
        names: tuple[str, ...] = (),
        shared: bool = False,
        constant: Literal["raise", "keep"] = "raise",
    ) -> "Standardizer":
        """Compute mean and standard deviation (with 1/n) of the training rows.

        **Arguments:**

        - `x`: the training rows; never the test rows.
        - `names`: names of the columns, for error messages.
        - `shared`: one mean and one scale for all columns, as for the pixels of images.
        - `constant`: `"raise"` an error for a constant column, or `"keep"` it with
            scale 1, so that it becomes 0 and the columns keep their places.

        **Raises:** `ValueError` for NaN, infinite values, fewer than two rows or,
        unless they are kept, constant columns; `TypeError` for integers.
        """
        (x,) = check_arrays(x=x)
        check_floating("x", x)
        check_finite("x", x)
        if len(x) < 2:
            raise ValueError(
                "x has one row: give at least two, such as the whole training set"
            )
        axis = None if shared else 0
        exact = x.astype(np.float64)
        mean, std = exact.mean(axis), exact.std(axis)
        # By range and not by `std == 0`: rounding in the mean leaves a tiny spread.
        flat = np.ptp(exact, axis=axis) == 0
        if constant == "raise" and np.any(flat):
            where = tuple(int(i) for i in np.argwhere(np.atleast_1d(flat))[0])
            column = where[0] if len(where) == 1 else where
            name = f" ({names[where[0]]})" if names and len(where) == 1 else ""
            raise ValueError(
                f"x column {column}{name} is constant: it is "
                f"{exact.reshape(len(x), -1)[0, np.flatnonzero(flat)[0]]} in each of "
                f"{len(x)} training rows, so it has no scale. Remove it, or give "
                "constant='keep' for scale 1"
            )
        return cls(np.asarray(mean), np.where(flat, 1.0, std))

    def __call__(
        self, x: Num[Array | np.ndarray, "*rows_columns"]
    ) -> Float[np.ndarray, "*rows_columns"]:
        """Return x, standardised."""
        x = np.asarray(x)
        dtype = x.dtype if x.dtype.kind not in "biu" else np.float64
        return ((x.astype(np.float64) - self.mean) / self.std).astype(dtype)

    def inverse(
        self, z: Float[Array | np.ndarray, "*rows_columns"]
    ) -> Float[np.ndarray, "*rows_columns"]:
        """Return data, means or quantiles in original units, mean + std z."""
        return self.mean + self.std * np.asarray(z, np.float64)

    def inverse_scale(
        self, scale: Float[Array | np.ndarray, "*rows_columns"]
    ) -> Float[np.ndarray, "*rows_columns"]:
        """Return a standard deviation in original units, without the mean.

        For a variance apply it twice: `inverse_scale(inverse_scale(variance))`.
        """
        return self.std * np.asarray(scale, np.float64)

    def equals(self, other: "Standardizer") -> bool:
        """Return whether both are the same map up to rounding."""
        pairs = ((self.mean, other.mean), (self.std, other.std))
        scale = np.max(self.std)
        return all(
            np.shape(a) == np.shape(b)
            and np.allclose(a, b, rtol=1e-5, atol=1e-6 * scale)
            for a, b in pairs
        )

    @property
    def log_det(self) -> float:
        """Log Jacobian determinant, log p(x) = log p(z) + log_det.

        It is -sum_j log std_j. A shared scale is counted once: multiply by the number
        of columns.
        """
        return float(-np.sum(np.log(self.std)))
