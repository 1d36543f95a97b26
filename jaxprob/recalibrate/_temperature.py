"""Class probabilities made more or less confident by one number."""

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
    r"""$p_T(k) \propto p(k)^{1 / T}$: above one the prediction is made less confident.

    T maximises the likelihood of the held-out labels, a convex problem in 1 / T. The
    order of the classes stays, and the accuracy with it.

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
        """The temperature of the highest likelihood.

        It has no maximum where every label is the most probable class: the colder, the
        better. The temperature is then the one at which all labels are right with
        probability one half, at most 1. Nor has it one where the probabilities rank
        the labels worse than chance: the temperature is then so high that all classes
        are equally probable. A warning says so in both cases.

        **Arguments:**

        - `labels`: in `0, ..., classes - 1`, of rows that were not trained on.
        - `log_probs`: logits, or logarithms of probabilities; they may be minus
            infinity, but not at a label.

        **Raises:** `ValueError` for NaN, for labels outside of the classes, and for a
        label whose probability is zero: no temperature helps it.
        """
        (log_probs,) = floats(log_probs=log_probs, allow_infinite=True)
        check_axes("log_probs", log_probs, "rows classes")
        labels = labels_and(labels, "log_probs", log_probs)
        own = jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
        impossible = np.flatnonzero(~np.isfinite(np.asarray(own)))
        if impossible.size:
            row = int(impossible[0])
            raise ValueError(
                f"log_probs row {row} gives its label probability zero, whose "
                "likelihood no temperature can mend: pass logarithms that did not "
                "underflow, jax.nn.log_softmax(logits)"
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
                "likelihood rises without end as the temperature falls. It is set to "
                f"{math.exp(best):.3g}, at which all of them are right with "
                "probability one half or more: calibrate on more rows",
                stacklevel=2,
            )
        if end > 0:
            warnings.warn(
                "the probabilities rank these labels worse than chance, so the "
                "likelihood rises without end as the temperature grows, and all "
                "classes become equally probable. Look whether the columns of "
                "log_probs are in the order of the labels",
                stacklevel=2,
            )
        return cls(jnp.exp(jnp.asarray(best, own.dtype)))

    def __call__(
        self, log_probs: Float[Array | np.ndarray, "*rows classes"]
    ) -> Float[Array, "*rows classes"]:
        """Logarithms of the tempered probabilities, normalised."""
        (log_probs,) = floats(log_probs=log_probs, allow_infinite=True)
        temperature = self.temperature.astype(log_probs.dtype)
        return jax.nn.log_softmax(log_probs / temperature, axis=-1)


def _even_odds(loss, rows):
    """The largest logarithm up to 0 at which all rows are right at odds of one half."""

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
