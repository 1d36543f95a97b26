"""Velocity fields: the contract, and a field made of any network."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from ..._types import PRNGKey
from ...tree._single import single
from .._denoiser.data_scale import mean_and_scale, per_column_values
from .._denoiser.units import PerColumn, along_leading
from .._schedule.argument_checks import check_kind
from .._types import Cond, Time
from ..nn import AbstractConditioned, AbstractReader, evaluate_network, reader_of
from .source import AbstractSource

_DRAWS = 4096


class AbstractVelocityField(AbstractConditioned):
    r"""The velocity of a flow from a source, at t = 0, to the data, at t = 1.

    For pairs (y, x) of an example of the source and one of the data,

    $$v(x_t, t) = E[x - y \mid x_t], \qquad x_t = (1 - t)\,y + t\,x,$$

    and the flow $dx/dt = v(x, t)$ carries the distribution of y to that of x, whichever
    way they are paired. `FlowMatchingLoss` trains it, `FlowSampler` solves it, and
    `flow_log_prob` is its density.

    A subclass defines `velocity` for one example.
    """

    @abc.abstractmethod
    def velocity(
        self,
        x: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        """Return the velocity.

        **Arguments:**

        - `x`: one example $x_t$.
        - `t`: its time, 0 at the source and 1 at the data.
        - `cond`: its condition, if there is one.
        - `key`: for networks with dropout or random weights; samplers pass none.
        """

    @property
    def reader(self) -> AbstractReader | None:
        """The part of a network that reads `cond` as it is given."""
        return None

    def scale(self) -> PerColumn:
        """Return the standard deviation of a velocity, in each column, or 1.

        Errors of the loss, costs of a coupling and tolerances of a solver are in this
        unit, so that columns of different units count alike.
        """
        return 1.0


class VelocityField(AbstractVelocityField):
    r"""A velocity field made of a network.

    With the means $m_0, m_1$ and the standard deviations $s_0, s_1$ of source and data,
    $x_t$ of independent pairs has mean $m_t = (1 - t) m_0 + t m_1$ and variance
    $s_t^2 = (1 - t)^2 s_0^2 + t^2 s_1^2$. The network gets $u = (x - m_t)/s_t$ and adds
    to the best linear field, which is that of Gaussians with these moments,

    $$v = m_1 - m_0 + \frac{t s_1^2 - (1 - t) s_0^2}{s_t}\,u
        + \frac{s_0 s_1}{s_t}\,\mathrm{net}(u, c, \mathrm{cond}), \qquad c = 4 t - 2.$$

    The last factor is the standard deviation of what a linear field leaves over, so
    that input and target of the network have unit variance at all times.

    Reference: *Flow Matching for Generative Modeling*, Lipman et al., 2023; *Improving
    and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport*,
    Tong et al., 2024. The preconditioning follows Karras et al., 2022, table 1.

    ```python
    field = VelocityField.fitted(net, x)
    learner = jaxprob.GradientDescent(FlowMatchingLoss(), optax.adam(1e-3))
    state, history = jaxprob.fit(learner, field, x, key=key, num_steps=10)
    ```

    **Arguments:**

    - `net`: any callable `net(x, c, cond, *, key)` that gives back x's shape.
    - `mean_source`, `sigma_source`: mean and standard deviation of the source, each one
        number, or one for each index of the leading axis of an example.
    - `mean_data`, `sigma_data`: those of the data. `fitted` takes all four from data.
    """

    net: Callable[..., Float[Array, "..."]]
    mean_source: PerColumn = eqx.field(static=True)
    sigma_source: PerColumn = eqx.field(static=True)
    mean_data: PerColumn = eqx.field(static=True)
    sigma_data: PerColumn = eqx.field(static=True)

    def __init__(
        self,
        net: Callable,
        *,
        mean_source: Any = 0.0,
        sigma_source: Any = 1.0,
        mean_data: Any = 0.0,
        sigma_data: Any = 1.0,
    ):
        self.net = net
        self.mean_source = per_column_values("mean_source", mean_source)
        self.sigma_source = _positive("sigma_source", sigma_source)
        self.mean_data = per_column_values("mean_data", mean_data)
        self.sigma_data = _positive("sigma_data", sigma_data)

    @classmethod
    def fitted(
        cls,
        net: Callable,
        data: Shaped[np.ndarray | Array, "rows ..."],
        source: AbstractSource | Shaped[np.ndarray | Array, "rows ..."] | None = None,
        *,
        per_column: bool | None = None,
    ) -> "VelocityField":
        """Return a field with the moments of a data set and of a source.

        **Arguments:**

        - `data`: all rows, or enough to estimate mean and standard deviation.
        - `source`: rows of the source, or the source, from which 4,096 examples are
            drawn; standard normal by default.
        - `per_column`: as in `Preconditioned.fitted`.

        **Raises:** `ValueError` for data that are not finite, with the row, or that are
        constant.
        """
        mean, scale = mean_and_scale(data, per_column)
        settings = {"mean_data": mean, "sigma_data": scale}
        if source is not None:
            if isinstance(source, AbstractSource):
                source = _rows_of(source, np.shape(data)[1:])
            mean, scale = mean_and_scale(source, per_column)
            settings |= {"mean_source": mean, "sigma_source": scale}
        return cls(net, **settings)

    @property
    def reader(self) -> AbstractReader | None:
        return reader_of(self.net)

    def velocity(
        self,
        x: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        x = single(x)
        t = jnp.asarray(t, x.dtype)
        m0, s0 = along_leading(self.mean_source, x), along_leading(self.sigma_source, x)
        m1, s1 = along_leading(self.mean_data, x), along_leading(self.sigma_data, x)
        spread = jnp.sqrt(((1.0 - t) * s0) ** 2 + (t * s1) ** 2)
        u = (x - (1.0 - t) * m0 - t * m1) / spread
        linear = (t * s1**2 - (1.0 - t) * s0**2) / spread
        out = evaluate_network(self.net, u, 4.0 * t - 2.0, cond, key=key)
        return m1 - m0 + linear * u + s0 * s1 / spread * out

    def scale(self) -> PerColumn:
        return per_column_values("scale", np.hypot(self.sigma_source, self.sigma_data))


def check_field(field: Any) -> None:
    """Check that this is a velocity field, and not a network alone.

    **Raises:** `TypeError` with the call that makes one.
    """
    remedy = "wrap a network, VelocityField.fitted(net, x)"
    check_kind("field", field, AbstractVelocityField, remedy)


def _positive(name, value):
    values = per_column_values(name, value)
    if not (np.asarray(values) > 0.0).all():
        raise ValueError(f"{name}={value}: give positive standard deviations")
    return values


def _rows_of(source, shape):
    keys = jax.random.split(jax.random.key(0), _DRAWS)
    return np.asarray(jax.vmap(lambda key: source.draw(shape, key=key))(keys))
