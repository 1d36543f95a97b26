"""Standard errors of metrics."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from .._checks import check_same_length
from .._random.keys import example_keys
from .._types import PRNGKey
from ._inputs import floats


def mean_and_error(
    values: Float[Array | np.ndarray, "num *shape"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Mean along the leading axis and its standard error s / sqrt(n), s with 1/(n-1).

    The values must be independent, such as scores of examples or of seeds. The splits
    of one data set share rows, so that their standard error, which papers print, is too
    small.

    **Arguments:**

    - `values`: two or more values.
    """
    (values,) = floats(values=values)
    if values.ndim == 0 or len(values) < 2:
        raise ValueError(f"values has shape {values.shape}: give two or more values")
    error = jnp.std(values, axis=0, ddof=1) / np.sqrt(len(values)).item()
    return jnp.mean(values, axis=0), error


def bootstrap(
    metric: Callable[..., Float[Array, ""]],
    *arrays: Shaped[Array | np.ndarray, "rows ..."],
    key: PRNGKey,
    num_resamples: int = 1000,
    batch_size: int = 32,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return a metric of this package and its standard error over examples.

    The rows are drawn again with replacement, and the metric's standard deviation over
    the draws is its standard error. Bootstrap Methods: Another Look at the Jackknife
    (Efron, 1979). Binned metrics such as `ece` are biased upwards in the draws,
    whose rows repeat; only the standard error of the draws is used.

    ```python
    value, error = bootstrap(rmse, y, mean, key=key)
    ```

    **Arguments:**

    - `metric`: a pure function of the arrays.
    - `arrays`: with one leading axis of rows.
    - `key`: key of the draws.
    - `num_resamples`: number of draws.
    - `batch_size`: number of draws that are in memory at a time.

    **Returns:** the metric of the arrays as they are, and its standard error.
    """
    if num_resamples < 2:
        raise ValueError(f"num_resamples={num_resamples}: give at least 2")
    check_same_length(**{f"arrays[{i}]": a for i, a in enumerate(arrays)})
    # The metric of the rows as they are comes first: its checks see their values.
    value = metric(*arrays)
    on_device = tuple(jnp.asarray(array) for array in arrays)
    keys = example_keys(key, num_resamples)
    return value, jnp.std(_resampled(metric, on_device, keys, batch_size), ddof=1)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _resampled(metric, arrays, keys, batch_size):
    rows = len(arrays[0])

    def again(key):
        index = jax.random.randint(key, (rows,), 0, rows)
        return metric(*(array[index] for array in arrays))

    return jax.lax.map(again, keys, batch_size=batch_size)
