"""Epistemic intervals of a diffusion model's log-density, with HMC as the judge.

    python -m benchmarks.bayesian_diffusion --data-sets 20 --rows 100

Each data set is a draw of `rows` points from a mixture of three Gaussians in the plane.
A denoiser of one hidden layer is fitted to it, and a posterior over its weights by each
method, from `diffusion.DenoisingRows` at two temperatures: T = 1, in nats of the
variational bound, and the one of `bnn.matched_temperature` (last layer). The truth at a
point is `log_prob` of the same network fitted to `--truth-rows` points. Printed are,
over all data sets and 24 points of the mixture, the coverage of the truth by the 90 %
interval over members, the mean standard deviation over members in nats, the root mean
square distance of the members' mean from the truth, and seconds. `fit` is the distance
of one fit to the truth, which a good standard deviation equals.
"""

import argparse
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxprob
from jaxprob import bnn
from jaxprob.diffusion import (
    EDM,
    Averaged,
    DenoisingRows,
    Linearised,
    Preconditioned,
    UniformLogSNR,
    log_prob_members,
)
from jaxprob.testing import GaussianMixture

MIXTURE = GaussianMixture(
    jnp.array([0.3, 0.3, 0.4]),
    jnp.array([[1.2, 0.3], [-0.9, 0.9], [-0.2, -1.0]]),
    jnp.array(
        [
            [[0.1, 0.0], [0.0, 0.3]],
            [[0.2, 0.05], [0.05, 0.1]],
            [[0.15, 0.0], [0.0, 0.15]],
        ]
    ),
)
TIMES = UniformLogSNR(0.05, 20.0)
MEMBERS = 30


class Network(eqx.Module):
    """One hidden layer, whose input has features of the noise level."""

    hidden: eqx.nn.Linear
    last: eqx.nn.Linear

    def __init__(self, width: int, *, key):
        hidden_key, last_key = jax.random.split(key)
        self.hidden = eqx.nn.Linear(5, width, key=hidden_key)
        self.last = eqx.nn.Linear(width, 2, key=last_key)

    def __call__(self, x, c, cond=None, *, key=None):
        features = jnp.stack([c, jnp.sin(3.0 * c), jnp.cos(3.0 * c)])
        return self.last(jnp.tanh(self.hidden(jnp.concatenate([x, features]))))


def draw_rows(key, num):
    keys = jax.random.split(key, num)
    return np.asarray(jax.vmap(lambda key: MIXTURE.sample(key=key))(keys))


def problem(x, temperature, num_levels):
    """Return rows and the joint density of a data set."""
    rows = DenoisingRows(num_levels, times=TIMES, temperature=temperature)
    joint = bnn.LogJoint(
        bnn.KnownNoiseLikelihood(), bnn.FanInNormal(), len(x), apply=rows.apply
    )
    return rows, joint


def trained(method, model, data, key, num_steps):
    settings = {"num_steps": num_steps, "batch_size": 100, "progress": False}
    return jaxprob.fit(method, model, data, key=key, **settings)[0]


def members(posterior, key):
    """Return draws as one average, linearised where the posterior is."""
    if posterior.num_atoms is not None:
        chosen = np.linspace(0, posterior.num_atoms - 1, MEMBERS).astype(int)
        if posterior.num_atoms <= MEMBERS:
            chosen = np.arange(posterior.num_atoms)
        return Averaged.of([posterior.atom(int(i)) for i in chosen])
    posterior = posterior.factorised()

    def one(*, key):
        if not posterior.linearized:
            return posterior.sample(key=key)
        draw, mode = posterior.linearisation_point(key=key)
        return Linearised(mode, draw)

    return Averaged.drawn(one, key=key, num_members=MEMBERS)


def methods(joint, steps):
    """Return the methods by name; `steps` is that of a fit."""
    descent = bnn.MAP(joint, optax.adam(optax.cosine_decay_schedule(1e-2, steps)))
    noisy = bnn.MAP(joint, optax.adam(2e-3))
    return {
        "last layer": (bnn.Laplace(descent, where="net.last.*"), "map"),
        "low rank": (bnn.Laplace(descent, "low_rank", rank=40), "map"),
        "full": (bnn.Laplace(descent), "map"),
        "ensemble": (bnn.DeepEnsemble(descent, 10), "fit"),
        "swag": (bnn.SWAG(noisy, num_warmup=steps // 2, thin=20, rank=20), "fit"),
    }


def hmc(joint, num):
    chains = {"num_warmup": num, "num_draws": num, "num_chains": 2}
    return bnn.HMC(joint, initial="model", num_leapfrog=24, **chains)


def run(settings, index, truth):
    """Return the figures of one data set: member values by method and temperature."""
    key = jax.random.fold_in(jax.random.key(settings.seed), index)
    keys = jax.random.split(key, 6)
    x = draw_rows(keys[0], settings.rows)
    start = Preconditioned(Network(settings.width, key=keys[1]), EDM())
    found, points = {}, jnp.asarray(truth[0])
    temperature, fit = 1.0, None
    for label in ("1", "matched"):
        rows, joint = problem(x, temperature, settings.levels)
        data = rows(x, key=keys[2])
        every = methods(joint, settings.steps)
        state = trained(every["full"][0], start, data, keys[3], settings.steps)
        for name, (method, kind) in every.items():
            begin = time.perf_counter()
            if kind == "map":
                posterior = method.posterior(state, [data])
            else:
                own = trained(method, start, data, keys[4], settings.steps)
                posterior = method.posterior(own)
            found[name, label] = measure(posterior, points, keys[5], begin)
        if settings.hmc:
            begin = time.perf_counter()
            posterior = bnn.run_chains(
                hmc(joint, settings.hmc),
                every["full"][0].model(state),
                data,
                key=keys[4],
                progress=False,
            )
            found["hmc", label] = measure(posterior, points, keys[5], begin)
        if label == "1":
            last = every["last layer"][0]
            temperature = float(bnn.matched_temperature(last, state, [data]))
            fit = one_value(every["full"][0].model(state), points)
    return found, temperature, fit


def measure(posterior, points, key, begin):
    out = log_prob_members(members(posterior, key), points, **DENSITY)
    return np.asarray(out.value), time.perf_counter() - begin


DENSITY: Any = {"level_min": 0.05, "level_max": 20.0, "rtol": 1e-3, "atol": 1e-3}


def one_value(denoiser, points):
    pair = Averaged.of([denoiser, denoiser])
    return np.asarray(log_prob_members(pair, points, **DENSITY).value[0])


def truth_of(settings):
    """Return test points, and their log-density by a fit to plenty of data."""
    keys = jax.random.split(jax.random.key(settings.seed + 1000), 4)
    x = draw_rows(keys[0], settings.truth_rows)
    start = Preconditioned(Network(settings.width, key=keys[1]), EDM())
    rows, joint = problem(x, 1.0, settings.levels)
    steps = 4 * settings.steps
    descent = bnn.MAP(joint, optax.adam(optax.cosine_decay_schedule(1e-2, steps)))
    data = rows(x, key=keys[2])
    state = jaxprob.fit(
        descent,
        start,
        data,
        key=keys[3],
        num_steps=steps,
        batch_size=500,
        progress=False,
    )[0]
    points = draw_rows(jax.random.key(settings.seed + 2000), 24)
    value = one_value(descent.model(state), jnp.asarray(points))
    exact = np.asarray(jax.vmap(MIXTURE.log_prob)(jnp.asarray(points)))
    print(f"truth is off the mixture by {np.sqrt(np.mean((value - exact) ** 2)):.3f}")
    return points, value


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-sets", type=int, default=20)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--truth-rows", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--levels", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--hmc", type=int, default=300, help="draws; 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    truth = truth_of(settings)
    every, fits = {}, []
    for index in range(settings.data_sets):
        found, temperature, fit = run(settings, index, truth)
        fits.append(np.sqrt(np.mean((fit - truth[1]) ** 2)))
        print(
            f"data set {index}: T = {temperature:.2f}, fit {fits[-1]:.3f}", flush=True
        )
        for name, (values, seconds) in found.items():
            every.setdefault(name, []).append((values, seconds))
        report(every, truth[1], np.sqrt(np.mean(np.square(fits))))


def report(every, truth, fit):
    print(f"{'method':12} {'T':8} cover   std  rmse  seconds   (fit {fit:.3f})")
    for (name, label), runs in every.items():
        values = [value for value, _ in runs]
        low, high = np.quantile(np.stack(values), [0.05, 0.95], axis=1)
        cover = np.mean((low <= truth) & (truth <= high))
        std = np.mean([value.std(axis=0, ddof=1) for value in values])
        error = np.mean([(value.mean(axis=0) - truth) ** 2 for value in values])
        seconds = np.median([taken for _, taken in runs])
        print(
            f"{name:12} {label:8} {cover:.2f}  {std:.3f} {np.sqrt(error):.3f} "
            f"{seconds:6.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
