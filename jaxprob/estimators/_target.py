"""The map between the units of y and those of the network, with its Jacobian."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from ..datasets import Standardizer

Transform: TypeAlias = str | tuple[str, float] | tuple[str, float, float]
"""A name, `("log", low)`, or `("logit", low, high)`."""

NAMES = ("auto", "none", "standardise", "log", "logit", "power")


@dataclass(frozen=True, eq=False)
class TargetMap:
    r"""An increasing map $z = (g(y) - m) / s$ for each target, in double precision.

    $g$ is the identity, $\log(y - a)$, $\log(y - a) - \log(b - y)$, or a power after
    Yeo and Johnson. A density changes by the slope, $\log p(y) = \log p(z) + \log
    \frac{dz}{dy}$. Exponents are limited to [0, 2], where every z has a y.

    Reference: *A new family of power transformations to improve normality or symmetry*,
    Yeo and Johnson, 2000.

    **Fields:**

    - `name`: one of `NAMES`, but `"auto"`.
    - `low`, `high`: $a$ and $b$.
    - `first`: what the power is taken of has mean 0 and deviation 1.
    - `exponents`: of the powers, one for each target.
    - `units`: $m$ and $s$.
    """

    name: str
    low: float
    high: float
    first: Standardizer
    exponents: Float[np.ndarray, " targets"]
    units: Standardizer

    @classmethod
    def fit(
        cls, transform: Transform, y: Float[np.ndarray, "rows targets"]
    ) -> "TargetMap":
        """Read the constants of the map from training targets.

        **Raises:** `ValueError` for an unknown transform, and for targets outside of
        its domain, with the row.
        """
        name, low, high = _parse(transform)
        inside = (y > low) if name in ("log", "logit") else np.ones_like(y, bool)
        if name == "logit":
            inside &= y < high
        if not inside.all():
            row = int(np.argwhere(~inside)[0, 0])
            domain = (
                f"above {low:g}" if name == "log" else f"inside ({low:g}, {high:g})"
            )
            raise ValueError(
                f"row {row} of y is {y[row].tolist()}, and target={transform!r} is for "
                f"values {domain}: give the edges, as in ('log', -1.0) or "
                "('logit', 0.0, 100.0), or target='power'"
            )
        count = y.shape[1]
        none = Standardizer(np.zeros(count), np.ones(count))
        made = cls(name, low, high, none, np.ones(count), none)
        if name == "none":
            return made
        if name == "power":
            first = Standardizer.fit(y, constant="keep")
            powers = [_best_exponent(column) for column in first(y).T]
            made = cls(name, low, high, first, np.asarray(powers), none)
        units = Standardizer.fit(made._bent(y), constant="keep")
        return cls(name, low, high, made.first, made.exponents, units)

    @property
    def is_affine(self) -> bool:
        """True if means and deviations are mapped like values."""
        return self.name in ("none", "standardise")

    def __call__(
        self, y: Float[np.ndarray, "rows targets"]
    ) -> Float[np.ndarray, "rows targets"]:
        """Return z; NaN outside of the domain."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.units(self._bent(y))

    def inverse(
        self, z: Float[np.ndarray, "*rows targets"]
    ) -> Float[np.ndarray, "*rows targets"]:
        """Return y; infinite where it exceeds double precision."""
        bent = self.units.inverse(z)
        with np.errstate(over="ignore", invalid="ignore"):
            if self.name == "log":
                return self.low + np.exp(bent)
            if self.name == "logit":
                return self.low + (self.high - self.low) / (1.0 + np.exp(-bent))
            if self.name == "power":
                return self.first.inverse(_unpower(bent, self.exponents))
            return bent

    def log_slope(
        self, y: Float[np.ndarray, "rows targets"]
    ) -> Float[np.ndarray, "rows targets"]:
        """Return the logarithm of dz / dy; NaN outside of the domain."""
        scale = -np.log(self.units.std)
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.name == "log":
                return scale - np.log(y - self.low)
            if self.name == "logit":
                width = self.high - self.low
                below, above = y - self.low, self.high - y
                return scale + np.log(width) - np.log(below) - np.log(above)
            if self.name == "power":
                v = self.first(y)
                rise = np.sign(v) * (self.exponents - 1.0) * np.log1p(np.abs(v))
                return scale - np.log(self.first.std) + rise
            return np.broadcast_to(scale, y.shape)

    def _bent(self, y):
        """g(y)."""
        if self.name == "log":
            return np.log(y - self.low)
        if self.name == "logit":
            return np.log(y - self.low) - np.log(self.high - y)
        if self.name == "power":
            return _power(self.first(y), self.exponents)
        return y


def _parse(transform: Any) -> tuple[str, float, float]:
    """Name and edges of a transform."""
    parts = (transform,) if isinstance(transform, str) else tuple(transform)
    name, edges = parts[0], [float(edge) for edge in parts[1:]]
    most = {"log": 1, "logit": 2}.get(name, 0)
    if name not in NAMES or len(edges) not in (0, most):
        raise ValueError(
            f"target={transform!r}: give one of {', '.join(NAMES)}, ('log', low) or "
            "('logit', low, high)"
        )
    low, high = [*edges, 0.0, 1.0][:2] if len(edges) != 1 else (edges[0], np.inf)
    if not low < high:
        raise ValueError(f"target={transform!r}: the first edge is below the second")
    return name, low, high


def _power(v, exponents):
    """The power of Yeo and Johnson, of |v| + 1 on either side of zero."""
    left = 2.0 - exponents
    size = np.log1p(np.abs(v))
    return np.where(v < 0.0, -_bend(size, left), _bend(size, exponents))


def _unpower(t, exponents):
    left = 2.0 - exponents
    size = np.abs(t)
    grown = np.where(t < 0.0, _unbend(size, left), _unbend(size, exponents))
    return np.sign(t) * np.expm1(grown)


def _bend(log_size, exponent):
    """(exp(a l) - 1) / a, and l at a = 0."""
    safe = np.where(np.abs(exponent) < 1e-6, 1.0, exponent)
    return np.where(np.abs(exponent) < 1e-6, log_size, np.expm1(safe * log_size) / safe)


def _unbend(size, exponent):
    safe = np.where(np.abs(exponent) < 1e-6, 1.0, exponent)
    return np.where(np.abs(exponent) < 1e-6, size, np.log1p(safe * size) / safe)


def _best_exponent(v):
    """The exponent in [0, 2] at which a Gaussian fits best."""
    from scipy.optimize import minimize_scalar

    log_size = np.sign(v) * np.log1p(np.abs(v))

    def loss(exponent):
        variance = np.var(_power(v, np.asarray(exponent)))
        if not variance > 0.0:
            return 0.0
        return 0.5 * np.log(variance) - (exponent - 1.0) * np.mean(log_size)

    found: Any = minimize_scalar(loss, bounds=(0.0, 2.0), method="bounded")
    return float(found.x)
