"""Sets of classes with a promise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._types import PRNGKey
from ..metrics._inputs import labels_and, probabilities
from ._conformal import conformal_quantile


class AdaptiveSets(eqx.Module):
    r"""Sets of classes that hold the true one with the promised probability: APS, and
    with a penalty RAPS.

    Classes are added in the order of their probability while

    $$\sum_{j \text{ before } k} p_j + u \, p_k
    + \lambda \, (\text{rank}_k - r)_+ \le q,$$

    ranks from one, q the conformal quantile of the left side at the true labels. Sets
    are larger where the model is unsure. The uniform number u makes the coverage exact
    instead of at least as large; without a key it is one. The most probable class is
    always in, or the set of a confident row could be empty; it only adds coverage.

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
    - `penalty`, `free`: $\lambda$ and r.
    """

    quantile: Float[Array, ""]
    penalty: float = eqx.field(static=True)
    free: int = eqx.field(static=True)

    @classmethod
    def fit(
        cls,
        labels: Int[Array | np.ndarray, " rows"],
        probs: Float[Array | np.ndarray, "rows classes"],
        *,
        level: float,
        penalty: float = 0.0,
        free: int = 1,
        key: PRNGKey | None = None,
    ) -> "AdaptiveSets":
        r"""
        **Arguments:**

        - `labels`: of rows that were not trained on.
        - `probs`: their predicted probabilities.
        - `level`: promised coverage.
        - `penalty`: $\lambda \ge 0$: above zero, rare large sets become smaller.
        - `free`: r, the classes that cost no penalty.
        - `key`: of the uniform numbers. Give one here and at each call, or nowhere.
        """
        if penalty < 0:
            raise ValueError(f"penalty={penalty}: it cannot be negative")
        if free < 0:
            raise ValueError(f"free={free}: a number of classes, 0 or more")
        probs = probabilities("probs", probs)
        labels = labels_and(labels, "probs", probs)
        scores = _scores(probs, penalty, free, key)
        own = jnp.take_along_axis(scores, labels[:, None], axis=-1)[:, 0]
        return cls(conformal_quantile(own, level), penalty, free)

    def __call__(
        self,
        probs: Float[Array | np.ndarray, "rows classes"],
        *,
        key: PRNGKey | None = None,
    ) -> Bool[Array, "rows classes"]:
        """Which classes are in the set of each row.

        **Arguments:**

        - `probs`: predicted probabilities.
        - `key`: of the uniform numbers, if `fit` had one; another than that.
        """
        probs = probabilities("probs", probs)
        quantile = self.quantile.astype(probs.dtype)
        inside = _scores(probs, self.penalty, self.free, key) <= quantile
        top = jnp.argmax(probs, axis=-1)
        return inside | jax.nn.one_hot(top, probs.shape[-1], dtype=bool)


def _scores(probs, penalty, free, key):
    """The left side of the inequality for each class of each row."""
    order = jnp.argsort(-probs, axis=-1)
    ordered = jnp.take_along_axis(probs, order, axis=-1)
    share = jnp.ones((len(probs), 1), probs.dtype)
    if key is not None:
        share = jax.random.uniform(key, share.shape, probs.dtype)
    before = jnp.cumsum(ordered, axis=-1) - ordered
    rank = jnp.arange(1, probs.shape[-1] + 1)
    fine = penalty * jnp.maximum(rank - free, 0).astype(probs.dtype)
    scores = before + share * ordered + fine[None]
    return jnp.take_along_axis(scores, jnp.argsort(order, axis=-1), axis=-1)
