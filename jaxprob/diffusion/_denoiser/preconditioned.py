"""A denoiser from any network."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from ..._checks import check_finite, check_floating
from ..._types import PRNGKey
from ...tree._single import single
from .._schedule.schedule import AbstractSchedule, check_schedule, check_time
from .._types import Cond, Scalar, Time
from ..nn import read_condition, reader_of, with_checked_tables
from .denoiser import AbstractDenoiser
from .parameterisation import PARAMETERISATIONS, to_x0, unknown
from .units import PerColumn, Units, along_leading

_PREDICTIONS = ("edm", *PARAMETERISATIONS)
_LOG_LEVELS = 16.0


class Preconditioned(AbstractDenoiser):
    r"""Makes a denoiser of a network and says what the network's output means.

    The schedule is one of the standardised data $y = (x - m)/S$: noise is measured in
    the data's own scale, and

    $$x_t = \alpha_t x_0 + \sigma_t S z, \qquad y_t = (x_t - \alpha_t m)/S.$$

    The network sees its input at unit variance, whatever the schedule,

    $$y_{in} = y_t / \sqrt{\alpha_t^2 + \sigma_t^2},$$

    and with `predict="edm"` it predicts, at unit variance too, what the best linear
    denoiser leaves over:

    $$D = m + S \left[\frac{\alpha_t\,y_t}{\alpha_t^2 + \sigma_t^2}
        + \frac{\sigma_t}{\sqrt{\alpha_t^2 + \sigma_t^2}}\,
          \mathrm{net}(y_{in}, c, \mathrm{cond})\right].$$

    Reference: *Elucidating the Design Space of Diffusion-Based Generative Models*,
    Karras et al., 2022, table 1, here for any $\alpha_t$ and with their
    $\sigma_{data}$ as the unit of noise.

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
        $\delta$ of the noise is one of $s\,\delta$ of the data, so near pure noise a
        network has to be far more accurate than others. `sample` warns if it is not.
    - `sigma_data`: standard deviation S of the data: one number, or one for each index
        of the leading axis of an example (columns of a vector, channels of an image).
        1 if standardised. `Preconditioned.fitted` takes it from the data.
    - `mean_data`: mean m of the data, likewise.
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
        self.sigma_data = _per_column("sigma_data", sigma_data)
        self.mean_data = _per_column("mean_data", mean_data)
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
        r"""With the `mean_data` and `sigma_data` of a data set.

        Vectors are rows of a table, whose columns may have any units: each has a mean
        and a scale of its own. So have the channels of images. Examples of two axes
        share one mean and one scale.

        **Arguments:**

        - `data`: all rows, or enough to tell; `x_0` alone.
        - `per_column`: whether each index of the leading axis of an example has its own
            mean and scale; by default for examples of one axis, or of three and more.
            `False` for vectors that are flattened images or signals, whose columns
            differ in variance but not in units.
        - the others: as in `Preconditioned`.

        **Raises:** `ValueError` for data that are not finite, with the row, or that are
        constant.
        """
        if isinstance(data, tuple | list):
            raise TypeError(
                f"data is a {type(data).__name__} of {len(data)}: give x_0 alone, the "
                "array data[0] of a pair (x_0, cond)"
            )
        rows = np.asarray(data)
        check_floating("data", rows)
        check_finite("data", rows)
        if per_column is None:
            per_column = rows.ndim == 2 or rows.ndim >= 4
        if per_column and rows.ndim < 2:
            raise ValueError(
                f"per_column=True for data of shape {rows.shape}: an example has no "
                "axis. Leave per_column out"
            )
        axes = (0, *range(2, rows.ndim)) if per_column else None
        mean = rows.mean(axes, dtype=np.float64)
        scale = rows.std(axes, dtype=np.float64)
        # A column that moves by rounding alone has no scale of its own.
        moves = scale > 4.0 * float(jnp.finfo(rows.dtype).eps) * np.abs(mean)
        if not moves.any():
            raise ValueError(
                "data are constant, with a standard deviation of 0: there is nothing "
                "to learn"
            )
        scale = np.where(moves, scale, np.sqrt(np.mean(scale[moves] ** 2)))
        settings = {"sigma_data": scale, "mean_data": mean}
        return cls(net, schedule, predict, condition_on=condition_on, **settings)

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
        units = self.noise_units()
        if units.is_identity:
            return self._unit_x_0(x_t, t, cond, key)
        centre = self.schedule.alpha(t) * along_leading(self.mean_data, x_t)
        y_t = (x_t - centre) / along_leading(self.sigma_data, x_t)
        return units.to_data(self._unit_x_0(y_t, t, cond, key))

    def standardised(self) -> tuple[AbstractDenoiser, Units]:
        units = self.noise_units()
        return (self if units.is_identity else _Standardised(self)), units

    def noise_units(self) -> Units:
        return Units(self.mean_data, self.sigma_data)

    def output_gain(self, t: Time) -> Scalar:
        t = jnp.asarray(t)
        if self.predict == "edm":
            return jnp.ones_like(t)
        one, zero = jnp.ones_like(t), jnp.zeros_like(t)
        return jnp.abs(to_x0(self.predict, one, self.schedule, zero, t))

    def _unit_x_0(self, y_t, t, cond, key):
        """The denoiser of the standardised data."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        scale = jnp.sqrt(alpha**2 + sigma**2)
        net = with_checked_tables(self.net)
        dtype = _dtype(net) or y_t.dtype
        y_in, c = (y_t / scale).astype(dtype), self._noise_input(t)
        # Never in half precision: its digits do not tell nearby noise levels apart.
        c = c.astype(jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype)
        out = single(
            read_condition(lambda cond: net(y_in, c, cond, key=key), cond)
        ).astype(y_t.dtype)
        if out.shape != y_t.shape:
            raise ValueError(
                f"the network turned shape {y_t.shape} into {out.shape}; a denoiser's "
                "network gives back the shape it gets"
            )
        if self.predict == "edm":
            return (alpha / scale**2) * y_t + (sigma / scale) * out
        return to_x0(self.predict, out, self.schedule, y_t, t)

    def _noise_input(self, t: Time) -> Scalar:
        if self.condition_on == "time":
            return jnp.asarray(t)
        # Clipped: at the very ends the noise level is 0 or infinite.
        log_level = -self.schedule.log_snr(t) / 2.0
        return jnp.clip(log_level, -_LOG_LEVELS, _LOG_LEVELS) / 4.0


class _Standardised(AbstractDenoiser):
    """A `Preconditioned` in the coordinates of its standardised data."""

    denoiser: Preconditioned

    def __init__(self, denoiser: Preconditioned):
        self.denoiser = denoiser

    @property
    def schedule(self) -> AbstractSchedule:
        return self.denoiser.schedule

    @property
    def reader(self) -> Any:
        return self.denoiser.reader

    def __call__(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        return self.denoiser._unit_x_0(single(x_t), t, cond, key)

    def standardised(self) -> tuple[AbstractDenoiser, Units]:
        return self, Units()


def _per_column(name, value) -> PerColumn:
    """One Python number, or a tuple of them, which jit compares by value."""
    array = np.asarray(value, dtype=float)
    if array.ndim > 1 or not np.isfinite(array).all():
        raise ValueError(
            f"{name}={value}: give a finite number, or one for each index of the "
            "leading axis of an example (columns of a vector, channels of an image)"
        )
    return float(array) if array.ndim == 0 else tuple(float(a) for a in array)


def _dtype(net):
    """Return the dtype of a network's parameters if all have the same one.

    Convolutions take no operands of two dtypes: a network of float32 under
    `jax_enable_x64` is given float32, and one in half precision (as inside
    `LowPrecisionLoss`) half precision.
    """
    kinds = {leaf.dtype for leaf in jax.tree.leaves(net) if eqx.is_inexact_array(leaf)}
    kind = kinds.pop() if len(kinds) == 1 else None
    return kind if kind is not None and jnp.issubdtype(kind, jnp.floating) else None
