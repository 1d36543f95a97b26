"""Simulators of the benchmark of simulation-based inference, and their priors.

*Benchmarking Simulation-Based Inference*, Lueckmann, Boelts, Greenberg, Goncalves and
Macke, 2021, appendix T, https://arxiv.org/abs/2101.04653. Parameters and observations
are vectors.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist


class Task(NamedTuple):
    """A prior and `simulator(theta, *, key)`."""

    prior: dist.Distribution
    simulator: Callable[..., jax.Array]


def two_moons(theta, *, key):
    """Return a point on a half circle that is moved by the parameters (T.8)."""
    angle_key, radius_key = jax.random.split(key)
    angle = jax.random.uniform(angle_key, minval=-jnp.pi / 2.0, maxval=jnp.pi / 2.0)
    radius = 0.1 + 0.01 * jax.random.normal(radius_key)
    point = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    moved = jnp.stack([-jnp.abs(theta[0] + theta[1]), theta[1] - theta[0]])
    return point + jnp.array([0.25, 0.0]) + moved / math.sqrt(2.0)


def slcp(theta, *, key):
    """Return four points of a Gaussian with these moments (T.3)."""
    s1, s2, rho = theta[2] ** 2, theta[3] ** 2, jnp.tanh(theta[4])
    covariance = jnp.array([[s1**2, rho * s1 * s2], [rho * s1 * s2, s2**2]])
    root = jnp.linalg.cholesky(covariance + 1e-6 * jnp.eye(2))
    return (theta[None, :2] + jax.random.normal(key, (4, 2)) @ root.T).reshape(-1)


def gaussian_linear(theta, *, key):
    """Return the parameters with noise of variance 0.1 (T.1, T.2)."""
    return theta + math.sqrt(0.1) * jax.random.normal(key, theta.shape)


def gaussian_mixture(theta, *, key):
    """Return the parameters with noise of deviation 1 or 0.1 (T.7)."""
    which_key, noise_key = jax.random.split(key)
    scale = jnp.where(jax.random.bernoulli(which_key), 1.0, 0.1)
    return theta + scale * jax.random.normal(noise_key, theta.shape)


def _design():
    stimulus = np.random.RandomState(42).randn(100).astype(np.float32)
    columns = [np.ones(100, np.float32)]
    columns += [
        np.concatenate([np.zeros(lag), stimulus[: 100 - lag]]) for lag in range(9)
    ]
    return np.stack(columns, axis=1).astype(np.float32)


_DESIGN = _design()


def bernoulli_glm(theta, *, key):
    """Return the sufficient statistics of 100 spikes given a stimulus (T.5)."""
    design = jnp.asarray(_DESIGN)
    spikes = jax.random.bernoulli(key, jax.nn.sigmoid(design @ theta))
    return spikes.astype(theta.dtype) @ design


def _glm_precision():
    num = 9
    difference = np.eye(num) - np.eye(num, k=-1)
    smooth = difference @ difference + np.diag(np.sqrt(np.arange(num) / num))
    precision = np.zeros((num + 1, num + 1))
    precision[0, 0] = 0.5
    precision[1:, 1:] = smooth.T @ smooth
    return precision.astype(np.float32)


def lotka_volterra(theta, *, key):
    """Return ten observations of two populations, with log-normal noise (T.10)."""

    def field(t, y, rates):
        prey, predators = y
        alpha, beta, gamma, delta = rates
        return jnp.stack(
            [
                alpha * prey - beta * prey * predators,
                delta * prey * predators - gamma * predators,
            ]
        )

    path = _solve(field, jnp.array([30.0, 1.0]), theta, 2.1 * np.arange(10))
    path = jnp.clip(path.T.reshape(-1), 1e-10, 1e4)
    return path * jnp.exp(0.1 * jax.random.normal(key, path.shape))


def sir(theta, *, key):
    """Return how many of 1,000 people are infected at ten times (T.9)."""

    def field(t, y, rates):
        susceptible, infected = y
        new = rates[0] * susceptible * infected / 1e6
        return jnp.stack([-new, new - rates[1] * infected])

    path = _solve(field, jnp.array([1e6 - 1.0, 1.0]), theta, 17.0 * np.arange(10))
    share = jnp.clip(path[:, 1] / 1e6, 0.0, 1.0)
    return jax.random.binomial(key, 1000.0, share)


def _solve(field, start, rates, times):
    solution = dfx.diffeqsolve(
        dfx.ODETerm(field),
        dfx.Tsit5(),
        times[0],
        times[-1],
        0.01,
        start,
        rates,
        saveat=dfx.SaveAt(ts=jnp.asarray(times, start.dtype)),
        stepsize_controller=dfx.PIDController(rtol=1e-5, atol=1e-5),
        max_steps=10_000,
        throw=False,
    )
    assert solution.ys is not None
    return solution.ys


def tasks() -> dict[str, Task]:
    """Return the eight tasks by their published names."""

    def box(low, high, num) -> Any:
        return dist.Uniform(jnp.full(num, low), jnp.full(num, high))

    rates = jnp.array([-0.125, -3.0, -0.125, -3.0])
    normal = dist.Normal(jnp.zeros(10), math.sqrt(0.1))
    glm = dist.MultivariateNormal(jnp.zeros(10), precision_matrix=_glm_precision())
    epidemic = dist.LogNormal(jnp.log(jnp.array([0.4, 0.125])), jnp.array([0.5, 0.2]))
    return {
        "two_moons": Task(box(-1.0, 1.0, 2), two_moons),
        "slcp": Task(box(-3.0, 3.0, 5), slcp),
        "gaussian_linear": Task(normal, gaussian_linear),
        "bernoulli_glm": Task(glm, bernoulli_glm),
        "gaussian_mixture": Task(box(-10.0, 10.0, 2), gaussian_mixture),
        "gaussian_linear_uniform": Task(box(-1.0, 1.0, 10), gaussian_linear),
        "lotka_volterra": Task(dist.LogNormal(rates, 0.5), lotka_volterra),
        "sir": Task(epidemic, sir),
    }
