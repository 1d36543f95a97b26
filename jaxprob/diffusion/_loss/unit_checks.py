"""Warnings of data whose scale is not the denoiser's."""

import warnings

import jax
import numpy as np
from jaxtyping import Array, Float

from ...tree._single import single
from .._denoiser.denoiser import AbstractDenoiser

_REMEDY = (
    "Preconditioned.fitted(net, schedule, x) takes mean_data and sigma_data from the "
    "data"
)


def check_units(denoiser: AbstractDenoiser, x_0: Float[Array, "rows ..."]) -> None:
    """Compare a data set, and its columns, with the denoiser's units.

    Examples of one axis have columns, and those of three or more have channels.
    """
    units = denoiser.standardised()[1]
    unit = np.asarray(jax.vmap(units.to_unit)(single(x_0)), np.float64)
    mean, std = float(unit.mean()), float(unit.std())
    if abs(mean) > 2.0 or not 0.2 < std < 5.0:
        data = np.asarray(single(x_0), np.float64)
        warnings.warn(
            f"the data have mean {data.mean():.3g} and standard deviation "
            f"{data.std():.3g}, which are {mean:.3g} and {std:.3g} in the units of the "
            f"denoiser and should be near 0 and 1. {_REMEDY}",
            stacklevel=4,
        )
    elif unit.ndim == 2 or unit.ndim >= 4:
        _check_columns(unit)


def _check_columns(unit):
    axes = (0, *range(2, unit.ndim))
    mean, std = unit.mean(axes), unit.std(axes)
    # Constant columns have no scale that could be wrong.
    wrong = (std > 0.0) & ((std < 0.1) | (std > 10.0) | (np.abs(mean) > 10.0))
    if not wrong.any():
        return
    j = int(np.argmax(np.where(wrong, np.abs(np.log(np.maximum(std, 1e-300))), -1.0)))
    what = "column" if unit.ndim == 2 else "channel"
    warnings.warn(
        f"{what} {j} of the data has mean {mean[j]:.3g} and standard deviation "
        f"{std[j]:.3g} in the units of the denoiser, {int(wrong.sum())} of {len(std)} "
        f"{what}s are far from 0 and 1: noise of one size hides small {what}s, which "
        f"are then drawn far too wide. {_REMEDY}, for each {what}",
        stacklevel=5,
    )
