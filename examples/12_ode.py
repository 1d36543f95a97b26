"""A hybrid model: a physical parameter, and a network for a force that is not known.

    python examples/12_ode.py

Two trajectories of different lengths of an oscillator, x'' = -k x - f(x'). Stiffness
k, noise and the weights of a small network for the friction f are one model, a
differential equation solved by diffrax, with a prior for each. The chains start at the
best of several optimisations. Prints the table of the posterior, with the period of
small oscillations in each draw, and the friction found, whose truth is .2 v + .6 v^3.
"""

import argparse

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from jaxprob import bnn, datasets

STIFFNESS, NOISE = 4.0, 0.03


def solve(friction, stiffness, times):
    """Positions of an oscillator that starts at x = 1, at rest."""

    def field(t, state, args):
        x, speed = state
        return speed, -stiffness * x - friction(speed)

    solution = dfx.diffeqsolve(
        dfx.ODETerm(field),
        *(dfx.Heun(), 0.0, times[-1], 0.05, (jnp.ones(()), jnp.zeros(()))),
        saveat=dfx.SaveAt(ts=times),
        adjoint=dfx.ForwardMode(),  # few parameters: the faster way
        max_steps=200,
    )
    assert solution.ys is not None
    return solution.ys[0]


class Oscillator(eqx.Module):
    log_stiffness: jax.Array
    log_noise: jax.Array
    network: eqx.nn.MLP

    def friction(self, speed):
        return self.network(speed[None])

    def __call__(self, times):
        x = solve(self.friction, jnp.exp(self.log_stiffness), times)
        return x, jnp.exp(self.log_noise)


def true_friction(speed):
    return 0.2 * speed + 0.6 * speed**3


def trajectories(key):
    times = np.linspace(0.0, 8.0, 41, dtype=np.float32)
    x = solve(true_friction, STIFFNESS, times)
    long, short = np.asarray(x + NOISE * jax.random.normal(key, (2, 41)))
    return datasets.pad_trajectories([(times, long), (times[:15], short[:15])])


def main(num_draws: int = 300) -> dict[str, float]:
    data = trajectories(jax.random.key(0))
    prior = bnn.PriorByPath(
        {
            "log_stiffness": dist.Normal(1.0, 1.0),
            "log_noise": dist.Normal(-3.0, 1.0),
            "network": bnn.FanInNormal(),
        }
    )
    joint = bnn.LogJoint(lambda out: dist.Normal(*out), prior, num_data=2)
    network = eqx.nn.MLP(1, "scalar", 4, 1, jnp.tanh, key=jax.random.key(1))
    model = Oscillator(jnp.asarray(1.0), jnp.asarray(-2.0), network)
    method = bnn.HMC(
        joint,
        num_leapfrog=16,
        num_warmup=num_draws,
        num_draws=num_draws,
        num_chains=2,
        initial="map",
        forward_mode=True,
    )
    posterior = bnn.run_chains(method, model, data, key=jax.random.key(2))

    speeds = jnp.linspace(-1.0, 0.4, 8)  # those that occur
    table = bnn.summarise(
        posterior,
        {
            "stiffness": lambda m: jnp.exp(m.log_stiffness),
            "noise": lambda m: jnp.exp(m.log_noise),
            "period": lambda m: 2.0 * jnp.pi / jnp.exp(0.5 * m.log_stiffness),
            "friction": lambda m: jax.vmap(m.friction)(speeds),
        },
    )
    print(table)
    found = np.array([table[f"friction[{i}]"]["mean"] for i in range(len(speeds))])
    errors = found - np.asarray(true_friction(speeds))
    figures = {
        f"{name}, {what}": table[name][what]
        for name in ("stiffness", "noise", "period")
        for what in ("mean", "sd")
    }
    figures["error of the friction"] = float(np.sqrt(np.mean(errors**2)))
    for name, value in figures.items():
        print(f"{name}: {value:.3f}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=300)
    main(parser.parse_args().draws)
