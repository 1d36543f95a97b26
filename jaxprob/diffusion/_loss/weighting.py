r"""Weights of the error $\|D - x_0\|^2$ at each noise level.

The error of any parameterisation is that of $x_0$ times a number that depends on t
alone, so a loss "on eps" or "on v" is a weighting. Errors are in units of the data's
standard deviation, and so are noise levels.
"""

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax.numpy as jnp

from .._denoiser.parameterisation import PARAMETERISATIONS, unknown
from .._schedule.schedule import AbstractSchedule
from .._types import Scalar, Time

Weighting: TypeAlias = Callable[[AbstractSchedule, Time], Scalar]
"""Any `(schedule, t) -> weight`."""


class ErrorOf(eqx.Module):
    r"""The weight of the squared error of one parameterisation.

    With $s = \sigma/\alpha$: `x0` weighs 1, `eps` $1/s^2$, `score` $1/(s\sigma)^2$,
    `v` $((\alpha^2+\sigma^2)/\sigma)^2$, `velocity`
    $((\dot\sigma\alpha - \sigma\dot\alpha)/\sigma)^2$.

    **Arguments:**

    - `name`: one of `PARAMETERISATIONS`.
    """

    name: str = eqx.field(static=True)

    def __init__(self, name: str):
        if name not in PARAMETERISATIONS:
            raise unknown(name)
        self.name = name

    def __call__(self, schedule: AbstractSchedule, t: Time) -> Scalar:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        match self.name:
            case "x0":
                return jnp.ones_like(alpha)
            case "eps":
                return (alpha / sigma) ** 2
            case "score":
                return (alpha / sigma**2) ** 2
            case "v":
                return ((alpha**2 + sigma**2) / sigma) ** 2
            case _:
                alpha_dot, sigma_dot = schedule.alpha_dot(t), schedule.sigma_dot(t)
                return ((sigma_dot * alpha - sigma * alpha_dot) / sigma) ** 2


class ScoreWeighting(eqx.Module):
    r"""$\lambda(t)\,\|\hat s - \nabla \log p(x_t \mid x_0)\|^2$, any $\lambda$.

    Song et al., 2021, equation 7. Kidger's example is `lambda t: 1 - exp(-t)`, which
    is $\sigma_t^2$ there, and so the error of eps.

    **Arguments:**

    - `weight`: $\lambda$, a function of one time.
    """

    weight: Callable[..., Scalar]

    def __call__(self, schedule: AbstractSchedule, t: Time) -> Scalar:
        return self.weight(t) * ErrorOf("score")(schedule, t)


class EDMWeighting(eqx.Module):
    r"""$1/s^2 + 1$: unit error of the network at every level.

    With `predict="edm"` this is the squared error of the raw network output. Karras et
    al.'s $(s^2 + \sigma_d^2)/(s \sigma_d)^2$ is the same for data that are not
    standardised; here levels and errors are in units of $\sigma_d$.

    Reference: Karras et al., 2022, section 5.
    """

    def __call__(self, schedule: AbstractSchedule, t: Time) -> Scalar:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return (alpha / sigma) ** 2 + 1.0


class MinSNR(eqx.Module):
    r"""$\min(\mathrm{SNR}, \gamma)$ on the error of $x_0$: eps, capped near the data.

    Reference: *Efficient Diffusion Training via Min-SNR Weighting Strategy*, Hang et
    al., 2023.

    **Arguments:**

    - `gamma`: $\gamma > 0$; 5 in the paper.
    """

    gamma: float = eqx.field(default=5.0, static=True)

    def __check_init__(self):
        # Infinity is eps without a cap.
        if not self.gamma > 0.0:
            raise ValueError(
                f"MinSNR(gamma={self.gamma}): the largest weight is a positive number, "
                "5 in the paper"
            )

    def __call__(self, schedule: AbstractSchedule, t: Time) -> Scalar:
        return jnp.minimum(jnp.exp(schedule.log_snr(t)), self.gamma)


class LikelihoodWeighting(eqx.Module):
    r"""$g_t^2/2$ on the error of the score: its integral bounds the likelihood.

    $$KL(p \,\|\, p_\theta) \le \tfrac12 \int g_t^2\, E\|s_\theta - s\|^2\,dt
      + KL(p_T \,\|\, \pi)$$

    Reference: *Maximum Likelihood Training of Score-Based Diffusion Models*, Song et
    al., 2021.
    """

    def __call__(self, schedule: AbstractSchedule, t: Time) -> Scalar:
        return 0.5 * schedule.squared_diffusion(t) * ErrorOf("score")(schedule, t)
