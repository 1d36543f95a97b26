"""A GRU that filters a noisy Ornstein-Uhlenbeck process, against the Kalman filter.

The filter is optimal, so we know how good the network can be. The network also runs
freely on its own predictions, and then gets a posterior that says how sure it is.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytorch_lightning as pl

import jaxprob
from jaxprob import bnn
from jaxprob.lightning import ArrayDataModule, LearnerModule

STEPS, DT, MEAN, TAU, SIGMA, NOISE_VARIANCE = 10, 0.1, 1.0, 2.0, 0.5, 0.1
DECAY, SPREAD = 1 - DT / TAU, SIGMA * np.sqrt(2 * DT / TAU)


def sequences(rng, num):
    """Noisy inputs and the next clean values: two arrays of shape (num, steps)."""
    x = np.empty((num, STEPS + 1))
    x[:, 0] = rng.uniform(size=num)
    for t in range(STEPS):
        x[:, t + 1] = MEAN + DECAY * (x[:, t] - MEAN) + SPREAD * rng.normal(size=num)
    seen = x[:, :-1] + np.sqrt(NOISE_VARIANCE) * rng.normal(size=(num, STEPS))
    return seen.astype(np.float32), x[:, 1:].astype(np.float32)


def kalman(seen):
    """The best linear prediction of the next clean value, at each step."""
    mean, variance, out = np.full(len(seen), 0.5), 1 / 12, []  # the uniform start
    for t in range(STEPS):
        gain = variance / (variance + NOISE_VARIANCE)
        mean = mean + gain * (seen[:, t] - mean)
        mean = MEAN + DECAY * (mean - MEAN)
        variance = DECAY**2 * (1 - gain) * variance + SPREAD**2
        out.append(mean)
    return np.stack(out, axis=1)


class Filter(eqx.Module):
    """A GRU over the sequence, and a linear readout at each step."""

    cell: eqx.nn.GRUCell
    readout: eqx.nn.Linear

    def __init__(self, width, *, key):
        cell_key, readout_key = jax.random.split(key)
        self.cell = eqx.nn.GRUCell(1, width, key=cell_key)
        self.readout = eqx.nn.Linear(width, 1, key=readout_key)

    def step(self, hidden, value):
        hidden = self.cell(value[None], hidden)
        return hidden, self.readout(hidden)[0]

    def run(self, seen):
        start = jnp.zeros(self.cell.hidden_size)
        return jax.lax.scan(lambda h, value: self.step(h, value), start, seen)

    def __call__(self, seen):
        return self.run(seen)[1]

    def rollout(self, seen, num):
        """Continue a sequence from the model's own predictions."""
        hidden, values = self.run(seen)

        def own(carry, _):
            hidden, value = self.step(*carry)
            return (hidden, value), value

        return jax.lax.scan(own, (hidden, values[-1]), None, length=num)[1]


@jaxprob.mean_loss
def squared_error(model, example, *, key):
    return jnp.mean((model(example[0]) - example[1]) ** 2)


def main(num_steps: int = 20_000) -> dict[str, float]:
    rng = np.random.default_rng(0)
    train, test = sequences(rng, 64 * 2_000), sequences(rng, 50_000)
    optimum = np.mean((kalman(test[0]) - test[1]) ** 2)
    schedule = optax.cosine_decay_schedule(3e-3, num_steps)
    learner = jaxprob.GradientDescent(squared_error, optax.adam(schedule))
    module = LearnerModule(learner, Filter(12, key=jax.random.key(0)), seed=1)
    off: Any = {"logger": False, "enable_checkpointing": False}
    trainer = pl.Trainer(max_steps=num_steps, accelerator="cpu", **off)
    trainer.fit(module, ArrayDataModule(train, batch_size=64))
    trained, keys = module.model, jax.random.split(jax.random.key(2))
    mse = np.mean((jax.vmap(trained)(test[0]) - test[1]) ** 2)
    free = jax.vmap(lambda x: trained.rollout(x, 100))(test[0][:1000])[:, -1]

    prior, likelihood = bnn.FanInNormal(2.0), bnn.HeteroscedasticNormal()
    joint = bnn.LogJoint(likelihood, prior, num_data=len(train[0]))
    method = bnn.MeanFieldVI(joint, optax.adam(schedule), scale=0.01)
    noisy = bnn.LearnedNoise(trained, scale=0.25, shape=(STEPS,))
    steps: Any = {"num_steps": num_steps // 4, "batch_size": 64}
    state, _ = jaxprob.fit(method, noisy, train, key=keys[0], **steps)
    posterior, (x, y) = method.posterior(state), (part[:5000] for part in test)
    predictive = bnn.predict(posterior, likelihood, x, key=keys[1], num_samples=30)
    lower, upper = predictive.interval(0.9)
    figures = {
        "one_step_mse": mse,
        "kalman_mse": optimum,
        "ratio": mse / optimum,
        "free_running_mean": free.mean(),
        "coverage_90": jnp.mean((lower <= y) & (y <= upper)),
    }
    print(*(f"{name:>20} {value:.4f}" for name, value in figures.items()), sep="\n")
    return {name: float(value) for name, value in figures.items()}


if __name__ == "__main__":
    main()
