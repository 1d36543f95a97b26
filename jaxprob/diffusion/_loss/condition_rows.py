"""The check before training for conditions that give NaN in a user's network."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from .._denoiser.denoiser import AbstractDenoiser, at_level
from ..nn import reader_of

_MOST = 16


def check_readable(
    denoiser: AbstractDenoiser, x_0: Float[Array, "rows ..."], cond: PyTree
) -> None:
    """Check that a network has the classes in a condition, by evaluating it.

    This is for a tree of conditions, or a network whose reader is not known. Tables
    give NaN for rows that they do not have, and the rows with the smallest and the
    largest number of each column are evaluated.

    **Raises:** `ValueError` that names the row.
    """
    leaves = jax.tree.leaves(cond)
    if reader_of(denoiser) is not None or any(isinstance(x, Tracer) for x in leaves):
        return
    places = _extremes(leaves)
    if not places.size:
        return
    rows = jax.tree.map(lambda leaf: jnp.asarray(leaf[places]), cond)
    out = _outputs(denoiser, jnp.zeros((len(places), *x_0.shape[1:]), x_0.dtype), rows)
    broken = ~np.isfinite(np.asarray(out)).reshape(len(places), -1).all(axis=1)
    if broken.any() and not broken.all():
        row = int(places[int(np.argmax(broken))])
        value = jax.tree.map(lambda leaf: np.asarray(leaf[row]).tolist(), cond)
        raise ValueError(
            f"the network gives NaN for cond row {row}, {value}, and not for others: a "
            "table gives NaN for a class that it does not have. Relabel the rows, or "
            "enlarge the table"
        )


def _extremes(leaves: list[Any]) -> np.ndarray:
    """Return the rows with the extremes of each column of integers."""
    places: set[int] = set()
    for leaf in leaves:
        if np.ndim(leaf) and jnp.issubdtype(leaf.dtype, jnp.integer):
            columns = np.asarray(leaf).reshape(len(leaf), -1)[:, :_MOST]
            places.update(columns.argmin(axis=0).tolist())
            places.update(columns.argmax(axis=0).tolist())
    return np.array(sorted(places)[:_MOST], dtype=int)


@eqx.filter_jit
def _outputs(denoiser, x, cond):
    return jax.vmap(lambda x, cond: at_level(denoiser, x, 1.0, cond))(x, cond)
