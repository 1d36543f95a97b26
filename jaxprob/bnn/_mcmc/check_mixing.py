"""A warning of chains that have not mixed."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from ..._jaxpr.host_errors import checks_give_nan
from .._joint.log_joint import LogJoint
from .._posterior.draws import DrawsPosterior
from .._posterior.mixing import rhat

LARGE_RHAT = 1.1
"""R-hat of a warning; chains have mixed below 1.01, which takes many draws to show."""

LEAST_DRAWS = 50
"""Draws of each chain from which R-hat is not large by chance."""

NUM_ROWS = 8
AT_ONCE = 64


def warn_if_apart(posterior: DrawsPosterior, log_joint: LogJoint, x: PyTree) -> None:
    """Warn of chains whose log density or outputs have a large R-hat.

    Weights are not compared: hidden units can be exchanged, and chains that differ in
    every weight may agree on the function.

    **Arguments:**

    - `posterior`: of chains.
    - `log_joint`: of the chains.
    - `x`: inputs, of which the first few are used.
    """
    if posterior.shape[1] < LEAST_DRAWS:
        return
    rows = jax.tree.map(lambda a: jnp.asarray(a)[:NUM_ROWS], x)
    found = {"outputs": _outputs(posterior, log_joint.apply, rows)}
    density = posterior.sample_stats.get("log_density")
    if density is not None:
        found["log density"] = np.asarray(density)[..., None]
    name, value = _worst(found)
    if value > LARGE_RHAT:
        warnings.warn(
            f"the chains have not mixed: R-hat of the {name} is {value:.3g}, and 1.01 "
            "or less is needed. The draws are not draws from the posterior. Raise "
            "num_warmup and num_draws; for a model with local modes start at the best "
            "of several optimisations, initial='map'",
            stacklevel=3,
        )


def _worst(found: Mapping[str, Float[np.ndarray, "chains draws n"]]):
    """Name and value of the largest R-hat, of quantities that are finite and vary."""
    worst = "", 0.0
    for name, values in found.items():
        finite = np.isfinite(values).all(axis=(0, 1))
        values = values[..., finite]
        values = values[..., np.ptp(values, axis=(0, 1)) > 0]
        if values.size:
            # Equal within both chains and apart: within there is no variance.
            sizes = np.nan_to_num(rhat(values), nan=0.0, posinf=np.inf)
            worst = max(worst, (name, float(sizes.max())), key=lambda pair: pair[1])
    return worst


def _outputs(
    posterior: DrawsPosterior, apply: Callable[..., Any], rows: PyTree
) -> Float[np.ndarray, "chains draws n"]:
    @eqx.filter_jit
    def each(posterior):
        @checks_give_nan
        def one(index):
            model = eqx.nn.inference_mode(posterior.atom(index))
            key = jax.random.key(0)  # of noise that is the same in all draws
            outs = jax.vmap(lambda row: apply(model, row, key=key))(rows)
            leaves = filter(eqx.is_inexact_array, jax.tree.leaves(outs))
            return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])

        index = jnp.arange(posterior.num_atoms)
        return jax.lax.map(one, index, batch_size=AT_ONCE)

    return np.asarray(each(posterior)).reshape(*posterior.shape, -1)
