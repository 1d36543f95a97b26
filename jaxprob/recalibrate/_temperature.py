"""Class probabilities made more or less confident by one number."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..metrics._inputs import check_axes, floats, labels_and

LARGEST = 5.0


def best_logarithm(loss: Callable[[float], float]) -> float:
    """Where a unimodal function of a logarithm is smallest."""
    from scipy.optimize import minimize_scalar

    bounds = (-LARGEST, LARGEST)
    options = {"xatol": 1e-9}
    found: Any = minimize_scalar(loss, bounds=bounds, method="bounded", options=options)
    return float(found.x)


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
        """The temperature of the highest likelihood, between exp(-5) and exp(5).

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

        best = best_logarithm(lambda value: float(nll(jnp.asarray(value, own.dtype))))
        return cls(jnp.exp(jnp.asarray(best, own.dtype)))

    def __call__(
        self, log_probs: Float[Array | np.ndarray, "*rows classes"]
    ) -> Float[Array, "*rows classes"]:
        """Logarithms of the tempered probabilities, normalised."""
        (log_probs,) = floats(log_probs=log_probs, allow_infinite=True)
        temperature = self.temperature.astype(log_probs.dtype)
        return jax.nn.log_softmax(log_probs / temperature, axis=-1)
