"""The MLPs and the norm of a Mixer's block, for all examples at once.

Arrays have the axes (patches, examples, numbers per patch). Mixing over patches is then
a product from the left of a (patches, all else) matrix, mixing over the numbers of a
patch one from the right of an (all else, numbers) matrix, and nothing is transposed.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey
from ._digits import wide

Rows = Float[Array, "patches examples hidden"]


class Mixing(eqx.Module):
    r"""The weights of $W_2\,\mathrm{relu}(W_1 x + b_1) + b_2$.

    Both matrices are stored with the short side first: their gradients are then
    products whose first side is the short one, which are three times as fast on a CPU
    as those whose first side is the long one.

    **Arguments:**

    - `size`: size of x and of the output.
    - `hidden_size`: size of the hidden layer.
    - `key`: of the initial weights, those of `equinox.nn.Linear`.
    """

    up: Float[Array, "size hidden"]
    up_bias: Float[Array, " hidden"]
    down: Float[Array, "size hidden"]
    down_bias: Float[Array, " size"]

    def __init__(self, size: int, hidden_size: int, *, key: PRNGKey):
        up_key, up_bias_key, down_key, down_bias_key = jax.random.split(key, 4)

        def draw(key, shape, fan_in):
            limit = 1.0 / math.sqrt(fan_in)
            return jax.random.uniform(key, shape, None, -limit, limit)

        self.up = draw(up_key, (size, hidden_size), size)
        self.up_bias = draw(up_bias_key, (hidden_size,), size)
        self.down = draw(down_key, (size, hidden_size), hidden_size)
        self.down_bias = draw(down_bias_key, (size,), hidden_size)

    @property
    def weights(self) -> tuple[Array, Array, Array, Array]:
        """All four arrays, in the order of `over_patches` and `over_hidden`."""
        return self.up, self.up_bias, self.down, self.down_bias


def over_patches(y: Rows, up, up_bias, down, down_bias) -> Rows:
    """Return the MLP over the patches of each number."""
    z = y.reshape(y.shape[0], -1)
    h = jax.nn.relu(up.T @ z + up_bias[:, None])
    return (down @ h + down_bias[:, None]).reshape(y.shape)


def over_hidden(y: Rows, up, up_bias, down, down_bias) -> Rows:
    """Return the MLP over the numbers of each patch."""
    z = y.reshape(-1, y.shape[-1])
    h = jax.nn.relu(z @ up + up_bias[None])
    return (h @ down.T + down_bias[None]).reshape(y.shape)


def normalise(y: Rows) -> Rows:
    """Return each example with mean 0 and variance 1 over patches and numbers."""
    digits = y.astype(wide(y.dtype))
    centred = digits - jnp.mean(digits, axis=(0, 2), keepdims=True)
    variance = jnp.mean(centred**2, axis=(0, 2), keepdims=True)
    return (centred * jax.lax.rsqrt(variance + 1e-5)).astype(y.dtype)
