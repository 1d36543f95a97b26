"""The method `"diffusion"` of the regressor: densities of y of any shape."""

import inspect
from typing import Any

import equinox as eqx
import jax
import numpy as np
from sklearn.utils import check_random_state

from .. import bnn
from ..datasets import Standardizer
from ..diffusion import ConditionalDensity, fit_conditional
from ._compiled import Fitted
from ._noise import Noise, itself

SETTINGS: dict[str, dict[str, int]] = {
    "fast": {"num_members": 2, "num_steps": 1000},
    "default": {"num_members": 4, "num_steps": 2000},
    "best": {"num_members": 8, "num_steps": 4000},
}
"""Networks and steps by effort."""

_OF_OTHERS = (
    *("noise", "likelihood", "num_outputs", "hidden", "network", "prior_scale"),
    *("batch_size", "learning_rate", "num_samples"),
)
_TRANSFORMS = ("auto", "standardise", "none")


def density_noise(estimator: Any, y: np.ndarray) -> Noise:
    """Return the noise of a density that is learned.

    **Raises:** `ValueError` for settings that it would not use, and several targets.
    """
    defaults = inspect.signature(type(estimator).__init__).parameters
    for name in _OF_OTHERS:
        value = getattr(estimator, name)
        if value is not defaults[name].default and value != defaults[name].default:
            raise ValueError(
                f"{name}={value!r} with method='diffusion', which learns the shape of "
                f"the noise with separate networks: leave {name} out, or use "
                "jaxprob.diffusion.fit_conditional, which has more settings"
            )
    if estimator.target not in _TRANSFORMS:
        raise ValueError(
            f"target={estimator.target!r} with method='diffusion': give "
            "target='standardise', since the density may have any shape"
        )
    if y.shape[1] != 1:
        raise ValueError(
            f"y has {y.shape[1]} columns, and method='diffusion' is for one: give a "
            "column, or use jaxprob.diffusion.fit_conditional, which is joint"
        )
    return Noise(ConditionalDensity.likelihood, 1, (itself,))


def train_density(
    estimator: Any,
    x: np.ndarray,
    targets: np.ndarray,
    noise: Noise,
    sample_weight: np.ndarray | None = None,
) -> Fitted:
    """Standardise the inputs and train networks, which are the posterior.

    **Arguments:** as of `train`.

    **Raises:** `ValueError` for weights of the rows.
    """
    if sample_weight is not None:
        raise ValueError(
            "sample_weight with method='diffusion': give sample_weight=None, and "
            "repeat rows that count more than once"
        )
    seed = check_random_state(estimator.random_state).randint(2**31 - 1)
    fit_key, predict_key = jax.random.split(jax.random.key(seed))
    settings: dict[str, Any] = dict(SETTINGS[estimator.effort])
    if estimator.num_steps is not None:
        settings["num_steps"] = estimator.num_steps
    scaler = Standardizer.fit(x, constant="keep")
    density, estimator.history_ = fit_conditional(
        scaler(x), targets, key=fit_key, progress=estimator.verbose, **settings
    )
    chain = jax.tree.map(lambda a: a[None], eqx.filter(density.networks, eqx.is_array))
    posterior = bnn.DrawsPosterior(chain, density.networks)
    return Fitted(
        posterior, noise.likelihood, scaler, predict_key, None, keeps_outputs=True
    )
