"""Flow matching between two mixtures of Gaussians, beside a Gaussian source.

    python -m benchmarks.flow_matching [--quick]

The data are eight Gaussians on a circle. One network is trained four times, with each
source (a standard normal, and four Gaussians on a square beside the circle) and each
coupling (independent, optimal transport in batches of 256). The table has the sliced
Wasserstein distance of 4,096 samples to 4,096 points of the data, by Euler's method
with few steps and by an adaptive solve, and that of two samples of the data.
"""

import argparse

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxprob
from jaxprob.diffusion import (
    FlowMatchingLoss,
    FlowSampler,
    IndependentCoupling,
    NormalSource,
    OTCoupling,
    SampledSource,
    VelocityField,
    nn,
    sample,
)
from jaxprob.metrics import sliced_wasserstein
from jaxprob.testing import GaussianMixture, eight_gaussians

DATA = eight_gaussians(0.1)
SAMPLERS = {
    "1 step": {"num_steps": 1, "solver": dfx.Euler()},
    "2 steps": {"num_steps": 2, "solver": dfx.Euler()},
    "4 steps": {"num_steps": 4, "solver": dfx.Euler()},
    "8 steps": {"num_steps": 8, "solver": dfx.Euler()},
    "adaptive": {},
}


def four_gaussians():
    """Return four Gaussians on a square whose centre is (4, 0)."""
    corners = jnp.array([[3.0, -1.0], [3.0, 1.0], [5.0, -1.0], [5.0, 1.0]])
    covariances = jnp.broadcast_to(0.04 * jnp.eye(2), (4, 2, 2))
    return GaussianMixture(jnp.full(4, 0.25), corners, covariances)


def draw(mixture, key, num):
    keys = jax.random.split(key, num)
    return np.asarray(jax.vmap(lambda key: mixture.sample(key=key))(keys))


def trained(source, coupling, x, num_steps):
    net = nn.ResidualMLP(2, width=64, depth=3, key=jax.random.key(0))
    field = VelocityField.fitted(net, x, source)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, 100, num_steps)
    learner = jaxprob.GradientDescent(
        FlowMatchingLoss(source, coupling), optax.adam(schedule), ema=jaxprob.EMA(0.99)
    )
    settings = {"num_steps": num_steps, "batch_size": 256, "progress": False}
    state, _ = jaxprob.fit(learner, field, x, key=jax.random.key(1), **settings)
    return learner.model(state)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 steps, not 5,000")
    num_steps = 1000 if parser.parse_args().quick else 5000
    train_key, test_key, more_key, key = jax.random.split(jax.random.key(2), 4)
    x, test = draw(DATA, train_key, 20_000), draw(DATA, test_key, 4096)
    mixture = four_gaussians()
    sources = {
        "normal": NormalSource(),
        "mixture": SampledSource(lambda key: mixture.sample(key=key), mixture.log_prob),
    }
    couplings = {"independent": IndependentCoupling(), "transport": OTCoupling()}
    floor = sliced_wasserstein(draw(DATA, more_key, 4096), test, key=key)
    print(f"two samples of the data: {floor:.3f}")
    print("| source | coupling |", " | ".join(SAMPLERS), "|")
    for name, source in sources.items():
        for coupling, pairs in couplings.items():
            field = trained(source, pairs, x, num_steps)
            row = []
            for settings in SAMPLERS.values():
                sampler = FlowSampler(source, **settings)
                draws = sample(field, sampler, key=key, num_samples=4096, shape=(2,))
                row.append(float(sliced_wasserstein(draws.x_0, test, key=key)))
            cells = " | ".join(f"{value:.3f}" for value in row)
            print(f"| {name} | {coupling} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
