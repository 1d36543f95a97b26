"""The error of a denoiser at each noise level, beside the best linear one's."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._random.keys import check_key
from ..._training.batch import num_rows
from ..._types import PRNGKey
from .._denoiser.denoiser import AbstractDenoiser, check_denoiser
from .._denoiser.spectrum import linear_error, unit_rows, variances
from .._types import Cond
from ..nn import check_condition
from .loss import denoising_error, split_batch

NUM_LEVELS = 16
# A condition counts as used if those of other rows make the error 1.1 times as large,
# where the true one makes the linear error 1.4 times smaller.
_USED, _TELLS = 1.1, 1.4


class LevelErrors(eqx.Module):
    """Mean squared errors per coordinate, in units of the data's standard deviation.

    **Fields:**

    - `levels`: noise levels, in the same units, the smallest first.
    - `error`: of the denoiser, with its condition if there is one.
    - `linear`: of the best linear denoiser of these rows; of the best one of each class
        where `cond` is one class for each row.
    - `error_mismatched`: of the denoiser with the conditions of other rows; `None`
        without a condition.
    - `linear_without`: of the best linear denoiser that knows no class; `None` where
        `cond` is not one class for each row.
    """

    levels: Float[np.ndarray, " levels"]
    error: Float[np.ndarray, " levels"]
    linear: Float[np.ndarray, " levels"]
    error_mismatched: Float[np.ndarray, " levels"] | None
    linear_without: Float[np.ndarray, " levels"] | None

    def __str__(self) -> str:
        """Return a table with a line for each level."""
        columns = {
            "error": self.error,
            "linear": self.linear,
            "error_mismatched": self.error_mismatched,
            "linear_without": self.linear_without,
        }
        columns = {name: c for name, c in columns.items() if c is not None}
        lines = ["level   " + "  ".join(f"{name:>16}" for name in columns)]
        for i, level in enumerate(self.levels):
            values = "  ".join(f"{column[i]:16.4g}" for column in columns.values())
            lines.append(f"{level:<8.3g}{values}")
        return "\n".join(lines)


def level_errors(
    denoiser: AbstractDenoiser,
    x_0: Float[np.ndarray | Array, "rows ..."],
    cond: Cond = None,
    *,
    key: PRNGKey,
    num_levels: int = NUM_LEVELS,
) -> LevelErrors:
    r"""Compare a denoiser with the best linear one at each noise level.

    The linear denoiser needs the covariance of the data alone, so a trained network
    should be below it at every level. Where it is above, it has been trained too little
    at that level: give the loss other times, `LogNormalLevels.fitted(denoiser, x)`. A
    loss averaged over levels hides it: errors at high levels weigh little there, but
    they decide a sample's class and brightness.

    ```python
    errors = level_errors(denoiser, x_val, labels, key=key)
    print(errors)
    ```

    **Arguments:**

    - `denoiser`: a trained one.
    - `x_0`: held-out rows, or rows of the training data; enough of them to estimate
        their covariance, such as 1,000.
    - `cond`: their conditions.
    - `key`: of the noise; row i has `fold_in(key, i)`, the same at every level.
    - `num_levels`: how many, evenly in the logarithm, from 0.01 to ten times the
        standard deviation of the data's widest direction, within the schedule's.

    **Returns:** a `LevelErrors`.

    **Warns:** of levels at which the error is a tenth above the linear denoiser's, and
    of those at which the condition is not used although it is informative.
    """
    check_denoiser(denoiser)
    check_key(key)
    x_0, cond = split_batch((x_0, cond))
    check_condition(denoiser, cond)
    rows = unit_rows(denoiser, x_0)
    values = variances(rows)
    levels = _levels(denoiser, values, num_levels)
    at = jnp.asarray(levels, jnp.result_type(float))
    row_key, order_key = jax.random.split(key)
    keys = jax.vmap(lambda i: jax.random.fold_in(row_key, i))(jnp.arange(num_rows(x_0)))
    error = np.asarray(_errors(denoiser, x_0, cond, at, keys), np.float64)
    mismatched = None
    if cond is not None:
        order = jax.random.permutation(order_key, len(x_0))
        other = jax.tree.map(lambda leaf: jnp.asarray(leaf)[order], cond)
        mismatched = np.asarray(_errors(denoiser, x_0, other, at, keys), np.float64)
    linear, without = linear_error(values, levels, rows.shape[1]), None
    labels = _labels(cond, len(x_0))
    if labels is not None:
        within = variances(rows, labels[: len(rows)])
        linear, without = linear_error(within, levels, rows.shape[1]), linear
    found = LevelErrors(levels, error, linear, mismatched, without)
    _warn(found)
    return found


def _levels(denoiser, values, num):
    schedule = denoiser.schedule
    ends = [-0.5 * float(schedule.log_snr(t)) for t in (schedule.t_min, schedule.t_max)]
    low = max(ends[0], np.log(1e-2))
    high = min(ends[1], np.log(10.0 * np.sqrt(values[0])))
    return np.exp(np.linspace(low, high, num + 2)[1:-1])


def _labels(cond, num):
    """Return the classes of rows, or `None` for any other condition."""
    leaves = jax.tree.leaves(cond)
    if len(leaves) != 1 or np.shape(leaves[0]) != (num,):
        return None
    leaf = np.asarray(leaves[0])
    return leaf if np.issubdtype(leaf.dtype, np.integer) else None


@eqx.filter_jit
def _errors(denoiser, x_0, cond, levels, keys):
    def at(level):
        def one(x, cond, key):
            return denoising_error(denoiser, x, level, cond, key=key)

        return jnp.mean(jax.vmap(one)(x_0, cond, keys))

    return jax.lax.map(at, levels)


def _warn(found):
    above = found.error > 1.1 * found.linear
    if above.any():
        i = int(np.argmax(found.error / found.linear))
        warnings.warn(
            f"the denoiser is worse than the best linear one at {int(above.sum())} of "
            f"{len(above)} noise levels, most at level {found.levels[i]:.3g}: "
            f"{found.error[i]:.3g} for {found.linear[i]:.3g}. Train longer, or more at "
            "these levels: times=LogNormalLevels.fitted(denoiser, x)",
            stacklevel=3,
        )
    if found.linear_without is None or found.error_mismatched is None:
        return
    tells = _TELLS * found.linear < found.linear_without
    deaf = tells & (found.error_mismatched < _USED * found.error)
    if deaf.any():
        i = int(np.argmax(deaf))
        warnings.warn(
            f"the denoiser does not use its condition at {int(deaf.sum())} noise "
            f"levels, such as {found.levels[i]:.3g}: its error is {found.error[i]:.3g} "
            f"and {found.error_mismatched[i]:.3g} with the conditions of other rows. "
            "Train more at these levels: times=LogNormalLevels.fitted(denoiser, x)",
            stacklevel=3,
        )
