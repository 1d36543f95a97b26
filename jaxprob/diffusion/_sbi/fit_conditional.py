"""Training of the density of a target given features."""

import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Num, PyTree

from ..._engine.fit import History
from ..._types import PRNGKey
from .._schedule.argument_checks import check_count
from .conditional import ConditionalDensity
from .conditional_network import ConditionalNetwork
from .encoders import AbstractEncoder
from .fit import train_posterior
from .parameter_space import ParameterSpace
from .simulations import Simulations

_FEW = 100


def fit_conditional(
    x: PyTree,
    y: Num[Array | np.ndarray, "rows *targets"],
    *,
    key: PRNGKey,
    encoder: str | AbstractEncoder | None = "vector",
    missing: bool = False,
    num_members: int = 4,
    width: int = 64,
    depth: int = 2,
    num_steps: int = 2_000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    weight_decay: float | Sequence[float] = (0.0, 0.1, 1.0),
    num_rounds: int = 20,
    num_knots: int = 64,
    num_flow_steps: int = 12,
    progress: bool = True,
) -> tuple[ConditionalDensity, History]:
    r"""Train the density of a target given features, $p(y \mid x)$ of any shape.

    For regression whose noise is multimodal, skewed, or bounded in a way that depends
    on x. Conditional denoisers learn what a linear regression leaves of y, and the
    networks are a mixture, so that they disagree where there are no data. With Gaussian
    noise a network of `jaxprob.bnn` is cheaper and as good.

    Reference: *CARD: Classification and Regression Diffusion Models*, Han, Zheng and
    Zhou, 2022; trained as `fit_posterior` is.

    ```python
    density, history = diffusion.fit_conditional(features, target, key=key)
    predictive = bnn.Predictive(density(features), density.likelihood)
    nats = density.log_prob(target, features)
    ```

    **Arguments:**

    - `x`: features, `(rows, features)`, or a tree of arrays with a leading axis.
    - `y`: `(rows,)`, or `(rows, targets)`.
    - `key`: of the initial weights and the training.
    - `encoder`, `missing`: of x, as in `fit_posterior`.
    - `num_members`: number of networks in the mixture.
    - `width`, `depth`, `num_steps`, `batch_size`, `learning_rate`, `weight_decay`,
        `num_rounds`, `progress`: as in `fit_posterior`.
    - `num_knots`, `num_flow_steps`: size of the table of one row, and steps of
        `diffrax.Tsit5` along its flow. Raise both for modes that are a twentieth or
        less of their distance wide.

    **Returns:** the density, and the history of `fit_posterior`.

    **Raises:** `ValueError` for entries that are not finite, numbers of rows that
    differ, and a target that is one number. Warns of fewer than 100 rows.
    """
    check_count("num_knots", num_knots, "at least one")
    check_count("num_flow_steps", num_flow_steps, "at least one")
    targets = _checked(x, y)
    mean, scale = targets.mean(axis=0), targets.std(axis=0)
    flat = ((targets - mean) / scale).reshape(len(targets), -1)
    space = ParameterSpace(dist.Normal(jnp.zeros(flat.shape[1]), 1.0))
    posterior, history = train_posterior(
        space,
        Simulations(flat.astype(jnp.result_type(float)), x),
        key=key,
        encoder=encoder,
        missing=missing,
        num_members=num_members,
        width=width,
        depth=depth,
        num_steps=num_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        num_rounds=num_rounds,
        progress=progress,
    )
    shared = posterior.scaler, posterior.linear, np.asarray(mean), np.asarray(scale)
    scaler, linear, mean, scale = jax.tree.map(
        lambda a: np.stack([a] * num_members) if isinstance(a, np.ndarray) else a,
        shared,
    )
    networks = ConditionalNetwork(
        scaler,
        linear,
        posterior.encoders,
        posterior.denoiser.members,
        mean,
        scale,
        num_knots,
        num_flow_steps,
    )
    return ConditionalDensity(networks), history


def _checked(x, y):
    """Return the targets in double precision."""
    targets = np.asarray(y)
    if targets.dtype.kind not in "fiu" or targets.ndim not in (1, 2):
        raise ValueError(
            f"y has shape {targets.shape} and dtype {targets.dtype}: give real numbers "
            "of shape (rows,) or (rows, targets)"
        )
    rows = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(x)}
    if rows != {(len(targets),)}:
        raise ValueError(
            f"y has {len(targets)} rows, and the arrays of x have leading axes "
            f"{sorted(rows)}: give one target for each row of x"
        )
    targets = targets.astype(np.float64)
    bad = ~np.isfinite(targets)
    if bad.any():
        row = int(np.argwhere(bad)[0, 0])
        raise ValueError(f"y: row {row} is {targets[row]}; leave it out")
    if len(targets) < 2 or np.any(targets.std(axis=0) == 0.0):
        raise ValueError(
            f"y of {len(targets)} rows is one number (in a column): there is no "
            "density to learn"
        )
    if len(targets) < _FEW:
        warnings.warn(
            f"{len(targets)} rows are too few to learn the shape of a density from: "
            "with fewer than 100, use a network of jaxprob.bnn with Gaussian noise",
            stacklevel=3,
        )
    return targets
