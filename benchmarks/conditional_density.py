"""Learned densities p(y | x) of toy regressions against the true ones.

    python -m benchmarks.conditional_density
    python -m benchmarks.conditional_density --quick

Each row has the divergence KL(true, learned) in nats, averaged over the x of new rows,
with its standard error: of the density of `fit_conditional`, and of the Gaussian with
the mean and the deviation that it has at each x. Then the share of new rows in the
central 90 % intervals, and seconds of training and of the tables, with compilation.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp
from scipy.stats import gamma, norm

from jaxprob import bnn, diffusion

Data = tuple[np.ndarray, np.ndarray]


def bimodal(num: int, rng: np.random.Generator) -> Data:
    x = rng.uniform(0.0, 1.0, num)
    sign = np.where(rng.random(num) < 0.7, 1.0, -1.0)
    return x, sign * (0.5 + x) + 0.1 * rng.standard_normal(num)


def bimodal_log_prob(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    both = 0.7 * norm.pdf(y, 0.5 + x, 0.1) + 0.3 * norm.pdf(y, -0.5 - x, 0.1)
    return np.log(both)


def heteroscedastic(num: int, rng: np.random.Generator) -> Data:
    x = rng.uniform(-1.0, 1.0, num)
    return x, np.sin(3.0 * x) + (0.05 + 0.4 * x**2) * rng.standard_normal(num)


def heteroscedastic_log_prob(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return norm.logpdf(y, np.sin(3.0 * x), 0.05 + 0.4 * x**2)


def skewed(num: int, rng: np.random.Generator) -> Data:
    x = rng.uniform(0.0, 1.0, num)
    return x, x + (0.1 + 0.4 * x) * rng.gamma(3.0, size=num)


def skewed_log_prob(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return gamma.logpdf(y, 3.0, loc=x, scale=0.1 + 0.4 * x)


_NOISE = 0.1


def _moons(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of both half circles, (2, angles)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c, 1.0 - c]), np.stack([s, 0.5 - s])


def two_moons(num: int, rng: np.random.Generator) -> Data:
    part = rng.integers(2, size=num)
    x, y = (a[part, np.arange(num)] for a in _moons(rng.uniform(0.0, np.pi, num)))
    x, y = (a + _NOISE * rng.standard_normal(num) for a in (x, y))
    return x, y


def two_moons_log_prob(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Midpoints of 2,000 angles, whose distance is a hundredth of the noise.
    angle = (np.arange(2000) + 0.5) / 2000 * np.pi
    on_x, on_y = (a.ravel()[None] for a in _moons(angle))
    of_x = norm.logpdf(x[:, None], on_x, _NOISE)
    both = of_x + norm.logpdf(y[:, None], on_y, _NOISE)
    return logsumexp(both, axis=1) - logsumexp(of_x, axis=1)


TASKS: dict[str, tuple[Callable, Callable]] = {
    "two moons": (two_moons, two_moons_log_prob),
    "heteroscedastic": (heteroscedastic, heteroscedastic_log_prob),
    "bimodal": (bimodal, bimodal_log_prob),
    "skewed": (skewed, skewed_log_prob),
}


def run(name: str, *, num_rows: int, num_new: int, **settings) -> str:
    """Return a row of the table for one regression."""
    draw, log_prob = TASKS[name]
    rng = np.random.default_rng(0)
    x, y = draw(num_rows, rng)
    new_x, new_y = draw(num_new, rng)
    begin = time.perf_counter()
    density, _ = diffusion.fit_conditional(
        x[:, None], y, key=jax.random.key(0), progress=False, **settings
    )
    trained = time.perf_counter()
    outputs = jax.block_until_ready(density(new_x[:, None]))
    tabulated = time.perf_counter()
    predictive = bnn.Predictive(outputs, density.likelihood)
    true, target = log_prob(new_x, new_y), jnp.asarray(new_y, float)
    gaussian = predictive.moment_matched.log_prob(target)
    cells = []
    for found in (predictive.log_prob(target), gaussian):
        lost = true - np.asarray(found, np.float64)
        error = lost.std() / np.sqrt(num_new)
        cells.append(f"{lost.mean():.3f} +- {error:.3f}")
    lower, upper = predictive.interval(0.9)
    inside = np.mean((lower <= target) & (target <= upper))
    cells += [f"{inside:.3f}", f"{trained - begin:.0f}", f"{tabulated - trained:.0f}"]
    return f"| {name} | " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--quick", action="store_true", help="few rows and steps")
    given = parser.parse_args()
    settings: dict[str, Any] = {"num_rows": 2000, "num_new": 1000}
    if given.quick:
        settings = {"num_rows": 1000, "num_new": 200, "num_steps": 500}
        settings |= {"num_members": 2, "weight_decay": 0.0}
    print("| y given x | KL | KL, Gaussian | in 90 % | fit, s | tables, s |")
    print("|---|---|---|---|---|---|")
    for name in given.tasks:
        print(run(name, **settings), flush=True)


if __name__ == "__main__":
    main()
