"""The contract of a sampler."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from ..._random.keys import check_key
from ..._types import Model, PRNGKey
from .._denoiser.denoiser import AbstractDenoiser, at_level, check_denoiser
from .._types import Cond
from .._velocity.velocity_field import AbstractVelocityField


class Draw(eqx.Module):
    r"""One sample and what it cost; with a leading axis, several.

    **Fields:**

    - `x_0`: the sample.
    - `num_evaluations`: calls of the denoiser, without those for the distribution of
        the first level, which samples of one condition share.
    - `failed`: whether the solver gave up, at its maximum of steps.
    - `path`: $x_t/\alpha_t$ at the noise levels `levels`, from noise to data, if it
        was asked for. Levels are in units of the data's standard deviation. Of a
        velocity field, $x_t$ at the times `levels`, from the source to the data.
    """

    x_0: Float[Array, "..."]
    num_evaluations: Int[Array, "..."]
    failed: Bool[Array, "..."]
    path: Float[Array, "..."] | None = None
    levels: Float[Array, "..."] | None = None


class AbstractSampler(eqx.Module):
    """Base class of samplers: the way from noise to one sample.

    For more samples, map over keys with `jax.vmap`, or call `sample`.
    """

    level_name: ClassVar[str] = "noise level"
    """Name of the coordinate in `Draw.levels`, for errors."""

    @abc.abstractmethod
    def draw(
        self,
        denoiser: AbstractDenoiser,
        shape: tuple[int, ...],
        *,
        key: PRNGKey,
        cond: Cond = None,
        trajectory: bool = False,
        start: Float[Array, "..."] | None = None,
    ) -> Draw:
        r"""Draw one sample.

        **Arguments:**

        - `denoiser`: the model.
        - `shape`: of one example.
        - `key`: all of the sample's randomness.
        - `cond`: what the sample is conditioned on.
        - `trajectory`: whether to return the path from noise to data too.
        - `start`: $x_t/\alpha_t$ at the first level, in the data's units, where the
            sample begins; by default it is drawn.
        """

    def beginning_at(self, level: float) -> "AbstractSampler":
        """Return the sampler that begins at a level, with all of its steps below it.

        **Raises:** `TypeError` for a sampler that does not define it.
        """
        raise TypeError(
            f"{type(self).__name__} does not define beginning_at(level), and cannot "
            "begin at given examples: sample without start, or take ExpAB(18)"
        )

    def check_model(self, model: Model) -> None:
        """Check that a model is of the kind that the sampler takes, a denoiser.

        **Raises:** `TypeError` with the call that makes one.
        """
        if isinstance(model, AbstractVelocityField):
            raise TypeError(
                f"{type(self).__name__} samples denoisers, and the model is a "
                f"{type(model).__name__}: write FlowSampler(source)"
            )
        check_denoiser(model)

    def answer(
        self, model: Model, x: Float[Array, "*shape"], level: Any, cond: Cond
    ) -> Float[Array, "*shape"]:
        """Return the model's answer at a point of a path, to find where NaN began."""
        unit, units = model.standardised()
        return at_level(unit, units.to_unit(x), level, cond)

    def levels(
        self, denoiser: AbstractDenoiser, shape: tuple[int, ...]
    ) -> np.ndarray | None:
        """Return the falling noise levels from where sampling begins to where it stops.

        They are in units of the data's standard deviation, for examples of a shape. A
        sampler without levels returns `None`.
        """
        return None

    def draw_many(
        self,
        denoiser: Model,
        shape: tuple[int, ...],
        *,
        keys: Key[Array, " num"],
        cond: PyTree = None,
        trajectory: bool = False,
        start: Float[Array, "num ..."] | None = None,
    ) -> Draw:
        """Draw one sample for each key, and for each row of `cond` and `start`."""

        def one(key, cond, start):
            # A sampler of a user's may have no such argument.
            given = {} if start is None else {"start": start}
            return self.draw(
                denoiser, shape, key=key, cond=cond, trajectory=trajectory, **given
            )

        return jax.vmap(one)(keys, cond, start)

    def __call__(
        self,
        denoiser: Model,
        shape: tuple[int, ...],
        *,
        key: PRNGKey,
        cond: Cond = None,
    ) -> Float[Array, "..."]:
        """Draw one sample, NaN if the solver failed: raising inside jit can hang.

        **Arguments:** as in `draw`.
        """
        check_key(key)
        out = self.draw(denoiser, shape, key=key, cond=cond)
        return jnp.where(out.failed, jnp.nan, out.x_0)
