"""The one object at which training, sampling, likelihood and guidance meet."""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from .._inference_mode import inference_mode
from .._types import PRNGKey
from ._kinds import check_kind
from ._parameterisation import from_x0
from ._schedule import AbstractSchedule, check_schedule
from ._types import Cond, Time
from .nn import AbstractConditioned


class AbstractDenoiser(AbstractConditioned):
    r"""The posterior mean of the data, $D(x_t, t) = E[x_0 \mid x_t]$, and its schedule.

    By Tweedie's formula it is the score in another form,

    $$\nabla \log p_t(x) = \frac{\alpha_t D(x, t) - x}{\sigma_t^2}.$$

    A trained network is a denoiser (`Preconditioned`); what takes a denoiser and
    changes it (guidance, ensembles) is one again, so every sampler works with it.
    All methods take one example.
    """

    schedule: eqx.AbstractVar[AbstractSchedule]

    @property
    def reader(self) -> Any:
        """The `nn.Embedding` that reads `cond`, if it is given it as it is."""
        return None

    @abc.abstractmethod
    def __call__(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        r"""$E[x_0 \mid x_t]$.

        **Arguments:**

        - `x_t`: one noisy example.
        - `t`: its time.
        - `cond`: what it is conditioned on, if anything.
        - `key`: for networks with dropout or random weights; samplers pass none.
        """

    def eps(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        r"""The expected noise, $(x_t - \alpha_t D)/\sigma_t$."""
        return self._as("eps", x_t, t, cond, key)

    def score(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        r"""$\nabla \log p_t(x_t) = (\alpha_t D - x_t)/\sigma_t^2$."""
        return self._as("score", x_t, t, cond, key)

    def v(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        r"""The expected $\alpha_t z - \sigma_t x_0$."""
        return self._as("v", x_t, t, cond, key)

    def velocity(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        r"""The probability flow $dx/dt = f_t x_t - \tfrac12 g_t^2 \nabla \log p_t$."""
        return self._as("velocity", x_t, t, cond, key)

    def _as(self, name, x_t, t, cond, key):
        x_0 = self(x_t, t, cond, key=key)
        return from_x0(name, x_0, self.schedule, x_t, t)


def check_denoiser(denoiser: Any) -> None:
    """What has a schedule and gives x_0, and not a network alone.

    **Raises:** `TypeError` with how to make one.
    """
    remedy = "wrap a network, Preconditioned(net, schedule)"
    check_kind("denoiser", denoiser, AbstractDenoiser, remedy)
    check_schedule(denoiser.schedule)


def at_noise_level(
    denoiser: AbstractDenoiser,
    x: Float[Array, "*shape"],
    log_level: Float[Array, ""],
    cond: Cond,
) -> Float[Array, "*shape"]:
    r"""$E[x_0 \mid x_0 + s z = x]$ for a noise level s given by its logarithm.

    In $x = x_t/\alpha_t$ the schedules differ no more: samplers and log_prob know only
    noise levels and call this. There is no key, so the denoiser is in inference mode:
    a network with dropout that has been trained is sampled without it.
    """
    schedule = denoiser.schedule
    t = schedule.time_of_log_snr(-2.0 * log_level).astype(x.dtype)
    return inference_mode(denoiser)(schedule.alpha(t) * x, t, cond)
