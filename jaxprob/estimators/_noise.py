"""Noise of the targets by name: a likelihood, and the outputs that it reads."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int

from .. import bnn
from ..bnn._weights.apply import call_model

MIN_SCALE = 1e-3
DF = 4
"""Degrees of freedom of heavy tails, as in `bnn.StudentTLikelihood`."""

GAUSSIAN_DF = 10_000
"""Degrees of freedom at which Student's t is a Gaussian."""

NAMES = (
    *("heteroscedastic", "constant", "student", "mixed", "poisson"),
    "negative_binomial",
)
COUNTS = ("poisson", "negative_binomial")


@dataclass(frozen=True)
class Noise:
    """A likelihood and the models around a network that give its outputs.

    **Fields:**

    - `likelihood`: output -> distribution over the targets of a row.
    - `num_outputs`: of the network, for one row.
    - `wraps`: functions of a network. The posterior is a mixture with one part, in
        equal shares of networks, for each.
    - `has_all_moments`: false where the exponential of y has no mean.
    - `is_discrete`: whether y is a count.
    - `transform`: of y, unless the user gives another.
    """

    likelihood: bnn.Likelihood
    num_outputs: int
    wraps: tuple[Callable[[Any], Any], ...]
    has_all_moments: bool = True
    is_discrete: bool = False
    transform: str = "standardise"


def itself(network: Any) -> Any:
    """Return the network."""
    return network


def noise_of(name: str, y: Float[np.ndarray, "rows targets"]) -> Noise:
    """Return the noise of a name for some training targets.

    **Raises:** `ValueError` for an unknown name, and for counts that are none.
    """
    num = y.shape[1]
    gaussian = bnn.HeteroscedasticNormal(MIN_SCALE)
    if name == "heteroscedastic":
        return Noise(gaussian, 2 * num, (itself,))
    if name == "constant":
        noisy = (lambda network: bnn.LearnedNoise(network, shape=(num,)),)
        return Noise(gaussian, num, noisy)
    if name in ("student", "mixed"):
        dfs = (DF,) if name == "student" else (DF, GAUSSIAN_DF)
        wraps = tuple(lambda network, df=df: Tails(network, df) for df in dfs)
        return Noise(StudentNoise(), 2 * num, wraps, has_all_moments=False)
    if name in COUNTS:
        unit = _unit(y, name)
        if name == "poisson":
            likelihood, size = PoissonCounts(unit), num
        else:
            likelihood, size = NegativeBinomialCounts(unit), 2 * num
        return Noise(likelihood, size, (itself,), False, True, "none")
    raise ValueError(f"noise={name!r}: give one of {', '.join(NAMES)}")


def noise_of_likelihood(
    likelihood: bnn.Likelihood, num_outputs: int | None, num_targets: int
) -> Noise:
    """Return the noise of a likelihood of the user.

    **Raises:** `ValueError` for a distribution of another shape than the targets.
    """
    size = num_outputs or num_targets
    p: Any = likelihood(jnp.zeros(size))
    shape = tuple(p.batch_shape) + tuple(p.event_shape)
    if shape != (num_targets,):
        raise ValueError(
            f"likelihood gives a {type(p).__name__} of shape {shape} for an output of "
            f"shape ({size},), and a row of y has shape ({num_targets},): index with "
            "slices, such as output[:1], and give num_outputs="
        )
    gaussian = isinstance(p, dist.Normal)
    return Noise(likelihood, size, (itself,), gaussian, bool(p.is_discrete), "none")


def _unit(y, name):
    """A power of two near the mean count: folds of a table share one program."""
    bad = np.argwhere((y < 0.0) | (y != np.round(y)))
    if len(bad):
        row = int(bad[0, 0])
        raise ValueError(
            f"row {row} of y is {y[row].tolist()}, and noise={name!r} is for counts "
            "0, 1, 2, ...: give noise='heteroscedastic' for other numbers"
        )
    return float(2.0 ** np.round(np.log2(max(float(y.mean()), 1e-3))))


class Tails(eqx.Module):
    """A network with the heaviness of the tails of its noise.

    The degrees of freedom are an integer, which no method trains or samples.
    """

    network: Any
    df: Int[Array, ""]

    def __init__(self, network: Any, df: int):
        self.network = network
        self.df = jnp.asarray(df)

    def __call__(self, x: Any, *, key: Any = None) -> tuple[Array, Array, Array]:
        mean, raw = jnp.split(call_model(self.network, x, key=key), 2, axis=-1)
        return mean, raw, self.df


class StudentNoise(bnn.AbstractLikelihood):
    """Student t noise with scale and degrees of freedom from the model."""

    accepts_any_output: ClassVar[bool] = True

    def __call__(self, output: Any) -> dist.Distribution:
        mean, raw, df = output
        scale = MIN_SCALE + jax.nn.softplus(raw)
        return bnn.StudentT(df.astype(mean.dtype), mean, scale)


class PoissonCounts(bnn.AbstractLikelihood):
    """Poisson counts with a rate of a unit times the exponential of the output."""

    unit: float = eqx.field(static=True)
    accepts_any_output: ClassVar[bool] = True

    def __call__(self, output: Float[Array, "*out"]) -> dist.Distribution:
        return dist.Poisson(self.unit * jnp.exp(output))


class NegativeBinomialCounts(bnn.AbstractLikelihood):
    """Counts that vary more than Poisson's: mean and concentration are outputs."""

    unit: float = eqx.field(static=True)
    accepts_any_output: ClassVar[bool] = True

    def __call__(self, output: Float[Array, " outputs"]) -> dist.Distribution:
        mean, raw = jnp.split(output, 2, axis=-1)
        concentration = MIN_SCALE + jax.nn.softplus(raw)
        return dist.NegativeBinomial2(self.unit * jnp.exp(mean), concentration)
