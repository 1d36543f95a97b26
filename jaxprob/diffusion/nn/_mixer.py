"""The MLP-Mixer of Equinox's diffusion example."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._jaxpr.batch_second import batch_second
from ..._random.keys import check_key
from ..._types import PRNGKey
from ._images import (
    as_image,
    as_image_shape,
    check_image,
    check_patches,
    into_patches,
)
from ._mixing import Mixing, normalise, over_hidden, over_patches


class Mixer2d(eqx.Module):
    r"""MLP-Mixer for images, with the time as one more channel.

    With the same weights it is the function of Equinox's score-based diffusion example
    (`tests/diffusion/nn/test_networks.py`), in products of matrices.

    Reference: *MLP-Mixer: An all-MLP Architecture for Vision*, Tolstikhin et al., 2021;
    *On Neural Differential Equations*, Kidger, 2021.

    ```python
    net = Mixer2d((1, 28, 28), patch_size=4, hidden_size=64, mix_patch_size=512,
                  mix_hidden_size=512, num_blocks=4, t_max=10.0, key=key)
    ```

    **Arguments:**

    - `image_shape`: channels, height, width.
    - `patch_size`: side of a patch; divides height and width.
    - `hidden_size`: numbers per patch.
    - `mix_patch_size`, `mix_hidden_size`: widths of the MLPs that mix patches and
        numbers.
    - `num_blocks`: mixer blocks.
    - `t_max`: divisor of `c` before it becomes a channel: the schedule's end with
        `condition_on="time"`, 1 with `condition_on="noise"`.
    - `key`: of the initial weights.

    **Raises:** `ValueError` when the patch size does not divide the image, at
    construction and at calls.
    """

    patch_in: eqx.nn.Linear
    blocks: list["MixerBlock"]
    norm: eqx.nn.LayerNorm
    patch_out: Float[Array, "hidden pixels"]
    bias_out: Float[Array, " channels"]
    image_shape: tuple[int, int, int] = eqx.field(static=True)
    patch_size: int = eqx.field(static=True)
    t_max: float = eqx.field(static=True)

    def __init__(
        self,
        image_shape: Sequence[int],
        patch_size: int,
        hidden_size: int,
        mix_patch_size: int,
        mix_hidden_size: int,
        num_blocks: int,
        *,
        t_max: float = 1.0,
        key: PRNGKey,
    ):
        image_shape = as_image_shape(image_shape)
        check_key(key)
        channels = image_shape[0]
        num_patches = check_patches(image_shape, patch_size)
        in_key, out_key, blocks_key = jax.random.split(key, 3)
        self.patch_in = eqx.nn.Linear(
            (channels + 1) * patch_size**2, hidden_size, key=in_key
        )
        self.blocks = [
            MixerBlock(
                num_patches,
                hidden_size,
                mix_patch_size,
                mix_hidden_size,
                key=jax.random.fold_in(blocks_key, i),
            )
            for i in range(num_blocks)
        ]
        self.norm = eqx.nn.LayerNorm((num_patches, hidden_size))
        # Equinox's initialisation of the transposed convolution this stands for.
        limit = 1.0 / math.sqrt(channels * patch_size**2)
        weight_key, bias_key = jax.random.split(out_key)
        self.patch_out = jax.random.uniform(
            weight_key, (hidden_size, channels * patch_size**2), None, -limit, limit
        )
        self.bias_out = jax.random.uniform(bias_key, (channels,), None, -limit, limit)
        self.image_shape = image_shape
        self.patch_size = patch_size
        self.t_max = float(t_max)

    def __call__(
        self,
        x: Float[Array, "channels height width"],
        c: Float[Array, ""],
        cond: Array | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "channels height width"]:
        """Return the output for the image `x` at time `c`; `key` is not used."""
        check_image(self, x)
        if cond is not None:
            raise ValueError("Mixer2d takes no condition")
        _, height, width = x.shape
        p = self.patch_size
        time = jnp.full((1, height, width), c / self.t_max, x.dtype)
        y = into_patches(self.patch_in, jnp.concatenate([x, time]), p)
        for block in self.blocks:
            y = block(y)
        out = as_image(self.norm(y) @ self.patch_out, x.shape[1:], p)
        return out + self.bias_out[:, None, None]


def _block(y, scale1, shift1, *rest):
    patches, (scale2, shift2), hidden = rest[:4], rest[4:6], rest[6:]
    z = normalise(y) * scale1[:, None] + shift1[:, None]
    y = y + over_patches(z, *patches)
    z = normalise(y) * scale2[:, None] + shift2[:, None]
    return y + over_hidden(z, *hidden)


_block_of_one = batch_second(_block, 1, "mixer_block")


class MixerBlock(eqx.Module):
    """One block: mixing over patches, then over the numbers of each patch.

    The `vmap` of this function of one example is a few products of matrices that hold
    all examples, see `_mixing.py`.

    **Arguments:**

    - `num_patches`, `hidden_size`: shape of an example.
    - `mix_patch_size`, `mix_hidden_size`: widths of the two MLPs.
    - `key`: of the initial weights.
    """

    patch_mixer: Mixing
    hidden_mixer: Mixing
    norm1: tuple[Float[Array, "patches hidden"], Float[Array, "patches hidden"]]
    norm2: tuple[Float[Array, "patches hidden"], Float[Array, "patches hidden"]]

    def __init__(
        self,
        num_patches: int,
        hidden_size: int,
        mix_patch_size: int,
        mix_hidden_size: int,
        *,
        key: PRNGKey,
    ):
        patch_key, hidden_key = jax.random.split(key)
        self.patch_mixer = Mixing(num_patches, mix_patch_size, key=patch_key)
        self.hidden_mixer = Mixing(hidden_size, mix_hidden_size, key=hidden_key)
        shape = (num_patches, hidden_size)
        self.norm1 = jnp.ones(shape), jnp.zeros(shape)
        self.norm2 = jnp.ones(shape), jnp.zeros(shape)

    def __call__(
        self, y: Float[Array, "patches hidden"]
    ) -> Float[Array, "patches hidden"]:
        """Return the patches `y` after mixing over patches and over channels."""
        return _block_of_one(
            y,
            *self.norm1,
            *self.patch_mixer.weights,
            *self.norm2,
            *self.hidden_mixer.weights,
        )
