"""Training of the posterior of a simulator."""

import warnings
from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..._engine.fit import History
from ..._random.keys import check_key
from ..._types import PRNGKey
from .._denoiser.averaged import Averaged
from .._denoiser.preconditioned import Preconditioned
from .._schedule.argument_checks import check_count, check_kind
from .._schedule.edm import EDM
from ..nn import Encoded
from .encoders import AbstractEncoder, BlocksEncoder, make_encoder, summaries
from .exchangeable import exchangeable_rows
from .network import PosteriorMLP
from .observation_scaler import ObservationScaler
from .parameter_space import ParameterSpace, as_space
from .posterior import SimulatorPosterior
from .residual import LinearResidual
from .rounds import train_best
from .simulations import Simulations

_HELD_OUT = 0.1
_MOST_HELD_OUT = 4000
_FEW = 100


def fit_posterior(
    prior: PyTree | ParameterSpace,
    simulations: Simulations,
    *,
    key: PRNGKey,
    encoder: str | AbstractEncoder | None = None,
    missing: bool = False,
    num_members: int = 4,
    width: int = 128,
    depth: int = 3,
    num_steps: int = 4_000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    weight_decay: float | Sequence[float] = (0.0, 0.1, 1.0),
    num_rounds: int = 20,
    progress: bool = True,
) -> tuple[SimulatorPosterior, History]:
    r"""Train the posterior of a simulator's parameters on simulations.

    An average of conditional denoisers learns $p(\theta \mid x)$ for all x together, in
    the real coordinates of the prior, less what a linear regression on x explains. A
    tenth of the simulations, at most 4,000, is held out: the state with the lowest loss
    on them is what is returned.

    References: *Sequential Neural Score Estimation*, Sharrock, Simons, Liu and
    Beaumont, 2024; *Elucidating the Design Space of Diffusion-Based Generative Models*,
    Karras et al., 2022.

    ```python
    sims = simulate(prior, simulator, key=sim_key, num_simulations=10_000)
    posterior, history = fit_posterior(prior, sims, key=fit_key)
    theta = posterior.sample(x, key=key, num_samples=1000)
    ```

    **Arguments:**

    - `prior`: of the simulations.
    - `simulations`: of `simulate`, `simulate_in_processes`, or your own pairs,
        `Simulations(theta, x)`, whose parameters are drawn from the prior.
    - `key`: of the initial weights and the training.
    - `encoder`: what the axes of an observation are: `"vector"` (default for numbers
        and vectors), `"set"` of exchangeable rows, `"series"` (time, columns),
        `"image"` (channels, height, width); or a module from one standardised
        observation to a vector. By default a vector whose columns are found to be
        exchangeable blocks, such as n draws side by side, is tried as a set too.
    - `missing`: whether NaN in an observation marks an entry that was not observed.
    - `num_members`: number of networks that are averaged.
    - `width`, `depth`: of each network.
    - `num_steps`, `batch_size`, `learning_rate`: of AdamW, whose rate falls to zero
        by a cosine.
    - `weight_decay`: of AdamW, or several values, of which the one is taken with which
        a pilot, one network of half the steps, has the lowest held-out loss. A step
        takes the product of rate and decay from every weight. Without it a network
        learns 10,000 noisy simulations by heart; with it, it does not resolve a sharp
        posterior.
    - `num_rounds`: how many times the held-out loss is computed.
    - `progress`: whether to show a progress bar on standard error.

    **Returns:** the posterior, and a history of the rounds, those of pilots first:
    `"step"`, the mean `"loss"` of a member, the held-out `"val_loss"` of their average,
    the number of `"members"` and of exchangeable `"blocks"`, and the `"weight_decay"`.

    **Raises:** `ValueError` for parameters outside of the prior's support, entries that
    are not finite, or simulations that do not fit the prior. Warns of fewer than 100
    simulations.
    """
    space = as_space(prior)
    check_kind("simulations", simulations, Simulations, "Simulations(theta, x)")
    _check_simulations(space, simulations)
    return train_posterior(
        space,
        simulations,
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


def train_posterior(
    space: ParameterSpace,
    simulations: Simulations,
    *,
    key: PRNGKey,
    encoder: str | AbstractEncoder | None,
    missing: bool,
    num_members: int,
    width: int,
    depth: int,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float | Sequence[float],
    num_rounds: int,
    progress: bool,
) -> tuple[SimulatorPosterior, History]:
    """Train as `fit_posterior` does, on pairs that were checked."""
    check_key(key)
    for name, value in (("num_members", num_members), ("num_rounds", num_rounds)):
        check_count(name, value, "at least one")
    u = np.asarray(space.to_vectors(simulations.theta))
    found = 1 if encoder is not None or missing else _num_blocks(u, simulations.x)
    scaler = ObservationScaler.fitted(simulations.x, missing=missing, num_blocks=found)
    x = jax.tree.map(np.asarray, scaler(simulations.x))
    init_key, pilot_key, fit_key, eval_key = jax.random.split(key, 4)
    example = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), x)
    encode = partial(_encoder, encoder, example, missing)

    features = summaries(encode(1, init_key), x)
    linear = LinearResidual.fitted(*_split((u, features), len(u))[0])
    data = np.asarray(linear.residual(jnp.asarray(u), features)), x
    training, held_out = _split(data, len(u))

    def make(blocks, members):
        def member(key):
            encoder_key, net_key = jax.random.split(key)
            rows = encode(blocks, encoder_key)
            net = PosteriorMLP(
                space.size, rows.size, width=width, depth=depth, key=net_key
            )
            return Preconditioned(Encoded(rows, net), EDM())

        return Averaged(eqx.filter_vmap(member)(jax.random.split(init_key, members)))

    best, history = train_best(
        make,
        training,
        held_out,
        list(product(sorted({1, found}), np.atleast_1d(weight_decay).tolist())),
        num_members,
        keys=(pilot_key, fit_key, eval_key),
        learning_rate=learning_rate,
        num_steps=num_steps,
        num_rounds=num_rounds,
        batch_size=batch_size,
        progress=progress,
    )
    members: Any = best.members
    inner = eqx.tree_at(lambda member: member.net, members, members.net.net)
    denoiser = Averaged(inner, own_conditions=True)
    posterior = SimulatorPosterior(space, scaler, linear, members.net.encoder, denoiser)
    return posterior, history


def _encoder(kind, example, missing, blocks, key):
    if isinstance(kind, AbstractEncoder):
        return kind
    if blocks > 1:
        return BlocksEncoder(example, blocks, key=key)
    return make_encoder(kind, example, missing=missing, key=key)


def _num_blocks(u, x):
    """Return the exchangeable blocks of raw vectors, of the rows that are trained on.

    Before they are scaled: the spread of a heavy-tailed column is known so badly that
    columns of one distribution would no longer be alike.
    """
    if not isinstance(x, np.ndarray | jax.Array) or x.ndim != 2:
        return 1
    rows = np.asarray(x, float)
    if not np.isfinite(rows).all():
        return 1  # an error by the scaler, which names the row
    return exchangeable_rows(*_split((u.astype(float), rows), len(u))[0])


def _split(data, num):
    """Return training and held-out rows, by chance: a user's pairs may be sorted."""
    held = min(max(1, int(_HELD_OUT * num)), _MOST_HELD_OUT)
    order = np.random.default_rng(0).permutation(num)
    training = jax.tree.map(lambda leaf: leaf[order[held:]], data)
    return training, jax.tree.map(lambda leaf: leaf[order[:held]], data)


def _check_simulations(space, simulations):
    rows = {np.shape(leaf)[0] for leaf in jax.tree.leaves(simulations.x)}
    num = len(simulations)
    if rows != {num}:
        raise ValueError(
            f"simulations have {num} parameters and {sorted(rows)} observations: give "
            "one observation for each, along the leading axis of every array"
        )
    if num < 2:
        raise ValueError(f"{num} simulations: a posterior is trained on thousands")
    inside = np.asarray(space.contains(simulations.theta))
    if not inside.all():
        row = int(np.flatnonzero(~inside)[0])
        raise ValueError(
            f"simulations.theta: row {row} is outside of the prior's support; were "
            "they drawn from another prior?"
        )
    if num < _FEW:
        warnings.warn(
            f"{num} simulations are too few for a network to learn a posterior from: "
            "simulate at least a thousand",
            stacklevel=3,
        )
