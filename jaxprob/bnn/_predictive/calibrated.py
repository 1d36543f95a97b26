"""Recalibration of a predictive on held-out rows."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from ..._random.keys import check_key
from ..._types import PRNGKey
from ...recalibrate import AdaptiveSets, ConformalQuantiles, TemperatureScaling
from ...recalibrate._best_logarithm import best_logarithm
from .._joint.row_statistics import single_target
from .._joint.target import is_masked
from .moments import AbstractMoments
from .predictive import Predictive


class CalibratedPredictive(AbstractMoments):
    r"""A predictive whose confidence is rescaled by one number.

    `calibrate` makes it. It has conformal intervals and sets as well.

    - Regression: y is stretched away from the mean of its mixture,
      $y' = \bar y + s \, (y - \bar y)$. The shape of the mixture stays, and s
      maximises the likelihood of the held-out rows.
    - Classes: $p_T(k) \propto \bar p(k)^{1 / T}$, as in
      `jaxprob.recalibrate.TemperatureScaling`.
    - `conformal_interval` and `conformal_set` start from the uncalibrated predictive,
      because their guarantee holds only for scores that no held-out row has changed.

    **Fields:**

    - `uncalibrated`: the predictive that was given.
    - `held_out`: the predictive of the held-out rows.
    - `targets`: y of the held-out rows.
    - `scale`: s, or T for classes.
    """

    uncalibrated: Predictive
    held_out: Predictive
    targets: Num[Array, "held_out *out"]
    scale: Float[Array, ""]

    @property
    def _classes(self) -> bool:
        return self.uncalibrated.is_classification

    @property
    def mean(self) -> Float[Array, "rows *out"]:
        """Mean of y, which rescaling does not change."""
        return self.uncalibrated.mean

    @property
    def epistemic(self) -> Float[Array, "rows *out"]:
        """Variance of the mean, scaled."""
        return self.scale**2 * self.uncalibrated.epistemic

    @property
    def aleatoric(self) -> Float[Array, "rows *out"]:
        """Mean of the variance, scaled."""
        return self.scale**2 * self.uncalibrated.aleatoric

    def log_prob(
        self, y: Num[Array | np.ndarray, "rows *out"]
    ) -> Float[Array, " rows"]:
        """Log-density, or log-probability, of a target for each row."""
        y = self.uncalibrated.check_targets(y)
        if not self._classes:
            return _stretched(self.uncalibrated, y, self.scale)
        terms = jnp.take_along_axis(self._log_probs, y.astype(int)[..., None], axis=-1)[
            ..., 0
        ]
        # Several labels of one row are one observation.
        return jnp.sum(terms.reshape(len(terms), -1), axis=-1)

    def cdf(
        self, y: Float[Array | np.ndarray, "rows *out"]
    ) -> Float[Array, "rows *out"]:
        """Distribution function at a target for each row."""
        y = self.uncalibrated.check_targets(y)
        return self.uncalibrated.cdf(self.mean + (y - self.mean) / self.scale)

    def quantile(self, q: float) -> Float[Array, "rows *out"]:
        """The q-quantile."""
        return self._stretch(self.uncalibrated.quantile(q))

    def interval(
        self, level: float = 0.9
    ) -> tuple[Float[Array, "rows *out"], Float[Array, "rows *out"]]:
        """The central interval of the rescaled mixture: (lower, upper)."""
        lower, upper = self.uncalibrated.interval(level)
        return self._stretch(lower), self._stretch(upper)

    def sample(self, *, key: PRNGKey) -> Num[Array, "rows *out"]:
        """Draw a target for each row; class labels of rows are drawn independently."""
        check_key(key)
        if not self._classes:
            return self._stretch(self.uncalibrated.sample(key=key))
        return jax.random.categorical(key, self._log_probs)

    @property
    def probs(self) -> Float[Array, "rows *classes"]:
        """Tempered class probabilities, or the probability of 1 for two classes."""
        probs = jnp.exp(self._log_probs)
        return probs[..., 1] if self.uncalibrated.is_binary else probs

    @property
    def entropy(self) -> Float[Array, "rows *out"]:
        """Entropy of the tempered probabilities, in nats."""
        probs = jnp.exp(self._log_probs)
        return -jnp.sum(jax.scipy.special.xlogy(probs, probs), axis=-1)

    def conformal_interval(
        self, level: float = 0.9
    ) -> tuple[Float[Array, "rows *out"], Float[Array, "rows *out"]]:
        """The central interval of conformalised quantiles, for each output separately.

        It is the uncalibrated predictive's interval, widened or narrowed so that its
        coverage is guaranteed. The ends are infinite where the held-out rows are too
        few for the level.
        """
        held_out = self.held_out.interval(level)
        ends = self.uncalibrated.interval(level)

        def one(y, low, high, lower, upper):
            fitted = ConformalQuantiles.fit(y, low, high, level=level)
            return fitted(lower, upper)

        shape = ends[0].shape
        columns = [a.reshape(len(a), -1) for a in (self.targets, *held_out, *ends)]
        lower, upper = jax.vmap(one, in_axes=1, out_axes=1)(*columns)
        return lower.reshape(shape), upper.reshape(shape)

    def conformal_set(
        self, level: float = 0.9, *, lam: float = 0.0, k_reg: int = 1
    ) -> Bool[Array, "rows classes"]:
        """The classes that contain the true one with the guaranteed probability.

        **Arguments:**

        - `level`: guaranteed coverage.
        - `lam`, `k_reg`: as in `jaxprob.recalibrate.AdaptiveSets`: RAPS if `lam` is
            positive, else APS.
        """
        labels, probs = _one_label(self.held_out, self.targets)
        fitted = AdaptiveSets.fit(labels, probs, level=level, lam=lam, k_reg=k_reg)
        return fitted(class_axis(self.uncalibrated))

    @property
    def _log_probs(self):
        scaling = TemperatureScaling(self.scale)
        return scaling(self.uncalibrated.class_log_probs)

    def _stretch(self, y):
        return self.mean + self.scale * (y - self.mean)

    def __repr__(self):
        name = "temperature" if self._classes else "scale"
        return f"{type(self).__name__}({self.uncalibrated}, {name}={self.scale:.4g})"


def calibrate(
    predictive: Predictive,
    held_out: Predictive,
    y: Num[Array | np.ndarray, "held_out *out"],
) -> CalibratedPredictive:
    """Rescale the confidence of a predictive on rows that the model never saw.

    ```python
    predictive = predict(posterior, likelihood, x_test, key=key)
    held_out = predict(posterior, likelihood, x_val, key=key)
    calibrated = calibrate(predictive, held_out, y_val)
    lower, upper = calibrated.conformal_interval(0.9)
    ```

    **Arguments:**

    - `predictive`: the predictive to rescale.
    - `held_out`: that of rows which the model was not trained on, of the same posterior
        and the same `key`, so that both are mixtures over the same samples.
    - `y`: the targets of the held-out rows.

    **Raises:** `ValueError` for counts, for targets of another shape, and where the
    likelihood of the held-out rows has no maximum in the scale.
    """
    single_target(predictive._kind)
    if is_masked(y):
        raise TypeError(
            "y is a pair (values, observed): calibrate needs every target, so give the "
            "rows whose target was observed, and the predictive of their inputs"
        )
    if not predictive.is_classification and predictive.is_discrete:
        raise ValueError(
            f"{predictive} is of whole numbers, which no factor stretches: calibrate "
            "is for classes and for real outcomes"
        )
    y = jnp.asarray(held_out.check_targets(y))
    scale = (_temperature if predictive.is_classification else _scale)(held_out, y)
    return CalibratedPredictive(predictive, held_out, y, scale)


def class_axis(predictive: Predictive) -> Float[Array, "rows *out classes"]:
    """Probabilities of all classes along a last axis, of two for a Bernoulli."""
    probs = predictive.probs
    if predictive.is_binary:
        return jnp.stack([1.0 - probs, probs], axis=-1)
    return probs


def _one_label(
    predictive: Predictive, y: Num[Array, "rows *out"]
) -> tuple[Int[Array, " rows"], Float[Array, "rows classes"]]:
    probs = class_axis(predictive)
    if probs.ndim != 2:
        raise ValueError(
            f"a conformal set is for one label, and each row has {probs.shape[1:-1]}: "
            "take the predictive of one label"
        )
    return y.astype(int), probs


def _temperature(predictive, y):
    log_probs = predictive.class_log_probs
    flat = log_probs.reshape(-1, log_probs.shape[-1])
    return TemperatureScaling.fit(y.reshape(-1).astype(int), flat).temperature


def _scale(predictive, y):
    def loss(log_scale):
        scale = jnp.exp(jnp.asarray(log_scale, predictive.mean.dtype))
        return -float(jnp.mean(_stretched(predictive, y, scale)))

    # The search starts at the maximum for a Gaussian, so any error of the stated
    # spread is within reach.
    residuals = np.asarray(y, np.float64) - np.asarray(predictive.mean, np.float64)
    square = float(np.mean((residuals / np.asarray(predictive.std)) ** 2))
    sound = np.isfinite(square) and square > 0.0
    best, end = best_logarithm(loss, 0.5 * float(np.log(square)) if sound else 0.0)
    if end:
        raise ValueError(
            "the likelihood of the held-out rows has no maximum in the scale: it rises "
            f"without end as the scale {'grows' if end > 0 else 'falls to zero'}. The "
            "residuals are zero, or the predictive has no spread: give rows that the "
            "model was not trained on"
        )
    return jnp.exp(jnp.asarray(best, predictive.mean.dtype))


def _stretched(predictive, y, scale):
    size = int(np.prod(y.shape[1:]))
    mean = predictive.mean
    return predictive.log_prob(mean + (y - mean) / scale) - size * jnp.log(scale)
