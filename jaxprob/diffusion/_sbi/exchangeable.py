"""Detection of observations whose columns are exchangeable blocks."""

import itertools

import numpy as np
import scipy.stats
from jaxtyping import Float

_LEAST = 1000
_FARTHEST = 4.5


def exchangeable_rows(
    u: Float[np.ndarray, "rows size"], x: Float[np.ndarray, "rows columns"]
) -> int:
    r"""Return the number of blocks of columns that may be exchanged, 1 if none may.

    n draws of one distribution, side by side, are n blocks: their order says nothing,
    and a network that knows it learns from far fewer simulations. Blocks may be
    exchanged if their moments with the parameters, and those of two blocks, are alike:
    the largest difference of normal scores' moments is below 4.5 standard errors. That
    is no proof: whether a network of sets is better is decided by the held-out loss.

    **Arguments:**

    - `u`: coordinates of the parameters.
    - `x`: observations.
    """
    num, columns = x.shape
    if num < _LEAST:
        return 1
    u = (u - u.mean(axis=0)) / np.maximum(u.std(axis=0), 1e-12)
    for blocks in range(columns, 1, -1):
        if columns % blocks == 0 and _alike(u, x.reshape(num, blocks, -1)):
            return blocks
    return 1


def _alike(u, x):
    num, blocks, size = x.shape
    # Ranks within a column of all blocks: moments of any data are finite.
    pooled = np.moveaxis(x, 2, 0).reshape(size, -1)
    ranks = scipy.stats.rankdata(pooled, axis=1) / (pooled.shape[1] + 1)
    z = np.moveaxis(scipy.stats.norm.ppf(ranks).reshape(size, num, blocks), 0, 2)
    with_u = np.concatenate([np.ones((num, 1)), u, u**2], axis=1)
    inside = np.einsum("nbi,nbj->nbij", z, z).reshape(num, blocks, -1)
    each = np.concatenate([z, inside], axis=2)
    each = np.einsum("nbi,nj->nbij", each, with_u).reshape(num, blocks, -1)
    if not _equal_means(each):
        return False
    if blocks == 2:
        return True
    pairs = [
        np.einsum("ni,nj->nij", z[:, i], z[:, j]).reshape(num, -1)
        for i, j in itertools.permutations(range(blocks), 2)
    ]
    return _equal_means(np.stack(pairs, axis=1))


def _equal_means(values):
    """Return whether moments, of shape (rows, blocks, moments), are alike."""
    apart = values - values.mean(axis=1, keepdims=True)
    error = apart.std(axis=0) / np.sqrt(len(values))
    distance = np.abs(apart.mean(axis=0)) / np.maximum(error, 1e-12)
    # Entries that are equal in every row have no error and no distance.
    return bool(np.all((distance < _FARTHEST) | (apart.std(axis=0) < 1e-9)))
