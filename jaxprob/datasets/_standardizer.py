"""Zero mean and unit scale, as the training rows have it, and the way back."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Num

from .._checks import check_arrays, check_finite, check_floating


@dataclass(frozen=True, eq=False)
class Standardizer:
    """The affine map z = (x - mean) / std, column by column.

    A density transforms with the map's Jacobian: log p(x) = log p(z) - sum_j log std_j.
    Results are computed in double precision. Standardised values have the dtype of what
    was given, or float64 for integers. Values in original units stay in double
    precision: single precision has seven digits, and an offset may take them all.

    ```python
    scaler = Standardizer.fit(y_train)
    z_train = scaler(y_train)
    ```

    **Arguments:**

    - `mean`, `std`: shape `(columns,)`, or `()` for one of both for all columns.
    """

    mean: Float[np.ndarray, "*columns"]
    std: Float[np.ndarray, "*columns"]

    @classmethod
    def fit(
        cls,
        x: Float[np.ndarray, "rows *columns"],
        *,
        names: tuple[str, ...] = (),
        shared: bool = False,
        constant: Literal["raise", "keep"] = "raise",
    ) -> "Standardizer":
        """Mean and standard deviation (with 1/n) of the training rows.

        **Arguments:**

        - `x`: the training rows; never the test rows.
        - `names`: names of the columns, for the error.
        - `shared`: one mean and one scale for all columns, as for the pixels of images.
        - `constant`: what becomes of a column without spread: an error, or `"keep"` to
            give it scale 1, so that it stays (it becomes 0) and the others keep their
            places.

        **Raises:** `ValueError` for NaN, infinite values, fewer than two rows or,
        unless they are kept, constant columns; `TypeError` for integers.
        """
        (x,) = check_arrays(x=x)
        check_floating("x", x)
        check_finite("x", x)
        if len(x) < 2:
            raise ValueError(
                "x has one row: a scale needs at least two. Standardise by the whole "
                "training set."
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
                f"{len(x)} training rows, so it has no scale. Drop it, or pass "
                "constant='keep' to give it scale 1."
            )
        return cls(np.asarray(mean), np.where(flat, 1.0, std))

    def __call__(
        self, x: Num[np.ndarray, "*rows_columns"]
    ) -> Float[np.ndarray, "*rows_columns"]:
        """x, standardised."""
        x = np.asarray(x)
        dtype = x.dtype if x.dtype.kind not in "biu" else np.float64
        return ((x.astype(np.float64) - self.mean) / self.std).astype(dtype)

    def inverse(
        self, z: Float[np.ndarray, "*rows_columns"]
    ) -> Float[np.ndarray, "*rows_columns"]:
        """z in original units: mean + std z. For data, means and quantiles."""
        return self.mean + self.std * np.asarray(z, np.float64)

    def inverse_scale(
        self, scale: Float[np.ndarray, "*rows_columns"]
    ) -> Float[np.ndarray, "*rows_columns"]:
        """A standard deviation in original units: std scale, without the mean.

        Variances take it twice: `inverse_scale(inverse_scale(variance))`.
        """
        return self.std * np.asarray(scale, np.float64)

    def equals(self, other: "Standardizer") -> bool:
        """Whether both are the same map, but for rounding."""
        pairs = ((self.mean, other.mean), (self.std, other.std))
        scale = np.max(self.std)
        return all(
            np.shape(a) == np.shape(b)
            and np.allclose(a, b, rtol=1e-5, atol=1e-6 * scale)
            for a, b in pairs
        )

    @property
    def log_det(self) -> float:
        """What is added to log p(z), summed over columns, to give log p(x).

        It is -sum_j log std_j; with a shared scale it counts one column only, so
        multiply by their number.
        """
        return float(-np.sum(np.log(self.std)))
