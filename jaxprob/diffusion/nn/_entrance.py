"""The entrance of any network: checked tables, and errors of a condition."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._types import Model, PRNGKey
from ...tree._single import single
from .._types import Cond
from ._condition import is_condition


class _CheckedTable(eqx.nn.Embedding):
    """A table that gives NaN for a row that it does not have.

    JAX clamps an index beyond the end and counts a negative one from the end, so an
    unknown class would be read as another class.
    """

    def __call__(self, x: Any, *, key: Any = None) -> Array:
        row = super().__call__(x, key=key)
        index = jnp.asarray(x)
        return jnp.where((index >= 0) & (index < len(self.weight)), row, jnp.nan)


def with_checked_tables(net: Model) -> Model:
    """Return the network with each `eqx.nn.Embedding` giving NaN for unknown rows."""

    def is_table(node):
        return type(node) is eqx.nn.Embedding

    def check(node):
        if not is_table(node) or not eqx.is_inexact_array(node.weight):
            return node
        num, size = node.weight.shape
        return _CheckedTable(num, size, node.weight)

    return jax.tree.map(check, net, is_leaf=is_table)


def evaluate_network(
    net: Callable[..., Array],
    x: Float[Array, "*shape"],
    c: Float[Array, ""],
    cond: Cond,
    *,
    key: PRNGKey | None,
) -> Float[Array, "*shape"]:
    """Return `net(x, c, cond, key=key)` in the dtype of `x`.

    A network whose parameters all have one dtype gets its input in that dtype.

    **Raises:** `ValueError` for an output of another shape.
    """
    net = with_checked_tables(net)
    dtype = _dtype(net) or x.dtype
    # Never in half precision: its digits do not tell nearby noise levels apart.
    c = c.astype(jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype)
    out = single(
        read_condition(lambda cond: net(x.astype(dtype), c, cond, key=key), cond)
    ).astype(x.dtype)
    if out.shape != x.shape:
        raise ValueError(
            f"the network turned shape {x.shape} into {out.shape}; a denoiser's "
            "network gives back the shape it gets"
        )
    return out


def read_condition(call: Callable[[Any], Array], cond: PyTree) -> Array:
    """Return `call(cond)`, and name the cause if it cannot read a `Condition`.

    **Raises:** `TypeError` when the call fails on a `Condition` but not on its value;
    otherwise the error of the call.
    """
    leaves = jax.tree.leaves(cond, is_leaf=is_condition)
    if not any(map(is_condition, leaves)):
        return call(cond)
    try:
        return call(cond)
    except Exception as error:
        values = jax.tree.map(
            lambda leaf: leaf.value if is_condition(leaf) else leaf,
            cond,
            is_leaf=is_condition,
        )
        if not _works(call, values):
            raise
        raise TypeError(
            "the network was given an nn.Condition, a condition that may be absent (by "
            "cond_dropout, guidance or a data set with absent ones), and cannot read "
            "it: "
            f"{type(error).__name__}: {error}. Where it reads cond, write "
            "nn.when_present(cond, read, nothing), with a trained array `nothing` for "
            "no condition"
        ) from error


def _works(call, cond):
    try:
        jax.eval_shape(call, cond)
    except Exception:
        return False
    return True


def _dtype(net):
    """Return the dtype of a network's parameters if all have the same one.

    Convolutions take no operands of two dtypes: a network of float32 under
    `jax_enable_x64` is given float32, and one in half precision (as inside
    `LowPrecisionLoss`) half precision.
    """
    kinds = {leaf.dtype for leaf in jax.tree.leaves(net) if eqx.is_inexact_array(leaf)}
    kind = kinds.pop() if len(kinds) == 1 else None
    return kind if kind is not None and jnp.issubdtype(kind, jnp.floating) else None
