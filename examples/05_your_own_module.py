"""A posterior over a model that jaxprob has never seen: a damped pendulum.

    python examples/05_your_own_module.py

The module below is plain Equinox with a differential equation in it. Its physical
parameters get a posterior, its friction network too, and a draw from the posterior is a
`Pendulum` again: all of its methods work on it.
"""

import argparse

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax

import jaxprob
from jaxprob import bnn


class Pendulum(eqx.Module):
    """The angle at a time: a'' = -(g / l) sin a - friction(a')."""

    log_length: jax.Array
    friction: eqx.nn.MLP
    start: jax.Array

    def __init__(self, key):
        self.log_length = jnp.asarray(0.3)
        self.friction = eqx.nn.MLP("scalar", "scalar", 8, 1, jnp.tanh, key=key)
        self.start = jnp.array([2.0, 0.0])

    @property
    def length(self):
        return jnp.exp(self.log_length)

    def __call__(self, t):
        def field(_, state, __):
            angle, speed = state
            pull = -9.81 / self.length * jnp.sin(angle)
            return jnp.stack([speed, pull - self.friction(speed)])

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Tsit5(),
            0.0,
            t[0],
            0.05,
            jax.lax.stop_gradient(self.start),
            max_steps=128,
            throw=False,
        )
        assert solution.ys is not None
        return solution.ys[-1, :1]


def measurements(num: int = 40, noise: float = 0.05):
    """A pendulum of one metre with friction 0.3 a', seen for three seconds."""
    rng = np.random.default_rng(0)
    t = np.sort(rng.uniform(0.0, 3.0, (num, 1))).astype(np.float32)
    truth = Pendulum(jax.random.key(0))
    truth = eqx.tree_at(lambda p: p.log_length, truth, jnp.asarray(0.0))
    truth = eqx.tree_at(lambda p: p.friction, truth, lambda speed: 0.3 * speed)
    angle = np.asarray(jax.jit(jax.vmap(truth))(t))
    return t, (angle + noise * rng.normal(size=angle.shape)).astype(np.float32)


def main(num_steps: int = 1000) -> dict[str, float]:
    t, angle = measurements()
    # The start is known; the length and the friction are not.
    log_joint = bnn.LogJoint(
        bnn.NormalLikelihood(0.05),
        bnn.PriorByPath({"log_length": dist.Normal(0.0, 0.5), "*": bnn.FanInNormal()}),
        num_data=len(t),
    )
    method = bnn.MeanFieldVI(
        log_joint, optax.adam(5e-3), random=("log_length", "friction"), point=False
    )
    state, _ = jaxprob.fit(
        method,
        Pendulum(jax.random.key(1)),
        (t, angle),
        key=jax.random.key(2),
        num_steps=num_steps,
        batch_size=len(t),
        progress=False,
    )
    posterior = method.posterior(state)
    draws = [posterior.sample(key=jax.random.key(i)) for i in range(100)]
    assert all(isinstance(draw, Pendulum) for draw in draws)
    lengths = np.array([float(draw.length) for draw in draws])
    predictive = bnn.predict(
        posterior, log_joint.likelihood, t, key=jax.random.key(4), num_samples=50
    )
    figures = {
        "length, mean (truth 1)": float(lengths.mean()),
        "length, standard deviation": float(lengths.std()),
        "RMSE of the angle (noise 0.05)": float(
            np.sqrt(np.mean((np.asarray(predictive.mean) - angle) ** 2))
        ),
    }
    for name, value in figures.items():
        print(f"{name}: {value:.3f}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    main(parser.parse_args().steps)
