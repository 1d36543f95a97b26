"""Conformal prediction: sets of classes with guaranteed coverage."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._types import PRNGKey
from ..metrics._inputs import labels_and, probabilities
from ._conformal import conformal_quantile


class AdaptiveSets(eqx.Module):
    r"""Adaptive prediction sets of classes (APS), regularised (RAPS) if `lam` > 0.

    A set contains the true class with at least the guaranteed probability.
    Classes are added in the order of their probability while

    $$\sum_{j \text{ before } k} p_j + u \, p_k
    + \lambda \, (\text{rank}_k - k_\text{reg})_+ \le q,$$

    where ranks start at one and q is the conformal quantile of the left side at the
    true labels. Sets are larger where the model is uncertain. The uniform number u
    makes the coverage exact; without a key u is one and the coverage is at least the
    level. The most probable class is always in the set, because the set of a confident
    row could otherwise be empty; that only adds coverage.

    References: *Classification with valid and adaptive coverage*, Romano, Sesia and
    Candès, 2020, https://arxiv.org/abs/2006.02544 (APS); *Uncertainty sets for image
    classifiers using conformal prediction*, Angelopoulos, Bates, Jordan and Malik,
    2021, https://arxiv.org/abs/2009.14193 (RAPS).

    ```python
    sets = AdaptiveSets.fit(labels_val, probs_val, level=0.9)
    members = sets(probs_test)               # (rows, classes), True for members
    ```

    **Arguments:**

    - `quantile`: q.
    - `lam`, `k_reg`: $\lambda$ and $k_\text{reg}$.
    """

    quantile: Float[Array, ""]
    lam: float = eqx.field(static=True)
    k_reg: int = eqx.field(static=True)

    @classmethod
    def fit(
        cls,
        labels: Int[Array | np.ndarray, " rows"],
        probs: Float[Array | np.ndarray, "rows classes"],
        *,
        level: float,
        lam: float = 0.0,
        k_reg: int = 1,
        key: PRNGKey | None = None,
    ) -> "AdaptiveSets":
        r"""Fit q on held-out rows.

        **Arguments:**

        - `labels`: labels of rows that were not trained on.
        - `probs`: their predicted probabilities.
        - `level`: guaranteed coverage.
        - `lam`: $\lambda \ge 0$; a positive value makes rare large sets smaller.
        - `k_reg`: number of classes without penalty.
        - `key`: key of the uniform numbers. Give one here and at each call, or never.
        """
        if lam < 0:
            raise ValueError(f"lam={lam}: give a penalty of at least 0")
        if k_reg < 0:
            raise ValueError(f"k_reg={k_reg}: give a number of classes, 0 or more")
        probs = probabilities("probs", probs)
        labels = labels_and(labels, "probs", probs)
        scores = _scores(probs, lam, k_reg, key)
        own = jnp.take_along_axis(scores, labels[:, None], axis=-1)[:, 0]
        return cls(conformal_quantile(own, level), lam, k_reg)

    def __call__(
        self,
        probs: Float[Array | np.ndarray, "rows classes"],
        *,
        key: PRNGKey | None = None,
    ) -> Bool[Array, "rows classes"]:
        """Return for each row and class whether the class is in the set.

        **Arguments:**

        - `probs`: predicted probabilities.
        - `key`: key of the uniform numbers, if `fit` had one; a different key.
        """
        probs = probabilities("probs", probs)
        quantile = self.quantile.astype(probs.dtype)
        inside = _scores(probs, self.lam, self.k_reg, key) <= quantile
        top = jnp.argmax(probs, axis=-1)
        return inside | jax.nn.one_hot(top, probs.shape[-1], dtype=bool)


def _scores(probs, lam, k_reg, key):
    """Return the left side of the inequality for each class of each row."""
    order = jnp.argsort(-probs, axis=-1)
    ordered = jnp.take_along_axis(probs, order, axis=-1)
    u = jnp.ones((len(probs), 1), probs.dtype)
    if key is not None:
        u = jax.random.uniform(key, u.shape, probs.dtype)
    before = jnp.cumsum(ordered, axis=-1) - ordered
    rank = jnp.arange(1, probs.shape[-1] + 1)
    penalty = lam * jnp.maximum(rank - k_reg, 0).astype(probs.dtype)
    scores = before + u * ordered + penalty[None]
    return jnp.take_along_axis(scores, jnp.argsort(order, axis=-1), axis=-1)
