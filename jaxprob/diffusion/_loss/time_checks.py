"""The warning of training times that miss the levels at which data are decided."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._denoiser.denoiser import AbstractDenoiser
from .._denoiser.spectrum import unit_rows, variances
from .times import AbstractTimes

_MIN_ROWS = 512  # of a data set; batches of an iterable have fewer
_MIN_SHARE = 0.01
_QUANTILES = 1024


def check_times(
    times: AbstractTimes,
    denoiser: AbstractDenoiser,
    x_0: Float[np.ndarray | Array, "rows ..."],
) -> None:
    """Warn of a distribution of times that hardly trains the data's widest direction.

    A direction of standard deviation r is decided at noise levels near r, so there must
    be training times with a level above r / 2.
    """
    if len(x_0) < _MIN_ROWS:
        return
    values = variances(unit_rows(denoiser, x_0))
    level = 0.5 * float(np.sqrt(values[0]))
    u = jnp.linspace(0.0, 1.0, 2 * _QUANTILES + 1)[1::2]
    t = jax.vmap(lambda u: times.quantile(denoiser.schedule, u))(u)
    levels = np.exp(-0.5 * np.asarray(jax.vmap(denoiser.schedule.log_snr)(t)))
    share = float(np.mean(levels > level))
    if share < _MIN_SHARE:
        warnings.warn(
            f"{100 * share:.2g} % of the training times have a noise level above "
            f"{level:.3g}, half the standard deviation of the data along their widest "
            "direction, in units of sigma_data. What is decided there (a sample's "
            "brightness, often its class) is hardly trained, and the mean loss does "
            "not show it. Write times=LogNormalLevels.fitted(denoiser, x), and look at "
            "level_errors(denoiser, x, key=key)",
            stacklevel=4,
        )
