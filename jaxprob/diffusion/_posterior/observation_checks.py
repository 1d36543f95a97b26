"""Checks of a measurement on the host, where its values are known."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from .._types import ARRAYS

# Of the probes of an adjoint and of a linear function, in units of the machine epsilon
# times the number of terms in the sums.
_ROUNDING = 1e3


def as_measured(y: PyTree, missing: Any) -> tuple[PyTree, PyTree]:
    """Return a measurement as arrays, and which of its entries are missing.

    Entries that are missing get the value of one that is there, which is in the support
    of any distribution of y.

    **Raises:** `ValueError` for NaN that are not declared missing, infinite or complex
    values, another shape of `missing`, and nothing measured at all.
    """
    if isinstance(y, list | tuple) and all(isinstance(a, int | float) for a in y):
        y = np.asarray(y)
    y = jax.tree.map(jnp.asarray, y)
    if not jax.tree.leaves(y):
        raise ValueError("y has no arrays: give the measurement")
    if isinstance(missing, bool):
        masks = jax.tree.map(lambda leaf: _missing_nan(leaf, missing), y)
    else:
        masks = jax.tree.map(jnp.asarray, missing)
    same = jax.tree.structure(masks) == jax.tree.structure(y)
    if not same or any(map(_unlike, jax.tree.leaves(masks), jax.tree.leaves(y))):
        raise ValueError(
            f"missing has {shapes(masks)} and y has {shapes(y)}: give Booleans of the "
            "shapes of y, True where y was not measured, or missing=True for NaN"
        )
    paths = jax.tree_util.tree_leaves_with_path(y)
    for (path, leaf), mask in zip(paths, jax.tree.leaves(masks), strict=True):
        _check_values("y" + jax.tree_util.keystr(path), leaf, mask)
    return jax.tree.map(_filled, y, masks), masks


def as_noises(noise: Any, y: PyTree) -> tuple[Any, ...]:
    """Return a standard deviation of the shape of y or a function, for each leaf.

    **Raises:** `ValueError` for another shape, or a standard deviation that is negative
    or not finite.
    """
    leaves, structure = jax.tree.flatten(y)
    each = jax.tree.flatten(noise)[0]
    if jax.tree.structure(noise) != structure:
        if len(each) != 1:
            raise ValueError(
                f"noise is a tree of {len(each)} values and y one of {len(leaves)}: "
                "give one for all, or a tree of the structure of y"
            )
        each = each * len(leaves)
    return tuple(map(_as_noise, each, leaves))


def check_prediction(found: PyTree, y: PyTree, shape: tuple[int, ...] | None) -> None:
    """Check that a prediction has the structure and the shapes of y.

    **Arguments:**

    - `found`: the prediction, or other values of y.
    - `shape`: of x, for the error; `None` if these are values of y.
    """
    same = jax.tree.structure(found) == jax.tree.structure(y)
    leaves = zip(jax.tree.leaves(found), jax.tree.leaves(y), strict=False)
    if same and all(jnp.shape(a) == jnp.shape(b) for a, b in leaves):
        return
    if shape is None:
        raise ValueError(
            f"y is {shapes(found)} where the observation has {shapes(y)} for one "
            "example: give cond=Measured(y) with a leading axis of samples"
        )
    raise ValueError(
        f"operator returned {shapes(found)} for x of shape {shape}, and y is "
        f"{shapes(y)}: they must be equal. y is the measurement of one example"
    )


def check_adjoint(operator: lx.AbstractLinearOperator) -> None:
    r"""Check that $\langle A x, u \rangle = \langle x, A^T u \rangle$ at a random pair.

    **Raises:** `ValueError` with both numbers.
    """
    inside, outside = operator.in_structure(), operator.out_structure()
    if not isinstance(inside, jax.ShapeDtypeStruct):
        raise ValueError(
            f"operator takes {shapes(inside)}: give an operator of one array, x"
        )
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(operator)):
        return
    keys = iter(jax.random.split(jax.random.key(0), 1 + len(jax.tree.leaves(outside))))
    x = _normal(inside, key=next(keys))
    u = jax.tree.map(lambda leaf: _normal(leaf, key=next(keys)), outside)
    product, pulled = operator.mv(x), operator.transpose().mv(u)
    left, right = _dot(product, u), _dot(x, pulled)
    scale = np.sqrt(_dot(product, product) * _dot(u, u))
    scale += np.sqrt(_dot(x, x) * _dot(pulled, pulled))
    if abs(left - right) > _tolerance(x) * scale:
        raise ValueError(
            f"operator.transpose() is not the adjoint of operator: <A x, u> is "
            f"{left:.6g} and <x, A^T u> is {right:.6g} for one random pair. Correct "
            "the transpose, or give the function operator.mv, which JAX transposes"
        )


def check_linear(
    predict: Callable[[Any], PyTree], shape: tuple[int, ...], dtype: Any
) -> None:
    """Check that a function is linear up to a constant, at random points.

    **Raises:** `ValueError` with the relative size of what is not linear.
    """
    left_key, right_key = jax.random.split(jax.random.key(0))
    struct = jax.ShapeDtypeStruct(shape, dtype)
    a, b = _normal(struct, key=left_key), _normal(struct, key=right_key)
    at_a, at_b, both, none = map(predict, (a, b, 2.0 * a - b, jnp.zeros_like(a)))
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((at_a, none))):
        return
    rest = jax.tree.map(lambda p, q, r, z: r - 2.0 * p + q, at_a, at_b, both, none)
    size = np.sqrt(_dot(at_a, at_a) + _dot(at_b, at_b)) + np.sqrt(_dot(none, none))
    error = np.sqrt(_dot(rest, rest))
    if error > _tolerance(a) * size:
        raise ValueError(
            f"linear=True, but the operator is not: A(2a - b) differs from "
            f"2 A(a) - A(b) by {error / size:.2g} of its size at a random pair. Leave "
            "linear=True out; MMPS linearises A at each point"
        )


def shapes(tree: PyTree) -> str:
    """Return the shapes of a tree of arrays, for errors."""
    if isinstance(tree, (*ARRAYS, jax.ShapeDtypeStruct)):
        return f"an array of shape {tree.shape}"
    return f"a tree of shapes {[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]}"


def _missing_nan(leaf, missing):
    if missing and jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.isnan(leaf)
    return jnp.zeros(leaf.shape, bool)


def _unlike(mask, leaf):
    return mask.shape != leaf.shape or mask.dtype != jnp.bool_


def _check_values(name, leaf, mask):
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        raise ValueError(
            f"{name} is {leaf.dtype}: measure real and imaginary parts, e.g. "
            "operator=lambda x: jnp.stack([z.real, z.imag])"
        )
    if isinstance(leaf, Tracer) or isinstance(mask, Tracer):
        return
    values, mask = np.asarray(leaf), np.asarray(mask)
    if mask.size and mask.all():
        raise ValueError(f"all entries of {name} are missing: nothing was measured")
    bad = ~np.isfinite(values) & ~mask
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name} holds {bad.sum()} values that are not finite, the first "
            f"{values[place]} at {place}: give missing=True if NaN were not measured, "
            "or missing=mask with Booleans of the shape of y"
        )


def _filled(leaf, mask):
    there = leaf.ravel()[jnp.argmin(mask.ravel())]
    return jnp.where(mask, there, leaf)


def _as_noise(noise, y):
    if callable(noise):
        return noise
    dtype = y.dtype if jnp.issubdtype(y.dtype, jnp.floating) else jnp.result_type(float)
    deviation = jnp.asarray(noise).astype(dtype)
    if deviation.ndim > y.ndim or not _fits(deviation.shape, y.shape):
        raise ValueError(
            f"noise has shape {deviation.shape}, which does not broadcast to y of "
            f"shape {y.shape}: give a number or a standard deviation for each entry"
        )
    if not isinstance(deviation, Tracer):
        values = np.asarray(deviation)
        if not np.isfinite(values).all() or (values < 0.0).any():
            raise ValueError(
                f"noise={noise}: a standard deviation is positive and finite, or 0 for "
                "an exact measurement"
            )
    return jnp.broadcast_to(deviation, y.shape)


def _fits(shape, whole):
    pairs = zip(reversed(shape), reversed(whole), strict=False)
    return all(size in (1, other) for size, other in pairs)


def _normal(struct, *, key):
    return jax.random.normal(key, struct.shape, struct.dtype)


def _dot(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(float(np.vdot(np.asarray(p), np.asarray(q))) for p, q in pairs)


def _tolerance(x):
    return _ROUNDING * float(jnp.finfo(x.dtype).eps) * max(1.0, x.size**0.5)
