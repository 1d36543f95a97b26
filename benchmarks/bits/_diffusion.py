"""Rows of `jaxprob.diffusion`: schedules, predictions and losses."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxprob import diffusion as df
from jaxprob.diffusion import nn

from ._problems import rippled

SCHEDULES = {
    "VP.linear": lambda: df.VP.linear(),
    "VP": lambda: df.VP(lambda t: t, t_max=10.0),
    "VP, square": lambda: df.VP(lambda t: 0.1 * t + 2.0 * t**2, t_max=2.0),
    "SubVP": lambda: df.SubVP(),
    "Cosine": lambda: df.Cosine(),
    "RectifiedFlow": lambda: df.RectifiedFlow(),
    "VE": lambda: df.VE(),
    "EDM": lambda: df.EDM(),
    "Shifted": lambda: df.Shifted(df.Cosine(), 4.0),
}


def rows(num=8, dim=2):
    """Return some data, close to standardised."""
    x = np.random.default_rng(5).normal(size=(num, dim)).astype(np.float32)
    return jnp.asarray(x)


def net(**settings):
    made = nn.ResidualMLP(2, width=8, depth=1, key=jax.random.key(12), **settings)
    return rippled(made)


def loss_and_gradient(loss, denoiser, batch):
    """Return a loss under a fixed key, and its gradient."""

    @eqx.filter_jit
    def both(denoiser):
        def value(denoiser):
            return loss(denoiser, batch, key=jax.random.key(13))[0]

        return eqx.filter_value_and_grad(value)(denoiser)

    value, grads = both(denoiser)
    return {"loss": value, "gradient": grads.net}


def schedule(make):
    """Return what a schedule says at five times, and a loss of a network."""
    made = make()
    share = jnp.asarray([0.02, 0.2, 0.5, 0.8, 0.97])
    times = made.t_min + (made.t_max - made.t_min) * share
    x, noise = rows(5), rows(5)[::-1]

    @jax.jit
    def numbers(times):
        log_snr = jax.vmap(made.log_snr)(times)
        return {
            "alpha": jax.vmap(made.alpha)(times),
            "sigma": jax.vmap(made.sigma)(times),
            "log_snr": log_snr,
            "time": jax.vmap(made.time_of_log_snr)(log_snr),
            "drift": jax.vmap(made.drift)(times),
            "x_t": jax.vmap(made.perturb)(x, times, noise),
        }

    denoiser = df.Preconditioned(net(), made)
    trained = loss_and_gradient(df.DenoisingLoss(), denoiser, rows())
    return {**numbers(times), **trained}


def prediction(name, condition_on):
    """Return the loss where the network's output means another thing."""
    denoiser = df.Preconditioned(
        net(),
        df.Cosine(),
        name,
        sigma_data=0.8,
        mean_data=0.1,
        condition_on=condition_on,
    )
    t = jnp.asarray(0.4)
    x_t = rows()[0]
    call = eqx.filter_jit(lambda d: (d(x_t, t), d.score(x_t, t)))
    return {
        "output": call(denoiser),
        **loss_and_gradient(df.DenoisingLoss("x0"), denoiser, rows()),
    }


def loss(make):
    return loss_and_gradient(make(), df.Preconditioned(net(), df.Cosine()), rows())


def conditional_loss():
    """Return a loss with conditions that are left out at times."""
    denoiser = df.Preconditioned(net(num_classes=3), df.Cosine())
    batch = rows(), jnp.arange(8) % 3
    return loss_and_gradient(df.DenoisingLoss(cond_dropout=0.5), denoiser, batch)


LOSSES = {
    "x0": lambda: df.DenoisingLoss("x0"),
    "v": lambda: df.DenoisingLoss("v"),
    "score": lambda: df.DenoisingLoss("score"),
    "velocity": lambda: df.DenoisingLoss("velocity"),
    "EDMWeighting": lambda: df.DenoisingLoss(df.EDMWeighting()),
    "MinSNR": lambda: df.DenoisingLoss(df.MinSNR()),
    "LikelihoodWeighting": lambda: df.DenoisingLoss(df.LikelihoodWeighting()),
    "ScoreWeighting": lambda: df.DenoisingLoss(
        df.ScoreWeighting(lambda t: 1.0 - jnp.exp(-t))
    ),
    "LogNormalLevels": lambda: df.DenoisingLoss(times=df.LogNormalLevels()),
    "LogitNormalTimes": lambda: df.DenoisingLoss(times=df.LogitNormalTimes()),
    "UniformLogSNR": lambda: df.DenoisingLoss(times=df.UniformLogSNR()),
    "independent times": lambda: df.DenoisingLoss(stratified=False),
    "unbiased": lambda: df.DenoisingLoss(unbiased=True),
    "rows at once": lambda: df.DenoisingLoss(batch_size=3),
}

ROWS = {
    **{f"schedule: {n}": functools.partial(schedule, m) for n, m in SCHEDULES.items()},
    **{
        f"prediction: {name}, {on}": functools.partial(prediction, name, on)
        for name, on in (
            ("edm", "time"),
            ("x0", "noise"),
            ("eps", "noise"),
            ("v", "noise"),
            ("score", "time"),
            ("velocity", "noise"),
        )
    },
    **{f"loss: {name}": functools.partial(loss, m) for name, m in LOSSES.items()},
    "loss: conditions left out": conditional_loss,
}
