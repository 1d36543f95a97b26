"""Likelihoods: the model's output for one example -> a numpyro distribution over y.

Any such function is a likelihood. The classes here are the usual ones.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from ..._checks import check_floating, check_labels
from .._weights.learned_noise import MIN_NOISE
from .._weights.scale import positive
from .student_t import StudentT

Likelihood: TypeAlias = Callable[[Any], dist.Distribution]
"""`likelihood(output) -> distribution`, for one example."""


def check_likelihood(likelihood: Any) -> None:
    """Reject anything but a function or an object that can be called on an output."""
    wrong = isinstance(likelihood, type | dist.Distribution)
    if wrong or not callable(likelihood):
        raise TypeError(
            f"likelihood={likelihood!r}: give a function output -> distribution, "
            "such as NormalLikelihood(0.3)"
        )


class AbstractLikelihood(eqx.Module):
    """Base class of likelihoods that declare what a plain function cannot.

    A function `output -> distribution` is a likelihood too. A subclass can also check
    targets before there is a model, and declare that no output is invalid, which cannot
    be proved from the program. Facts about the distribution that it returns are
    registered by `register_family`.

    **Fields:**

    - `accepts_any_output`: every real output gives a valid distribution, because the
        call ends in functions such as softplus or softmax. Otherwise `predict` checks
        the arguments of the distribution where it linearises the model.
    """

    accepts_any_output: ClassVar[bool] = False

    @abc.abstractmethod
    def __call__(self, output: Any) -> dist.Distribution:
        """Return the distribution over y of one example."""

    def check_targets(self, y: np.ndarray) -> None:
        """Raise `TypeError` or `ValueError` for targets that no output could explain.

        **Arguments:**

        - `y`: the targets of all rows, on the host.
        """
        del y


class NormalLikelihood(AbstractLikelihood):
    r"""Gaussian noise of a known scale, $y \sim \mathcal N(f(x), s^2)$.

    Where the scale is unknown take `LearnedNoise` or `HeteroscedasticNormal`.

    **Arguments:**

    - `scale`: $s > 0$, one number, or one for each output.
    """

    scale: Float[Array, "*out"]
    accepts_any_output: ClassVar[bool] = True

    def __init__(self, scale: float | Float[Array, "*out"]):
        self.scale = positive("scale", scale)

    def __call__(self, output: Float[Array, "*out"]) -> dist.Normal:
        return dist.Normal(output, self.scale)

    def check_targets(self, y: np.ndarray) -> None:
        check_floating("y", y)


class HeteroscedasticNormal(AbstractLikelihood):
    r"""Gaussian noise whose scale is an output, $y \sim \mathcal N(\mu(x), s(x)^2)$.

    $$s = s_{\min} + \log(1 + e^{r})$$

    The output is a pair $(\mu, r)$, or one array whose last axis contains all means and
    then as many $r$: two outputs for targets of shape `(1,)`.

    Reference: *Estimating the mean and variance of the target probability
    distribution*, Nix and Weigend, 1994.

    **Arguments:**

    - `min_scale`: $s_{\min}$. Without it the likelihood of a row that is fitted exactly
        is unbounded.
    """

    min_scale: float = eqx.field(static=True)
    accepts_any_output: ClassVar[bool] = True

    def __init__(self, min_scale: float = MIN_NOISE):
        if not min_scale >= 0:
            raise ValueError(f"min_scale={min_scale}: it cannot be negative")
        self.min_scale = min_scale

    def __call__(self, output: Any) -> dist.Normal:
        if isinstance(output, tuple | list):
            if len(output) != 2:
                raise ValueError(
                    f"the model returns {len(output)} outputs: return the pair "
                    "(mean, raw_scale)"
                )
            mean, raw = output
        else:
            if output.ndim == 0 or output.shape[-1] % 2:
                raise ValueError(
                    f"the model's output has shape {output.shape}; a mean and a raw "
                    "scale for each target are needed: a pair, or a last axis of even "
                    "length. For one noise scale wrap the model in LearnedNoise."
                )
            mean, raw = jnp.split(output, 2, axis=-1)
        return dist.Normal(mean, self.min_scale + jax.nn.softplus(raw))

    def check_targets(self, y: np.ndarray) -> None:
        check_floating("y", y)


class KnownNoiseLikelihood(AbstractLikelihood):
    r"""Gaussian noise of a given scale, $y_i \sim \mathcal N(f(x_i), s_i^2)$.

    The output is the pair $(f, s)$, as `KnownNoise(model)` returns it, which takes the
    scale as a part of x.
    """

    accepts_any_output: ClassVar[bool] = True

    def __call__(self, output: Any) -> dist.Normal:
        if not isinstance(output, tuple | list) or len(output) != 2:
            raise ValueError(
                "the output is no pair (mean, scale): wrap the model in KnownNoise, "
                "and give it x = (inputs, scale)"
            )
        mean, scale = output
        return dist.Normal(mean, scale)

    def check_targets(self, y: np.ndarray) -> None:
        check_floating("y", y)


class CategoricalLikelihood(AbstractLikelihood):
    r"""Classes, $p(y = k) \propto e^{f_k(x)}$: the outputs are the logits.

    Classes are along the last axis; the axes before it are independent labels.
    """

    accepts_any_output: ClassVar[bool] = True

    def __call__(self, output: Float[Array, "*labels classes"]) -> dist.Distribution:
        if output.ndim == 0:
            raise ValueError(
                "the model's output has shape (): one logit for each class is needed, "
                "or BernoulliLikelihood for two classes and one logit"
            )
        return dist.CategoricalLogits(output)

    def check_targets(self, y: np.ndarray) -> None:
        check_labels("y", y, np.iinfo(np.int32).max)


class BernoulliLikelihood(AbstractLikelihood):
    r"""Two classes, $p(y = 1) = 1 / (1 + e^{-f(x)})$; or several such targets."""

    accepts_any_output: ClassVar[bool] = True

    def __call__(self, output: Float[Array, "*out"]) -> dist.Distribution:
        return dist.BernoulliLogits(output)


class StudentTLikelihood(AbstractLikelihood):
    r"""Noise with outliers, $y \sim t_\nu(f(x), s)$.

    Reference: *Robust statistical modeling using the t distribution*, Lange, Little and
    Taylor, 1989.

    **Arguments:**

    - `scale`: $s > 0$, one number, or one for each output; the standard deviation is
        $s \sqrt{\nu / (\nu - 2)}$.
    - `df`: $\nu > 0$, degrees of freedom; 4 is usual. The variance is infinite up to 2.
    """

    scale: Float[Array, "*out"]
    df: float = eqx.field(static=True)
    accepts_any_output: ClassVar[bool] = True

    def __init__(self, scale: float | Float[Array, "*out"], df: float = 4.0):
        if not df > 0:
            raise ValueError(f"df={df}: degrees of freedom are positive")
        self.scale = positive("scale", scale)
        self.df = float(df)

    def __call__(self, output: Float[Array, "*out"]) -> dist.Distribution:
        return StudentT(self.df, output, self.scale)

    def check_targets(self, y: np.ndarray) -> None:
        check_floating("y", y)


class PoissonLikelihood(AbstractLikelihood):
    r"""Likelihood of counts, $y \sim \mathrm{Poisson}(e^{f(x)})$."""

    accepts_any_output: ClassVar[bool] = True

    def __call__(self, output: Float[Array, "*out"]) -> dist.Distribution:
        return dist.Poisson(jnp.exp(output))


class VonMisesLikelihood(AbstractLikelihood):
    r"""Angles in radians, $y \sim \mathrm{vonMises}(\mu, \kappa)$.

    The output is a vector in the plane for each angle, along the last axis, and $\mu$
    is its direction: unlike an angle it has no jump at $\pm\pi$. Means and variances
    of the predictive are circular.

    Reference: *Directional statistics*, Mardia and Jupp, 2000.

    **Arguments:**

    - `concentration`: $\kappa > 0$, one number, or one for each angle; the standard
        deviation is about $\kappa^{-1/2}$.
    """

    concentration: Float[Array, "*out"]
    accepts_any_output: ClassVar[bool] = True

    def __init__(self, concentration: float | Float[Array, "*out"]):
        self.concentration = positive("concentration", concentration)

    def __call__(self, output: Float[Array, "*out plane"]) -> dist.Distribution:
        if output.ndim == 0 or output.shape[-1] != 2:
            raise ValueError(
                f"the model's output has shape {output.shape}: a vector in the plane "
                "is needed for each angle, two numbers along the last axis"
            )
        direction = jnp.arctan2(output[..., 1], output[..., 0])
        # numpyro's Bessel functions take arguments of one dtype only.
        return dist.VonMises(direction, self.concentration.astype(direction.dtype))

    def check_targets(self, y: np.ndarray) -> None:
        check_floating("y", y)


def gaussian_noise(likelihood: Likelihood) -> Float[Array, ""] | None:
    """Return the scale of Gaussian noise, if the likelihood has one for all outputs.

    Evidence has a closed form in this scale, by which it can be tuned.
    """
    if isinstance(likelihood, NormalLikelihood) and not likelihood.scale.ndim:
        return likelihood.scale
    return None
