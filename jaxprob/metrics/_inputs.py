"""Checks of the arguments of metrics: one floating dtype, equal shapes, valid values.

Values are checked only where they are concrete; a tracer has none.
"""

from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Real

from .._checks import check_finite, check_labels, check_same_length
from ._near_zero import near_zero

Weights: TypeAlias = Real[Array | np.ndarray, "..."] | Bool[Array | np.ndarray, "..."]
"""Weights of rows or of elements, as numbers or as flags."""

# Above the rounding of a softmax in half precision, below any mistake.
SUM_TOLERANCE = 1e-2


def is_concrete(value: Any) -> bool:
    return not isinstance(value, Tracer)


def _first(bad: np.ndarray) -> str:
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"[{', '.join(map(str, where))}]"


def floats(*, allow_infinite: bool = False, **arrays: Any) -> list[Array]:
    """Return JAX arrays of one floating dtype of at least 32 bits."""
    out = []
    for name, value in arrays.items():
        dtype = jnp.result_type(value)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"{name} is {dtype}: give floating-point numbers, such as "
                f"{name}.astype(float)"
            )
        array = jnp.asarray(value)
        if array.dtype.itemsize < 4:
            array = array.astype(jnp.float32)
        if array.size == 0:
            raise ValueError(f"{name} is empty: its shape is {array.shape}")
        if is_concrete(array):
            host = np.asarray(array)
            if allow_infinite:
                host = np.where(np.isinf(host), 0.0, host)
            check_finite(name, np.atleast_1d(host))
        out.append(array)
    # Strict promotion raises on float32 beside float64; here the wider one is used.
    dtype = np.result_type(*(array.dtype for array in out))
    return [array.astype(dtype) for array in out]


def check_same_shape(**arrays: Array) -> None:
    """Check that all have one shape; nothing is broadcast."""
    if len({array.shape for array in arrays.values()}) > 1:
        listing = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(
            f"arguments differ in shape: {listing}. Give arrays of one shape"
        )


def check_positive(name: str, array: Array) -> None:
    """Check that scales are positive."""
    if is_concrete(array):
        host = np.asarray(array)
        if (host <= 0.0).any():
            bad = host <= 0.0
            raise ValueError(
                f"{name}{_first(bad)} is {host[bad][0]}: give a positive "
                "standard deviation, not its logarithm"
            )


def check_axes(name: str, array: Array, axes: str) -> None:
    """Check the number of axes against their names in `axes`."""
    if array.ndim != len(axes.split()):
        raise ValueError(
            f"{name} has shape {array.shape}: give axes ({', '.join(axes.split())})"
        )


def check_probabilities(name: str, probs: Array) -> None:
    """Check that each row of the last axis is a distribution."""
    if not is_concrete(probs):
        return
    host = np.asarray(probs)
    if (host < 0.0).any():
        bad = host < 0.0
        raise ValueError(
            f"{name}{_first(bad)} is {host[bad][0]}: probabilities are not negative. "
            f"If these are logits, pass jax.nn.softmax({name})."
        )
    total = host.sum(axis=-1)
    bad = np.abs(total - 1.0) > SUM_TOLERANCE
    if bad.any():
        raise ValueError(
            f"{name}{_first(bad)} sums to {total[bad][0]:.6g}, not to one. If these "
            f"are logits, pass jax.nn.softmax({name})."
        )


def probabilities(name: str, probs: Any, axes: str = "rows classes") -> Array:
    """Return a checked array of class probabilities."""
    (probs,) = floats(**{name: probs})
    check_axes(name, probs, axes)
    check_probabilities(name, probs)
    return probs


def labels_and(labels: Any, name: str, values: Array) -> Array:
    """Return checked labels for an array of shape (rows, classes)."""
    labels = jnp.asarray(labels)
    check_axes("labels", labels, "rows")
    check_same_length(labels=labels, **{name: values})
    if is_concrete(labels):
        check_labels("labels", np.asarray(labels), values.shape[-1])
    # The dtype of argmax: strict promotion raises on int32 beside int64.
    return labels.astype(int)


def mixture(
    y: Any, means: Any, stds: Any, weights: Any | None
) -> tuple[Array, Array, Array, Array]:
    """Return checked outcomes and the means, scales and weights of the components."""
    y, means, stds = floats(**near_zero(y=y, means=means), stds=stds)
    check_same_shape(means=means, stds=stds)
    if means.shape[1:] != y.shape:
        raise ValueError(
            f"means has shape {means.shape} and y {y.shape}: give one array of the "
            "shape of y for each component, along a new leading axis"
        )
    check_positive("stds", stds)
    if weights is None:
        weights = jnp.full(means.shape[0], 1.0 / means.shape[0], y.dtype)
    (weights,) = floats(weights=weights)
    check_axes("weights", weights, "components")
    check_same_length(weights=weights, means=means)
    check_probabilities("weights", weights)
    return y, means, stds, weights.astype(y.dtype)


def two_samples(x: Any, y: Any, *, least: int = 1) -> tuple[Array, Array]:
    """Return two sets of points, flattened to vectors of one length."""
    x, y = floats(**near_zero(x=x, y=y))
    for name, array in (("x", x), ("y", y)):
        if array.ndim == 0 or len(array) < least:
            raise ValueError(
                f"{name} has shape {array.shape}: give at least {least} point(s) along "
                "a leading axis"
            )
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"points of x have shape {x.shape[1:]} and points of y {y.shape[1:]}: give "
            "points of one shape"
        )
    return x.reshape(len(x), -1), y.reshape(len(y), -1)


def reduce(
    values: Array, per_example: bool = False, sample_weight: Weights | None = None
) -> Array:
    """Return the (weighted) mean of the values, or the values themselves.

    A weight of 2 counts as the value twice, and one of 0 as if it were not there.

    **Arguments:**

    - `values`: one for each element.
    - `per_example`: return them as they are.
    - `sample_weight`: of each element, or of each row.
    """
    if per_example and sample_weight is not None:
        raise ValueError(
            "per_example=True returns one value for each example, which sample_weight "
            "does not change: leave one of them out"
        )
    if per_example:
        return values
    if sample_weight is None:
        return jnp.mean(values)
    dtype = values.dtype if jnp.issubdtype(values.dtype, jnp.floating) else float
    weight = jnp.asarray(sample_weight).astype(dtype)
    if weight.shape != values.shape[: weight.ndim] or not weight.ndim:
        raise ValueError(
            f"sample_weight has shape {weight.shape} and the values {values.shape}: "
            "give one for each row, or one for each element"
        )
    if is_concrete(weight):
        host = np.asarray(weight)
        bad = ~(np.isfinite(host) & (host >= 0))
        if bad.any():
            raise ValueError(
                f"sample_weight{_first(bad)} is {host[bad][0]}: give finite weights "
                "that are not negative"
            )
        if not host.any():
            raise ValueError("sample_weight is zero everywhere: nothing is left")
    weight = weight.reshape(weight.shape + (1,) * (values.ndim - weight.ndim))
    weight = jnp.broadcast_to(weight, values.shape)
    counted = jnp.where(weight > 0, values.astype(dtype), jnp.zeros((), dtype))
    return jnp.sum(weight * counted) / jnp.sum(weight)
