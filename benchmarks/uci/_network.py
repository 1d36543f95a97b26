"""The network of the protocol, with a head for the noise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray

from jaxprob import bnn

MIN_SCALE = 1e-3
START = -2.0
GAUSSIAN = 1000.0
"""Degrees of freedom at which Student's distribution is the Gaussian, nearly."""


class TwoHeaded(eqx.Module):
    """One hidden layer; a mean, a raw noise scale, and the heaviness of its tails.

    `df`, the degrees of freedom of the noise, is a leaf that no method samples: two
    posteriors over this class may differ in it and still be mixed.
    """

    hidden: eqx.nn.Linear
    mean: eqx.nn.Linear
    noise: eqx.nn.Linear
    df: Float[Array, ""]

    def __init__(self, features: int, width: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.df = jnp.asarray(GAUSSIAN)
        self.hidden = eqx.nn.Linear(features, width, key=keys[0])
        self.mean = eqx.nn.Linear(width, 1, key=keys[1])
        noise = eqx.nn.Linear(width, 1, key=keys[2])
        # Noise starts small and the same everywhere, so that the mean is fitted first.
        self.noise = eqx.tree_at(
            lambda layer: (layer.weight, layer.bias),
            noise,
            (jnp.zeros((1, width)), jnp.full(1, START)),
        )

    def __call__(
        self, x: Float[Array, " features"]
    ) -> tuple[Float[Array, " 1"], Float[Array, " 1"], Float[Array, ""]]:
        h = jnp.tanh(self.hidden(x))
        return self.mean(h), self.noise(h), self.df


Output = tuple[Array, Array, Array]


def scale(raw: Float[Array, " 1"]) -> Float[Array, " 1"]:
    return MIN_SCALE + jax.nn.softplus(raw)


class StudentNoise(eqx.Module):
    """Student t noise, as the model says."""

    def __call__(self, output: Output) -> dist.Distribution:
        mean, raw, df = output
        return bnn.StudentT(df, mean, scale(raw))


class GaussianNoise(eqx.Module):
    """Gaussian noise whose scale the model says."""

    def __call__(self, output: Output) -> dist.Distribution:
        return dist.Normal(output[0], scale(output[1]))


class FixedNoise(eqx.Module):
    """Gaussian noise of a given scale, whatever the model says."""

    value: float = eqx.field(static=True, default=0.2)

    def __call__(self, output: Output) -> dist.Distribution:
        return dist.Normal(output[0], self.value)
