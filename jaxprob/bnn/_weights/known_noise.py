"""A noise scale that is given with each row."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .apply import call_model


class KnownNoise(eqx.Module):
    r"""A regression model whose noise scale is a part of each row, as of measurements
    with error bars.

    It is called on x = `(inputs, scale)` and returns `(mean, scale)`, the output of
    `KnownNoiseLikelihood`. A prediction asks for the scale of the new rows as well; the
    uncertainty without it is `predictive.epistemic`.

    ```python
    scale = np.full(len(x), 0.1, np.float32)
    model = KnownNoise(eqx.nn.MLP(2, "scalar", 50, 1, key=key))
    log_joint = LogJoint(KnownNoiseLikelihood(), FanInNormal(), num_data=len(x))
    output = model((x[0], scale[0]))
    ```

    **Arguments:**

    - `model`: any model of the mean.
    """

    model: Any

    def __call__(
        self, x: Any, *, key: PRNGKey | None = None
    ) -> tuple[Float[Array, "*out"], Float[Array, "*out"]]:
        """Return mean and scale, `(*out)` each, for one pair `(inputs, scale)`."""
        if not isinstance(x, tuple | list) or len(x) != 2:
            raise ValueError(
                f"KnownNoise was called on a {type(x).__name__}: its x is the pair "
                "(inputs, scale), with the standard deviation of the noise in each row"
            )
        inputs, scale = x
        mean = call_model(self.model, inputs, key=key)
        scale = jnp.asarray(scale).astype(mean.dtype)
        if scale.ndim not in (0, mean.ndim) or (
            scale.ndim and scale.shape != mean.shape
        ):
            raise ValueError(
                f"the noise scale of a row has shape {scale.shape} and the mean "
                f"{mean.shape}: give one for each row, of shape (rows,), or one for "
                "each target"
            )
        return mean, jnp.broadcast_to(scale, mean.shape)
