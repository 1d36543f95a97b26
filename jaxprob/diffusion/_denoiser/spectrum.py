"""The spectrum of a data set, and the error of the best linear denoiser."""

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from ...tree._single import single
from .denoiser import AbstractDenoiser

MAX_ROWS = 1024
"""Rows that a spectrum is computed from; more change its largest values little."""


def unit_rows(
    denoiser: AbstractDenoiser, x_0: Float[np.ndarray | Array, "rows ..."]
) -> Float[np.ndarray, "first dim"]:
    """Return the first rows of a data set, standardised and flattened, in float64."""
    units = denoiser.standardised()[1]
    rows = jax.vmap(units.to_unit)(single(x_0[:MAX_ROWS]))
    return np.asarray(rows, np.float64).reshape(len(rows), -1)


def variances(
    rows: Float[np.ndarray, "rows dim"], labels: Int[np.ndarray, " rows"] | None = None
) -> Float[np.ndarray, " directions"]:
    r"""Return the eigenvalues of the covariance of rows, largest first.

    There are as many as rows or dimensions, whichever are fewer; the others are zero.

    **Arguments:**

    - `rows`: one example each.
    - `labels`: their classes; the covariance is then that within classes, about the
        mean of each class.
    """
    if labels is None:
        centred, lost = rows - rows.mean(0), 1
    else:
        classes, index = np.unique(labels, return_inverse=True)
        means = np.stack([rows[index == i].mean(0) for i in range(len(classes))])
        centred, lost = rows - means[index], len(classes)
    wide = centred.shape[1] > centred.shape[0]
    products = centred @ centred.T if wide else centred.T @ centred
    values = np.linalg.eigvalsh(products)[::-1] / max(len(rows) - lost, 1)
    return np.maximum(values, 0.0)


def linear_error(
    variances: Float[np.ndarray, " directions"],
    levels: Float[np.ndarray, " levels"],
    dim: int,
) -> Float[np.ndarray, " levels"]:
    r"""Return the mean squared error of the best linear denoiser at noise levels.

    $$e(s) = \frac 1 d \sum_i \frac{\lambda_i s^2}{\lambda_i + s^2}$$

    It is the error of the posterior mean if the data are Gaussian, and no posterior
    mean is worse.

    **Arguments:**

    - `variances`: $\lambda$ of all directions that have any.
    - `levels`: s.
    - `dim`: d, coordinates of one example.
    """
    s2 = np.asarray(levels, float)[:, None] ** 2
    return np.sum(variances * s2 / (variances + s2), axis=1) / dim
