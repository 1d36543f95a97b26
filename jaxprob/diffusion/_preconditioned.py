"""A denoiser from any network."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from .._checks import check_finite, check_floating
from .._low_precision import single
from .._types import PRNGKey
from ._denoiser import AbstractDenoiser
from ._parameterisation import PARAMETERISATIONS, to_x0, unknown
from ._schedule import AbstractSchedule, check_schedule, check_time
from ._types import Cond, Scalar, Time
from .nn import read_condition, reader_of, with_checked_tables

_PREDICTIONS = ("edm", *PARAMETERISATIONS)
_LOG_LEVELS = 16.0


class Preconditioned(AbstractDenoiser):
    r"""Makes a denoiser of a network and says what the network's output means.

    The network sees its input at unit variance, whatever the schedule,

    $$x_{in} = x_t / \sqrt{\alpha_t^2 \sigma_d^2 + \sigma_t^2},$$

    and with `predict="edm"` it predicts, at unit variance too, what the best linear
    denoiser leaves over:

    $$D = \frac{\alpha_t \sigma_d^2\,x_t}{\alpha_t^2 \sigma_d^2 + \sigma_t^2}
        + \frac{\sigma_t \sigma_d}{\sqrt{\alpha_t^2 \sigma_d^2 + \sigma_t^2}}\,
          \mathrm{net}(x_{in}, c, \mathrm{cond}).$$

    Reference: *Elucidating the Design Space of Diffusion-Based Generative Models*,
    Karras et al., 2022, table 1, here for any $\alpha_t$.

    ```python
    denoiser = Preconditioned(net, VP.linear(), predict="edm", sigma_data=0.5)
    x_0 = denoiser(x_t, t)
    ```

    **Arguments:**

    - `net`: any callable `net(x, c, cond, *, key)` that gives back x's shape.
    - `schedule`: the noise it is trained on.
    - `predict`: what the network's output is: `"edm"` (our default: good at every noise
        level), `"eps"` (poor near pure noise), `"x0"` (poor near the data), `"v"`,
        `"velocity"`, or `"score"` (Kidger's example; its size grows like
        $1/\sigma_t$, which is hard on a network).
    - `sigma_data`: standard deviation $\sigma_d$ of the data; 1 if standardised.
        `Preconditioned.fitted` takes it from the data.
    - `condition_on`: what the network is given as `c`: `"noise"`, which is
        $\tfrac14 \log(\sigma_t/\alpha_t)$ as in Karras et al., or `"time"`, which is t.

    A network whose parameters all have one dtype is given its input in that dtype. What
    surrounds it is computed in the dtype of `x_t`, in float32 at least, and so is the
    output.

    **Raises:** `ValueError` for an unknown prediction, a `sigma_data` that is not
    positive, a time outside the schedule, or an output of another shape.
    """

    net: Callable[..., Float[Array, "..."]]
    schedule: AbstractSchedule
    predict: str = eqx.field(static=True)
    sigma_data: float = eqx.field(static=True)
    condition_on: str = eqx.field(static=True)

    def __init__(
        self,
        net: Callable,
        schedule: AbstractSchedule,
        predict: str = "edm",
        *,
        sigma_data: float = 1.0,
        condition_on: str = "noise",
    ):
        check_schedule(schedule)
        if predict not in _PREDICTIONS:
            raise unknown(predict, _PREDICTIONS)
        if not 0.0 < sigma_data < float("inf"):
            raise ValueError(
                f"sigma_data={sigma_data}: the data's standard deviation must be "
                "positive. A constant data set has nothing to learn."
            )
        if condition_on not in ("noise", "time"):
            raise ValueError(f"condition_on={condition_on!r} must be 'noise' or 'time'")
        self.net = net
        self.schedule = schedule
        self.predict = predict
        self.sigma_data = float(sigma_data)
        self.condition_on = condition_on

    @classmethod
    def fitted(
        cls,
        net: Callable,
        schedule: AbstractSchedule,
        data: Shaped[np.ndarray | Array, "rows ..."],
        predict: str = "edm",
        *,
        condition_on: str = "noise",
    ) -> "Preconditioned":
        r"""With the `sigma_data` of a data set: the root of its mean square.

        The mean square and not the variance, as the best linear denoiser here shrinks
        towards 0: data with a mean are worth standardising first.

        **Arguments:**

        - `data`: all rows, or enough to tell; `x_0` alone.
        - the others: as in `Preconditioned`.

        **Raises:** `ValueError` for data that are not finite, with the row.
        """
        if isinstance(data, tuple | list):
            raise TypeError(
                f"data is a {type(data).__name__} of {len(data)}: give x_0 alone, the "
                "array data[0] of a pair (x_0, cond)"
            )
        rows = np.asarray(data)
        check_floating("data", rows)
        check_finite("data", rows)
        scale = float(np.sqrt(np.mean(np.square(rows, dtype=np.float64))))
        return cls(net, schedule, predict, sigma_data=scale, condition_on=condition_on)

    @property
    def reader(self) -> Any:
        return reader_of(self.net)

    def __call__(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        check_time(self.schedule, t)
        x_t = single(x_t)
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        scale = jnp.sqrt((alpha * self.sigma_data) ** 2 + sigma**2)
        net = with_checked_tables(self.net)
        dtype = _dtype(net) or x_t.dtype
        x_in, c = (x_t / scale).astype(dtype), self._noise_input(t)
        # Never in half precision: its digits do not tell nearby noise levels apart.
        c = c.astype(jnp.promote_types(dtype, jnp.float32))
        out = single(
            read_condition(lambda cond: net(x_in, c, cond, key=key), cond)
        ).astype(x_t.dtype)
        if out.shape != x_t.shape:
            raise ValueError(
                f"the network turned shape {x_t.shape} into {out.shape}; a denoiser's "
                "network gives back the shape it gets"
            )
        if self.predict == "edm":
            skip = alpha * self.sigma_data**2 / scale**2
            return skip * x_t + (sigma * self.sigma_data / scale) * out
        return to_x0(self.predict, out, self.schedule, x_t, t)

    def _noise_input(self, t: Time) -> Scalar:
        if self.condition_on == "time":
            return jnp.asarray(t)
        # Clipped: at the very ends the noise level is 0 or infinite.
        log_level = -self.schedule.log_snr(t) / 2.0
        return jnp.clip(log_level, -_LOG_LEVELS, _LOG_LEVELS) / 4.0


def _dtype(net):
    """Return the dtype of a network's parameters if all have the same one.

    Convolutions take no operands of two dtypes: a network of float32 under
    `jax_enable_x64` is given float32, and one in half precision (as inside
    `LowPrecisionLoss`) half precision.
    """
    kinds = {leaf.dtype for leaf in jax.tree.leaves(net) if eqx.is_inexact_array(leaf)}
    kind = kinds.pop() if len(kinds) == 1 else None
    return kind if kind is not None and jnp.issubdtype(kind, jnp.floating) else None
