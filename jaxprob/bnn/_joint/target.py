"""Targets under a distribution: of one kind or several, whole or in part missing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from .families import base, family_of
from .joint_distribution import JointDistribution


def masked_targets(
    y: Shaped[Array | np.ndarray, "rows *out"] | np.ma.MaskedArray,
) -> tuple[Shaped[np.ndarray, "rows *out"], Bool[np.ndarray, "rows *out"]]:
    """Return targets with NaN for missing entries as a pair `(values, observed)`.

    Such a pair is a target of any likelihood: only the entries that were observed
    enter the log-likelihood. Their gradient and their Fisher information are those of
    a data set without the others. Values that were not observed are never read, and
    are zero here. A NumPy masked array is taken by its mask, so that labels can be
    missing too.

    ```python
    data = (x, masked_targets(y))                # NaN where y is missing
    state, _ = jaxprob.fit(method, model, data, key=key, num_epochs=100)
    ```

    **Arguments:**

    - `y`: targets.

    **Raises:** `TypeError` for integers, which have no NaN: give the pair, or a NumPy
    masked array. `ValueError` for infinite values.
    """
    if isinstance(y, np.ma.MaskedArray):
        observed = ~np.ma.getmaskarray(y)
        return np.where(observed, y.data, np.zeros((), y.dtype)), observed
    array = np.asarray(y)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"y is {array.dtype}, which has no NaN: give the pair (values, observed), "
            "such as (labels, labels >= 0), or a NumPy masked array"
        )
    if np.isinf(array).any():
        row = int(np.argwhere(np.isinf(array))[0][0])
        raise ValueError(
            f"y row {row} is infinite: write NaN where a value is missing, and correct "
            "or leave out what is infinite"
        )
    observed = ~np.isnan(array)
    return np.where(observed, array, np.zeros((), array.dtype)), observed


def is_masked(y: Any) -> bool:
    """Return whether a target is a pair `(values, observed)`."""
    return isinstance(y, tuple | list) and len(y) == 2


def values_of(y: Any) -> Any:
    """Return the values of a target, of which some may be missing."""
    return y[0] if is_masked(y) else y


def observe(p: Any, y: Any) -> tuple[Any, Any]:
    """Return the distribution of the observed entries, and the values.

    **Raises:** `ValueError` or `TypeError` for a mask of another shape or dtype.
    """
    if not is_masked(y):
        return p, y
    values, observed = y
    while isinstance(p, dist.Independent):
        p = p.base_dist
    if not jnp.issubdtype(jnp.asarray(observed).dtype, jnp.bool_):
        raise TypeError(
            f"y is a pair, whose second entry is {jnp.asarray(observed).dtype}: in "
            "(values, observed) it is bool, True where a value was observed"
        )
    if jnp.shape(observed) != p.batch_shape:
        together = (
            f" {type(p).__name__} is over {p.event_shape} numbers together, which are "
            "observed or missing as one."
            if p.event_shape
            else ""
        )
        raise ValueError(
            f"for one example `observed` has shape {jnp.shape(observed)} where "
            f"{p.batch_shape} is needed.{together}"
        )
    return p.mask(jnp.asarray(observed)), values


def num_observed(y: PyTree) -> Array:
    """Return how many numbers the target of one row holds."""
    if isinstance(y, dict):
        return sum(map(num_observed, y.values()), start=jnp.zeros((), int))
    if is_masked(y):
        values, observed = y
        each = jnp.size(values) // max(jnp.size(observed), 1)
        return each * jnp.sum(observed)
    return jnp.asarray(jnp.size(y))


def log_likelihood_of(p: Any, y: PyTree) -> Float[Array, ""]:
    """Return the log-probability of one target, summed over its observed entries.

    **Raises:** `TypeError` for a value that is not a distribution, or a target of the
    wrong dtype; `ValueError` when shapes differ. Nothing is broadcast: (1,) against ()
    would make a matrix of a batch.
    """
    if isinstance(p, JointDistribution):
        parts = p.with_targets(y)
        return sum(log_likelihood_of(*part) for part in parts)  # pyright: ignore
    check_target(p, values_of(y))
    p, y = observe(p, y)
    family = family_of(p)
    if family.is_binary:
        y = y.astype(family.probs(base(p)).dtype)
    elif jnp.issubdtype(y.dtype, jnp.bool_):
        y = y.astype(jnp.int32)
    # numpyro mixes bools and floats, which strict promotion rejects.
    with jax.numpy_dtype_promotion("standard"):
        return jnp.sum(p.log_prob(y))


def check_target(p: Any, y: Array) -> None:
    """Reject a target whose shape or dtype differs from the distribution's."""
    if not isinstance(p, dist.Distribution):
        raise TypeError(
            f"the likelihood returned {type(p).__name__} where a numpyro distribution "
            "is needed"
        )
    shape = p.batch_shape + p.event_shape
    if shape != jnp.shape(y):
        raise ValueError(
            f"for one example the likelihood has shape {shape} and y has shape "
            f"{jnp.shape(y)}. They have to agree: broadcasting would compare each "
            "prediction with each target. A model that gives (1,) goes with y of shape "
            "(rows, 1), y[:, None]; one that gives () with y of shape (rows,)."
        )
    floating = jnp.issubdtype(y.dtype, jnp.floating)
    if p.is_discrete and floating and p.support is not dist.constraints.boolean:
        raise TypeError(
            f"y is {y.dtype} and {type(p).__name__} is over integers: write "
            "y.astype(np.int32)"
        )
    if not p.is_discrete and not floating:
        raise TypeError(
            f"y is {y.dtype} and {type(p).__name__} is over real numbers: write "
            "y.astype(np.float32)"
        )
