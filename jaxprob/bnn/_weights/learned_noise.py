"""A learned noise scale, as a leaf of the model."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .apply import call_model
from .scale import inverse_softplus

MIN_NOISE = 1e-4
"""Smallest standard deviation of learned noise."""


class LearnedNoise(eqx.Module):
    """A regression model with one noise scale for all inputs.

    The noise scale is a leaf of the model. By default it is optimised; it can be made
    random (`random=True`) or frozen (`point=False`). Use it with
    `HeteroscedasticNormal()`, since the output is `(mean, raw_scale)`. With another
    `min_scale` there, `scale` here is not the standard deviation of the noise.

    ```python
    model = LearnedNoise(eqx.nn.MLP(8, "scalar", 50, 1, key=key), scale=0.5)
    log_joint = LogJoint(HeteroscedasticNormal(), FanInNormal(), num_data=500)
    ```

    **Arguments:**

    - `model`: any model of the mean.
    - `scale`: initial standard deviation of the noise.
    - `shape`: `()` for one noise scale, or the shape of the output for one each.
    """

    model: Any
    raw_scale: Float[Array, "*out"]

    def __init__(self, model: Any, *, scale: float = 0.5, shape: tuple[int, ...] = ()):
        if not scale > MIN_NOISE:
            raise ValueError(
                f"scale={scale}: the initial noise scale has to exceed {MIN_NOISE}"
            )
        self.model = model
        self.raw_scale = inverse_softplus(jnp.full(shape, float(scale) - MIN_NOISE))

    @property
    def scale(self) -> Float[Array, "*out"]:
        """The standard deviation of the noise."""
        return MIN_NOISE + jax.nn.softplus(self.raw_scale)

    def __call__(
        self, x: Any, *, key: PRNGKey | None = None
    ) -> tuple[Float[Array, "*out"], Float[Array, "*out"]]:
        """Return the model's mean for one input and the raw scale, `(*out)` each."""
        mean = call_model(self.model, x, key=key)
        raw = self.raw_scale.astype(mean.dtype)
        return mean, jnp.broadcast_to(raw, mean.shape)
