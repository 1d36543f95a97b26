"""Weights of rows that give each class the same total."""

from typing import Any

import numpy as np
from jaxtyping import Float


def class_weights(labels: Any) -> Float[np.ndarray, " rows"]:
    r"""Return $u_i = N / (K n_{y_i})$, a weight for each row by the size of its class.

    All classes have the same total, and the weights average to one, so that the
    posterior is about as wide as without them. The posterior is that of a population
    with equally frequent classes: `predictive.probs` are probabilities there, and not
    under the frequencies of the data.

    ```python
    labels = np.array([0, 0, 0, 1])
    weight = class_weights(labels)            # 2 / 3 for class 0, and 2 for class 1
    ```

    They are those of scikit-learn's `compute_sample_weight("balanced", labels)`.

    Reference: *Logistic regression in rare events data*, King and Zeng, 2001.

    **Arguments:**

    - `labels`: one for each row, of any type.

    **Raises:** `ValueError` for another shape than `(rows,)`.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not labels.size:
        raise ValueError(
            f"labels has shape {labels.shape}: give one label for each row, (rows,)"
        )
    _, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return (len(labels) / (len(counts) * counts))[which].astype(np.float32)
