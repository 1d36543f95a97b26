"""Observations in units that a network can read."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, PyTree


class ObservationScaler(eqx.Module):
    r"""Standardised observations, with a mark for entries that are missing.

    Each column of a vector, and each entry along the last axis of anything else, has a
    separate mean and scale. A positive column whose logarithm is the less skewed
    goes through the logarithm first: prices, counts of cells and populations range over
    orders of magnitude, and after a linear map most of them are one number.

    With `missing`, an array of shape (..., d) becomes (..., 2 d): the values, zero
    where they are missing, and ones where they are there.

    **Fields:**

    - `means`, `scales`: of each leaf, of the standardised logarithm where `logs` is
        true.
    - `logs`: of each leaf, whether a column goes through $\log(c + x)$.
    - `offsets`: c, zero unless a column has zeros.
    - `low`, `high`: the smallest and the largest value of each column, as seen.
    """

    means: list[np.ndarray]
    scales: list[np.ndarray]
    logs: list[np.ndarray]
    offsets: list[np.ndarray]
    low: list[np.ndarray]
    high: list[np.ndarray]
    shapes: list[tuple[int, ...]]
    structure: PyTree = eqx.field(static=True)
    missing: bool = eqx.field(static=True)

    @classmethod
    def fitted(
        cls, x: PyTree, *, missing: bool = False, num_blocks: int = 1
    ) -> "ObservationScaler":
        """Return the scaler of observations with a leading axis.

        **Arguments:**

        - `missing`: whether NaN marks an entry that was not observed.
        - `num_blocks`: into how many blocks of columns a vector is divided that may be
            exchanged: a column of all blocks has one mean and one scale.

        **Raises:** `ValueError` for an entry that is not finite, with its row.
        """
        leaves, structure = jax.tree.flatten(x)
        fields: dict[str, list] = {name: [] for name in _NAMES}
        for leaf in leaves:
            rows = _rows(leaf)
            _check(rows, missing, "x")
            columns = np.where(np.isfinite(rows), rows, np.nan).reshape(
                -1, rows.shape[-1] // num_blocks
            )
            for name, value in _statistics(columns).items():
                fields[name].append(np.tile(value, num_blocks))
        shapes = [np.shape(leaf)[1:] for leaf in leaves]
        return cls(**fields, shapes=shapes, structure=structure, missing=missing)

    def __call__(self, x: PyTree) -> PyTree:
        """Return the standardised observations of x, with a leading axis.

        **Raises:** `ValueError` for another structure or shape, or entries that are not
        finite.
        """
        leaves, structure = jax.tree.flatten(x)
        if structure != self.structure:
            raise ValueError(
                f"x has the structure {structure} and the simulations {self.structure}"
            )
        parts = (self.means, self.scales, self.logs, self.offsets, self.shapes)
        return jax.tree.unflatten(structure, list(map(self._one, leaves, *parts)))

    def outside(self, x: PyTree) -> list[str]:
        """Return a line for each column of one observation beyond all simulated ones.

        **Arguments:**

        - `x`: with a leading axis of 1.
        """
        lines = []
        leaves = jax.tree_util.tree_flatten_with_path(x)[0]
        for (path, leaf), low, high in zip(leaves, self.low, self.high, strict=True):
            columns = _rows(leaf).reshape(-1, len(low))
            name = "x" + jax.tree_util.keystr(path)
            for j in range(len(low)):
                values = columns[:, j][np.isfinite(columns[:, j])]
                far = (values < low[j]) | (values > high[j])
                if far.any():
                    lines.append(
                        f"{name}, column {j}: {values[far][0]:.4g} is outside of "
                        f"[{low[j]:.4g}, {high[j]:.4g}]"
                    )
        return lines

    def _one(self, leaf, mean, scale, log, offset, shape):
        if np.shape(leaf)[1:] != tuple(shape):
            raise ValueError(
                f"an observation of shape {np.shape(leaf)[1:]} where the simulations "
                f"have {tuple(shape)}: give x of that shape, or several with one "
                "leading axis"
            )
        dtype = jnp.result_type(float)
        if isinstance(leaf, Tracer):  # by the program of a model's caller
            parts = (jnp.asarray(a, dtype) for a in (mean, scale, offset))
            rows = leaf[:, None] if leaf.ndim == 1 else leaf
            return self._values(jnp, rows.astype(dtype), log, *parts)
        rows = _rows(leaf)
        _check(rows, self.missing, "x")
        with np.errstate(all="ignore"):
            return self._values(np, rows, log, mean, scale, offset).astype(dtype)

    def _values(self, np_or_jnp: Any, rows, log, *parts):
        xp, tail = np_or_jnp, (1,) * (rows.ndim - 1)
        mean, scale, offset = (a.reshape(*tail, -1) for a in parts)
        present, log = xp.isfinite(rows), log.reshape(*tail, -1)
        values = xp.where(log, xp.log(xp.maximum(rows + offset, _SMALLEST)), rows)
        # A value far beyond the simulations would leave all units of a network on one
        # side; sampling has warned of it.
        values = xp.where(present, (values - mean) / scale, 0.0)
        values = xp.clip(values, -_FARTHEST, _FARTHEST)
        if not self.missing:
            return values
        return xp.concatenate([values, present.astype(values.dtype)], axis=-1)


_NAMES = ("means", "scales", "logs", "offsets", "low", "high")
_SMALLEST = 1e-30
_FARTHEST = 20.0


def _rows(leaf) -> Float[np.ndarray, "num ..."]:
    """Return an array in double precision with a leading axis and a last one."""
    rows = np.asarray(leaf, dtype=np.float64)
    return rows[:, None] if rows.ndim == 1 else rows


def _check(rows, missing, name):
    bad = np.isinf(rows) if missing else ~np.isfinite(rows)
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        remedy = "" if missing else ". If NaN marks missing entries, give missing=True"
        raise ValueError(
            f"{name}[{index}] is {rows[index]}, which is no observation{remedy}"
        )


def _statistics(columns: Float[np.ndarray, "rows columns"]) -> dict[str, np.ndarray]:
    low, high = np.nanmin(columns, axis=0), np.nanmax(columns, axis=0)
    positive = np.where(columns > 0.0, columns, np.nan)
    has_zeros = (low == 0.0) & (high > 0.0)
    with np.errstate(all="ignore"):
        smallest = np.nanmin(positive, axis=0, initial=np.inf)
        offset = np.where(has_zeros & np.isfinite(smallest), smallest, 0.0)
        logged = np.log(np.maximum(columns + offset, _SMALLEST))
        skew, skew_of_log = _skewness(columns), _skewness(logged)
    # Counts near zero are no reason for a logarithm: only a long upper tail is.
    log = (low >= 0.0) & (skew > 1.0) & (np.abs(skew_of_log) < skew)
    values = np.where(log, logged, columns)
    scale = np.nanstd(values, axis=0)
    return {
        "means": np.nanmean(values, axis=0),
        "scales": np.where(scale > 0.0, scale, 1.0),
        "logs": log,
        "offsets": offset,
        "low": low,
        "high": high,
    }


def _skewness(columns):
    centred = columns - np.nanmean(columns, axis=0)
    spread = np.maximum(np.nanstd(columns, axis=0), np.finfo(float).tiny)
    return np.nan_to_num(np.nanmean(centred**3, axis=0) / spread**3)
