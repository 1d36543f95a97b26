"""A denoiser from any network."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from ..._types import PRNGKey
from ...tree._single import single
from .._schedule.schedule import AbstractSchedule, check_schedule
from .._types import Cond, Level, Scalar
from ..nn import AbstractReader, evaluate_network, reader_of
from .data_scale import mean_and_scale, per_column_values
from .denoiser import AbstractDenoiser
from .parameterisation import PARAMETERISATIONS, to_x0, unknown
from .units import PerColumn, Units

_PREDICTIONS = ("edm", *PARAMETERISATIONS)
_LOG_LEVELS = 16.0


class Preconditioned(AbstractDenoiser):
    r"""A denoiser made of a network and the meaning of the network's output.

    The schedule is one of the standardised data: noise is measured in the data's own
    scale S. With the level $s = \sigma_t/\alpha_t$ and $x = x_t/\alpha_t$,

    $$x = x_0 + s S z, \qquad y = (x - m)/S.$$

    The network's input $y/\sqrt{1 + s^2}$ has unit variance at every level, and with
    `predict="edm"` its output, of unit variance too, is what the best linear denoiser
    leaves over:

    $$D = m + S \left[\frac{y}{1 + s^2} + \frac{s}{\sqrt{1 + s^2}}\,
          \mathrm{net}\Big(\frac{y}{\sqrt{1 + s^2}}, c, \mathrm{cond}\Big)\right].$$

    Reference: *Elucidating the Design Space of Diffusion-Based Generative Models*,
    Karras et al., 2022, table 1, with their $\sigma_{data}$ as the unit of noise.

    ```python
    denoiser = Preconditioned.fitted(net, VP.linear(), x)
    denoiser = Preconditioned(net, VP.linear(), predict="edm", sigma_data=0.5)
    x_0 = denoiser(x_t, t)
    ```

    **Arguments:**

    - `net`: any callable `net(x, c, cond, *, key)` that gives back x's shape.
    - `schedule`: the noise it is trained on, for data of unit standard deviation.
    - `predict`: what the network's output is: `"edm"` (our default: good at every noise
        level), `"x0"` (poor near the data), `"v"`, or `"velocity"`. `"eps"`, and
        `"score"` (Kidger's example), are for networks that were trained so: an error
        $\delta$ of the noise is an error $s\,\delta$ of the data, so near pure noise
        such a network must be far more accurate. `sample` warns if it is not.
    - `sigma_data`: standard deviation S of the data: one number, or one for each index
        of the leading axis of an example (columns of a vector, channels of an image).
        1 if standardised. `Preconditioned.fitted` takes it from the data.
    - `mean_data`: mean m of the data, likewise.
    - `condition_on`: the network's input `c`: `"noise"`, which is $\tfrac14 \log s$ as
        in Karras et al., or `"time"`, which is the schedule's time of the level.

    A network whose parameters all have one dtype gets its input in that dtype. The rest
    is computed in the dtype of x, in float32 at least, and so is the output.

    **Raises:** `ValueError` for an unknown prediction, a `sigma_data` that is not
    positive, a time outside the schedule, or an output of another shape.
    """

    net: Callable[..., Float[Array, "..."]]
    schedule: AbstractSchedule
    predict: str = eqx.field(static=True)
    sigma_data: PerColumn = eqx.field(static=True)
    mean_data: PerColumn = eqx.field(static=True)
    condition_on: str = eqx.field(static=True)

    def __init__(
        self,
        net: Callable,
        schedule: AbstractSchedule,
        predict: str = "edm",
        *,
        sigma_data: Any = 1.0,
        mean_data: Any = 0.0,
        condition_on: str = "noise",
    ):
        check_schedule(schedule)
        if predict not in _PREDICTIONS:
            raise unknown(predict, _PREDICTIONS)
        if condition_on not in ("noise", "time"):
            raise ValueError(f"condition_on={condition_on!r} must be 'noise' or 'time'")
        self.net = net
        self.schedule = schedule
        self.predict = predict
        self.sigma_data = per_column_values("sigma_data", sigma_data)
        self.mean_data = per_column_values("mean_data", mean_data)
        if not (np.asarray(self.sigma_data) > 0.0).all():
            raise ValueError(
                f"sigma_data={sigma_data}: the data's standard deviation must be "
                "positive. A constant data set has nothing to learn."
            )
        self.condition_on = condition_on

    @classmethod
    def fitted(
        cls,
        net: Callable,
        schedule: AbstractSchedule,
        data: Shaped[np.ndarray | Array, "rows ..."],
        predict: str = "edm",
        *,
        per_column: bool | None = None,
        condition_on: str = "noise",
    ) -> "Preconditioned":
        r"""Return a denoiser with the `mean_data` and `sigma_data` of a data set.

        Vectors are rows of a table, whose columns may have any units: each column has
        its own mean and scale, and so has each channel of images. Examples of two axes
        share one mean and one scale.

        **Arguments:**

        - `data`: all rows, or enough to estimate both; `x_0` alone.
        - `per_column`: whether each index of the leading axis of an example has its own
            mean and scale; by default for examples of one axis, or of three and more.
            `False` for vectors that are flattened images or signals, whose columns
            differ in variance but not in units.
        - the others: as in `Preconditioned`.

        **Raises:** `ValueError` for data that are not finite, with the row, or that are
        constant.
        """
        mean, scale = mean_and_scale(data, per_column)
        settings = {"sigma_data": scale, "mean_data": mean}
        return cls(net, schedule, predict, condition_on=condition_on, **settings)

    @property
    def reader(self) -> AbstractReader | None:
        return reader_of(self.net)

    def denoise(
        self,
        x: Float[Array, "*shape"],
        level: Level,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        x, units = single(x), self.noise_units()
        # x = x_0 + s S z, so that (x - m)/S is y_0 + s z of the standardised data.
        return units.to_data(self._denoise_unit(units.to_unit(x), level, cond, key))

    def standardised(self) -> tuple[AbstractDenoiser, Units]:
        units = self.noise_units()
        return (self if units.is_identity else Standardised(self)), units

    def noise_units(self) -> Units:
        return Units(self.mean_data, self.sigma_data)

    def output_gain(self, level: Level) -> Scalar:
        one = jnp.ones_like(jnp.asarray(level))
        if self.predict == "edm":
            return one
        zero = jnp.zeros_like(one)
        return jnp.abs(to_x0(self.predict, one, self.schedule, x=zero, level=level))

    def _denoise_unit(self, y, level, cond, key):
        """Return the posterior mean of the standardised data."""
        level = jnp.asarray(level, y.dtype)
        square = 1.0 + level**2
        y_in, c = y * jax.lax.rsqrt(square), self._noise_input(level)
        out = evaluate_network(self.net, y_in, c, cond, key=key)
        if self.predict == "edm":
            return y / square + level * jax.lax.rsqrt(square) * out
        return to_x0(self.predict, out, self.schedule, x=y, level=level)

    def _noise_input(self, level: Scalar) -> Scalar:
        if self.condition_on == "time":
            return self.schedule.time_of_level(level)
        # Clipped: at the very ends the level is 0 or infinite.
        return jnp.clip(jnp.log(level), -_LOG_LEVELS, _LOG_LEVELS) / 4.0


class Standardised(AbstractDenoiser):
    """A `Preconditioned` in the coordinates of its standardised data."""

    denoiser: Preconditioned

    def __init__(self, denoiser: Preconditioned):
        self.denoiser = denoiser

    @property
    def schedule(self) -> AbstractSchedule:
        return self.denoiser.schedule

    @property
    def reader(self) -> AbstractReader | None:
        return self.denoiser.reader

    def denoise(
        self,
        x: Float[Array, "*shape"],
        level: Level,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        return self.denoiser._denoise_unit(single(x), level, cond, key)

    def standardised(self) -> tuple[AbstractDenoiser, Units]:
        return self, Units()

    def noise_units(self) -> Units:
        return Units()

    def output_gain(self, level: Level) -> Scalar:
        return self.denoiser.output_gain(level)
