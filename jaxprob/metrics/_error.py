"""How sure we are of a metric itself."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from .._random.keys import example_keys
from .._training.batch import num_rows
from .._types import PRNGKey
from ._inputs import floats


def mean_and_error(
    values: Float[Array | np.ndarray, "num *shape"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Mean along the leading axis and its standard error s / sqrt(n), s with 1/(n-1).

    For values that are independent: scores of examples, or of seeds. The splits of one
    data set share rows; their standard error is what papers print, and too small.

    **Arguments:**

    - `values`: at least two.
    """
    (values,) = floats(values=values)
    if values.ndim == 0 or len(values) < 2:
        raise ValueError(
            f"values has shape {values.shape}: a standard error needs two or more"
        )
    error = jnp.std(values, axis=0, ddof=1) / np.sqrt(len(values)).item()
    return jnp.mean(values, axis=0), error


def bootstrap(
    metric: Callable[..., Float[Array, ""]],
    *arrays: Shaped[Array | np.ndarray, "rows ..."],
    key: PRNGKey,
    num_resamples: int = 1000,
    batch_size: int = 32,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """A metric and its standard error over examples, for any metric of this package.

    The rows are drawn again with replacement, and the metric's standard deviation over
    the draws is its standard error. Bootstrap Methods: Another Look at the Jackknife
    (Efron, 1979). Binned metrics such as `ece` are biased up in the draws, whose rows
    repeat: the error is of use, the draws' mean is not.

    ```python
    value, error = bootstrap(rmse, y, mean, key=key)
    ```

    **Arguments:**

    - `metric`: a pure function of the arrays.
    - `arrays`: with one leading axis of rows.
    - `key`: of the draws.
    - `num_resamples`: draws.
    - `batch_size`: draws that are in memory at a time.

    **Returns:** the metric of the arrays as they are, and its standard error.
    """
    if num_resamples < 2:
        raise ValueError(f"num_resamples={num_resamples}: at least two are needed")
    num_rows(arrays)
    # The metric of the rows as they are comes first: its checks see their values.
    value = metric(*arrays)
    on_device = tuple(jnp.asarray(array) for array in arrays)
    keys = example_keys(key, num_resamples)
    return value, jnp.std(_resampled(metric, on_device, keys, batch_size), ddof=1)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _resampled(metric, arrays, keys, batch_size):
    rows = num_rows(arrays)

    def again(key):
        index = jax.random.randint(key, (rows,), 0, rows)
        return metric(*(array[index] for array in arrays))

    return jax.lax.map(again, keys, batch_size=batch_size)
