"""The predictive distribution in the units of y."""

import warnings
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from .._random.keys import check_key, example_keys
from .._types import PRNGKey
from . import _statistics as statistics
from ._compiled import Fitted
from ._conformal import LARGEST, Conformal
from ._target import TargetMap

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(32)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_BATCH = 128


class TargetPredictive:
    r"""The mixture over the posterior's models for each row, in the units of y.

    `BNNRegressor.predict_dist` returns it. Results are NumPy arrays of float64,
    `(rows,)`, or `(rows, targets)` if y had columns. Where y is a function of what the
    network predicts, `y = h(z)`, means are integrals over each Gaussian component by
    Gauss and Hermite's rule, and densities contain the Jacobian.

    With `calibrate=` quantiles and intervals are conformal; moments, densities and
    draws are those of the mixture.

    **Arguments:**

    - `fitted`: the posterior.
    - `x`: rows as numbers, in the units of the table.
    - `units`: the map between y and z.
    - `conformal`: scores of held-out rows, or `None`.
    - `is_single`: whether y had no axis of targets.
    - `is_discrete`: whether y is a count; also an attribute.
    """

    def __init__(
        self,
        fitted: Fitted,
        x: Float[np.ndarray, "rows features"],
        units: TargetMap,
        conformal: Conformal | None,
        *,
        is_single: bool,
        is_discrete: bool,
    ):
        self._fitted = fitted
        self._x = x
        self._target = units
        self._conformal = conformal
        self._single = is_single
        self.is_discrete = is_discrete

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self._x)

    @property
    def mean(self) -> Float[np.ndarray, "rows *targets"]:
        """Mean of y."""
        if self._target.is_affine:
            mean = self._fitted.ask(statistics.mean, self._x)
            return self._shaped(self._target.inverse(mean))
        return self._shaped(self._moments()[0])

    @property
    def epistemic(self) -> Float[np.ndarray, "rows *targets"]:
        """Variance of the means of the sampled models."""
        return self._shaped(self._moments()[1])

    @property
    def aleatoric(self) -> Float[np.ndarray, "rows *targets"]:
        """Mean of the variances of the sampled models: the noise."""
        return self._shaped(self._moments()[2])

    @property
    def variance(self) -> Float[np.ndarray, "rows *targets"]:
        """Variance of y, the sum of both parts."""
        return self.epistemic + self.aleatoric

    @property
    def std(self) -> Float[np.ndarray, "rows *targets"]:
        """Standard deviation of y."""
        return np.sqrt(self.variance)

    def quantile(self, q: float) -> Float[np.ndarray, "rows *targets"]:
        """Return the q-quantile, q in (0, 1)."""
        if not 0.0 < q < 1.0:
            raise ValueError(f"q={q}: give a level between 0 and 1")
        if self._conformal is None or q == 0.5:
            ends = self._quantiles(np.asarray([q]))[:, 0]
            return self._shaped(self._target.inverse(ends))
        return self.interval(abs(2.0 * q - 1.0))[int(q > 0.5)]

    def interval(
        self, level: float = 0.9
    ) -> tuple[Float[np.ndarray, "rows *targets"], Float[np.ndarray, "rows *targets"]]:
        """Return the central interval that contains y with probability `level`.

        Calibrated ends are infinite, with a warning, where the held-out rows are too
        few for the level.
        """
        if not 0.0 < level < 1.0:
            raise ValueError(f"level={level}: give a probability between 0 and 1")
        if self._conformal is None:
            tails = np.asarray([(1.0 - level) / 2.0, (1.0 + level) / 2.0])
            ends = self._quantiles(tails)
        else:
            ends = self._calibrated(self._conformal, level)
        lower, upper = (self._target.inverse(ends[:, i]) for i in range(2))
        return self._shaped(lower), self._shaped(upper)

    def log_prob(self, y: Any) -> Float[np.ndarray, " rows"]:
        """Return the log-density of the mixture in the units of y, joint over targets.

        It is minus infinity where the map has no such y, as for 0 under the logarithm,
        and at values between whole numbers where y is a count.
        """
        y = self._columns(y)
        z = self._target(y)
        outside = ~np.isfinite(z)
        if self.is_discrete:
            outside |= z != np.floor(z)
        safe = np.where(outside, 0.0, z)
        density = self._fitted.ask(statistics.log_prob, self._x, self._typed(safe))
        slope = np.where(outside, -np.inf, self._target.log_slope(y))
        return density.astype(np.float64) + slope.sum(1)

    def cdf(self, y: Any) -> Float[np.ndarray, "rows *targets"]:
        """Return the distribution function of the mixture at a target for each row."""
        y = self._columns(y)
        z = np.floor(self._target(y)) if self.is_discrete else self._target(y)
        # Outside of the map's domain all of the probability is on one side.
        z = np.where(np.isnan(z), np.where(y < self._centre(), -np.inf, np.inf), z)
        edge = np.where(z > 0.0, 1.0, 0.0)
        safe = np.where(np.isinf(z), 0.0, z)
        values = self._fitted.ask(statistics.cdf, self._x, self._typed(safe))
        return self._shaped(np.where(np.isinf(z), edge, values))

    def sample(self, *, key: PRNGKey) -> Float[np.ndarray, "rows *targets"]:
        """Draw a target for each row; all rows share the sampled model."""
        check_key(key)
        part_key, noise_key = jax.random.split(key)
        count = self._fitted.ask(_num_samples, self._x[:1])[0]
        part = jax.random.randint(part_key, (), 0, int(count))
        keys = jax.random.key_data(example_keys(noise_key, self.num_rows))
        z = self._fitted.ask(_draw, self._x, keys, shared=(part,))
        return self._shaped(self._target.inverse(z.astype(np.float64)))

    def _moments(self):
        """Mean and both variances in the units of y."""
        if self._target.is_affine:
            mean, parts = self._fitted.ask(statistics.moments, self._x)
            scale = self._target.units.std
            variances = parts.astype(np.float64) * scale**2
            return self._target.inverse(mean), variances[:, 0], variances[:, 1]
        found = [
            self._integrals(self._x[start : start + _BATCH])
            for start in range(0, self.num_rows, _BATCH)
        ]
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def _integrals(self, x):
        means, stds = self._fitted.ask(statistics.components, x)
        first, second = np.zeros(means.shape), np.zeros(means.shape)
        for node, weight in zip(_NODES, _WEIGHTS, strict=True):
            y = self._target.inverse(means.astype(np.float64) + node * stds)
            first += weight * y
            second += weight * y**2
        noise = np.maximum(second - first**2, 0.0)
        return first.mean(1), first.var(1), noise.mean(1)

    def _quantiles(self, levels):
        """Quantiles of z, (rows, levels, targets)."""
        levels = levels.astype(np.float32)
        found = self._fitted.ask(statistics.quantiles, self._x, shared=(levels,))
        return found.astype(np.float64)

    def _calibrated(self, conformal, level):
        """Both ends of the conformal interval of z along the second axis."""
        if not conformal.is_finite(level):
            warnings.warn(
                f"level={level}: the {len(conformal.scores)} rows that calibrate= "
                "holds out are too few for it, and the interval is infinite. Give a "
                "larger calibrate=, or more rows",
                stacklevel=4,
            )
        threshold = conformal.threshold(level)
        inner = np.clip(threshold, 0.0, LARGEST)
        tails = np.concatenate([(1.0 - inner) / 2.0, (1.0 + inner) / 2.0])
        both = self._quantiles(tails)
        column = np.arange(len(inner))
        ends = both[:, np.stack([column, column + len(inner)]), column]
        if (threshold > LARGEST).any():
            mean, parts = self._fitted.ask(statistics.moments, self._x)
            far = np.where(threshold > LARGEST, threshold - 1.0, -np.inf)
            reach = far * np.sqrt(parts.sum(1))
            ends[:, 0] = np.minimum(ends[:, 0], mean - reach)
            ends[:, 1] = np.maximum(ends[:, 1], mean + reach)
        return ends

    def _columns(self, y):
        y = np.asarray(y, np.float64)
        expected = (self.num_rows,) if self._single else (self.num_rows, y.shape[-1])
        if y.shape != expected:
            raise ValueError(f"y has shape {y.shape}: give one of shape {expected}")
        return y.reshape(self.num_rows, -1)

    def _centre(self):
        return self._target.inverse(np.zeros((1, 1)))

    def _typed(self, z):
        return z.astype(np.int32 if self.is_discrete else np.float32)

    def _shaped(self, values):
        values = np.asarray(values, np.float64)
        return values[:, 0] if self._single else values


def _num_samples(predictive):
    return np.full(predictive.num_rows, predictive.num_samples)


def _draw(predictive, data, part):
    return statistics.draw(predictive, jax.random.wrap_key_data(data), part)
