"""The scale of the noise of each output, by the evidence."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._training.batch import num_rows, unpack
from .._joint.likelihood import Likelihood, NormalLikelihood
from .._joint.row import as_row
from .._joint.target import is_masked
from .posterior import LaplacePosterior


def has_scale_by_output(likelihood: Likelihood) -> bool:
    """Return whether a Gaussian likelihood has a noise scale for each output."""
    return isinstance(likelihood, NormalLikelihood) and likelihood.scale.ndim > 0


def noise_by_output(
    posterior: LaplacePosterior,
    batches: Iterable[PyTree],
    apply: Callable[..., Any],
) -> Float[Array, "*out"]:
    r"""Return one step of MacKay's fixed point for the scale of each output.

    $$s_o^2 \leftarrow \frac{\sum_i (y_{io} - f_o(x_i))^2}{N_o - \gamma_o}, \qquad
      \gamma_o = \frac{1}{s_o^2} \sum_i \mathrm{Var}[f_o(x_i)]$$

    $\gamma_o$ is the number of weights that output o determines, and $N_o$ the number
    of its observed targets, counted by the weights of their rows. Where the scale stays
    the same, the derivative of the evidence in it is zero.

    With several scales the curvature is no multiple of what it was, so that the scale
    of `with_noise` alone cannot move it: compute the posterior again.

    Reference: *Bayesian interpolation*, MacKay, 1992, eq. 4.10.

    **Arguments:**

    - `posterior`: at the scale so far.
    - `batches`: the training set.
    - `apply`: as in `LogJoint`.

    **Raises:** `ValueError` where the scale has another shape than a target, or where
    an output determines as many weights as it has targets, so that no noise is left.
    """
    likelihood = posterior.likelihood
    assert isinstance(likelihood, NormalLikelihood)
    scale = np.asarray(likelihood.scale, np.float64)
    squares = spread = count = np.zeros(scale.shape)
    for batch in batches:
        data, mask = unpack(batch)
        row = as_row(data)
        y, observed = row.y if is_masked(row.y) else (row.y, True)
        y = np.asarray(y, np.float64)
        if y.shape[1:] != scale.shape:
            raise ValueError(
                f"the scale of the noise has shape {scale.shape} and a target "
                f"{y.shape[1:]}: give one scale for each output, or one for all"
            )
        mean, covariance = posterior.output_distribution(row.x, apply=apply)
        mean = np.asarray(mean, np.float64).reshape(y.shape)
        variance = jnp.diagonal(covariance, axis1=1, axis2=2) / posterior.temperature
        variance = np.asarray(variance, np.float64).reshape(y.shape)
        weight = np.asarray(row.known(mask), np.float64)
        weight = weight.reshape(num_rows(y), *[1] * scale.ndim) * np.asarray(observed)
        squares = squares + np.sum(weight * (y - mean) ** 2, 0)
        spread = spread + np.sum(weight * variance, 0)
        count = count + np.sum(np.broadcast_to(weight, y.shape), 0)
    left = count - spread / scale**2
    if not np.all((left > 0) & (squares > 0)):
        bad = np.argwhere(~((left > 0) & (squares > 0)))[0].tolist()
        raise ValueError(
            f"output {bad} leaves no residuals from which its noise could be learned: "
            "it has too few targets, or the model goes through all of them"
        )
    dtype = jax.dtypes.canonicalize_dtype(likelihood.scale.dtype)
    return jnp.asarray(np.sqrt(squares / left), dtype)
