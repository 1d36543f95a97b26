"""Temperature scaling of class probabilities."""

import math
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..metrics._inputs import check_axes, floats, labels_and
from ._best_logarithm import best_logarithm


class TemperatureScaling(eqx.Module):
    r"""Temperature scaling, $p_T(k) \propto p(k)^{1 / T}$; T > 1 lowers the confidence.

    T maximises the likelihood of the held-out labels, a convex problem in 1 / T. The
    order of the classes and the accuracy do not change.

    Reference: *On calibration of modern neural networks*, Guo, Pleiss, Sun and
    Weinberger, 2017, https://arxiv.org/abs/1706.04599, section 4.2.

    ```python
    scaling = TemperatureScaling.fit(labels_val, log_probs_val)
    log_probs = scaling(log_probs_test)
    ```

    **Arguments:**

    - `temperature`: T > 0.
    """

    temperature: Float[Array, ""]

    @classmethod
    def fit(
        cls,
        labels: Int[Array | np.ndarray, " rows"],
        log_probs: Float[Array | np.ndarray, "rows classes"],
    ) -> "TemperatureScaling":
        """Fit the temperature by maximum likelihood.

        The likelihood has no maximum if every label is the most probable class, because
        it rises as T falls to zero. T is then the largest value up to 1 at which all
        labels together have probability one half. It has none either if the
        probabilities rank the labels worse than chance; T is then so large that all
        classes are equally probable. Both cases raise a warning.

        **Arguments:**

        - `labels`: in `0, ..., classes - 1`, of rows that were not trained on.
        - `log_probs`: logits, or logarithms of probabilities; they may be minus
            infinity, but not at a label.

        **Raises:** `ValueError` for NaN, for labels outside the classes, and for a
        label whose probability is zero at every temperature.
        """
        (log_probs,) = floats(log_probs=log_probs, allow_infinite=True)
        check_axes("log_probs", log_probs, "rows classes")
        labels = labels_and(labels, "log_probs", log_probs)
        own = jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
        impossible = np.flatnonzero(~np.isfinite(np.asarray(own)))
        if impossible.size:
            row = int(impossible[0])
            raise ValueError(
                f"log_probs row {row}: its label has probability zero, at which the "
                "likelihood is zero for every temperature. Give logarithms that did "
                "not underflow, such as jax.nn.log_softmax(logits)"
            )

        @jax.jit
        def nll(log_temperature):
            tempered = cls(jnp.exp(log_temperature))(log_probs)
            return -jnp.mean(jnp.take_along_axis(tempered, labels[:, None], axis=-1))

        def loss(value):
            return float(nll(jnp.asarray(value, own.dtype)))

        best, end = best_logarithm(loss)
        if end < 0:
            best = _even_odds(loss, len(labels))
            warnings.warn(
                f"each of the {len(labels)} labels is the most probable class, so the "
                "likelihood has no maximum: it rises as the temperature falls to zero. "
                f"The temperature is set to {math.exp(best):.3g}, at which all labels "
                "together have probability one half or more. Calibrate on more rows",
                stacklevel=2,
            )
        if end > 0:
            warnings.warn(
                "the probabilities rank these labels worse than chance, so the "
                "likelihood has no maximum: it rises as the temperature grows, and all "
                "classes become equally probable. Check that the columns of log_probs "
                "are in the order of the labels",
                stacklevel=2,
            )
        return cls(jnp.exp(jnp.asarray(best, own.dtype)))

    def __call__(
        self, log_probs: Float[Array | np.ndarray, "*rows classes"]
    ) -> Float[Array, "*rows classes"]:
        """Return normalised logarithms of the tempered probabilities."""
        (log_probs,) = floats(log_probs=log_probs, allow_infinite=True)
        temperature = self.temperature.astype(log_probs.dtype)
        return jax.nn.log_softmax(log_probs / temperature, axis=-1)


def _even_odds(loss, rows):
    """Return the largest log T <= 0 at which all labels have joint probability 1/2."""

    def is_enough(log):
        return rows * loss(log) <= math.log(2.0)

    low = 0.0
    while not is_enough(low):
        low -= 1.0
    high = min(low + 1.0, 0.0)
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if is_enough(middle) else (low, middle)
    return low
