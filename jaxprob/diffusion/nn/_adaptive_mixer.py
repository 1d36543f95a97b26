"""A Mixer whose norms depend on the noise and the condition."""

from collections.abc import Sequence

import equinox as eqx
import jax
from jaxtyping import Array, Float

from ..._jaxpr.batch_second import batch_second
from ..._random.keys import check_key
from ..._types import PRNGKey
from ._condition import AbstractConditioned, Condition
from ._embedding import Embedding, embedded
from ._images import (
    as_image_shape,
    check_image,
    check_patches,
    from_patches,
    into_patches,
    zeroed,
)
from ._mixing import Mixing, normalise, over_hidden, over_patches


class AdaptiveMixer2d(AbstractConditioned):
    r"""MLP-Mixer for images whose norms are scaled and shifted by the embedding.

    $$y \leftarrow y + g(e)\,\mathrm{mix}\big[(1 + a(e))\,\mathrm{norm}(y) + b(e)\big]$$

    once over patches and once over the numbers of each patch, with a, b and g linear in
    the embedding e and zero at first. `Mixer2d` reads the time from one more channel of
    the image, which norms make weak, and takes no condition.

    Reference: *MLP-Mixer: An all-MLP Architecture for Vision*, Tolstikhin et al., 2021;
    the modulation as in *Scalable Diffusion Models with Transformers*, Peebles and Xie,
    2023.

    ```python
    net = AdaptiveMixer2d((1, 28, 28), patch_size=4, num_classes=10, key=key)
    denoiser = Preconditioned(net, VP.linear())
    ```

    **Arguments:**

    - `image_shape`: channels, height, width.
    - `patch_size`: side of a patch; divides height and width.
    - `hidden_size`: numbers per patch.
    - `mix_patch_size`, `mix_hidden_size`: widths of the MLPs that mix patches and
        numbers.
    - `num_blocks`: mixer blocks.
    - `num_classes`, `cond_dim`: kind of condition, as in `Embedding`.
    - `key`: of the initial weights.

    **Raises:** `ValueError` when the patch size does not divide the image.
    """

    embedding: Embedding
    patch_in: eqx.nn.Linear
    blocks: list["AdaptiveMixerBlock"]
    modulation: eqx.nn.Linear
    patch_out: eqx.nn.Linear
    image_shape: tuple[int, int, int] = eqx.field(static=True)
    patch_size: int = eqx.field(static=True)

    def __init__(
        self,
        image_shape: Sequence[int],
        patch_size: int = 4,
        hidden_size: int = 64,
        mix_patch_size: int = 512,
        mix_hidden_size: int = 512,
        num_blocks: int = 4,
        *,
        num_classes: int | None = None,
        cond_dim: int | None = None,
        key: PRNGKey,
    ):
        image_shape = as_image_shape(image_shape)
        check_key(key)
        num_patches = check_patches(image_shape, patch_size)
        channels = image_shape[0]
        pixels = channels * patch_size**2
        embed_key, in_key, mod_key, out_key, blocks_key = jax.random.split(key, 5)
        self.embedding = Embedding(
            hidden_size, num_classes=num_classes, cond_dim=cond_dim, key=embed_key
        )
        self.patch_in = eqx.nn.Linear(pixels, hidden_size, key=in_key)
        self.blocks = [
            AdaptiveMixerBlock(
                num_patches,
                hidden_size,
                mix_patch_size,
                mix_hidden_size,
                key=jax.random.fold_in(blocks_key, i),
            )
            for i in range(num_blocks)
        ]
        self.modulation = zeroed(
            eqx.nn.Linear(hidden_size, 2 * hidden_size, key=mod_key)
        )
        self.patch_out = zeroed(eqx.nn.Linear(hidden_size, pixels, key=out_key))
        self.image_shape = image_shape
        self.patch_size = patch_size

    @property
    def reader(self) -> Embedding:
        return self.embedding

    def __call__(
        self,
        x: Float[Array, "channels height width"],
        c: Float[Array, ""],
        cond: Array | Condition | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "channels height width"]:
        """Return the output for the image `x` with noise `c`; `key` is not used."""
        check_image(self, x)
        e = embedded(self.embedding, c, cond, x.dtype)
        y = into_patches(self.patch_in, x, self.patch_size)
        for block in self.blocks:
            y = block(y, e)
        y = _last_norm(y, self.modulation(e).reshape(2, -1))
        return from_patches(self.patch_out, y, x.shape[1:], self.patch_size)


def _block(y, modulation, *weights):
    shift1, scale1, gate1, shift2, scale2, gate2 = modulation
    z = normalise(y) * (1.0 + scale1[None]) + shift1[None]
    y = y + gate1[None] * over_patches(z, *weights[:4])
    z = normalise(y) * (1.0 + scale2[None]) + shift2[None]
    return y + gate2[None] * over_hidden(z, *weights[4:])


def _modulated_norm(y, modulation):
    scale, shift = modulation
    return normalise(y) * (1.0 + scale[None]) + shift[None]


_block_of_one = batch_second(_block, 2, "adaptive_mixer_block")
_last_norm = batch_second(_modulated_norm, 2, "modulated_norm")


class AdaptiveMixerBlock(eqx.Module):
    """One block of `AdaptiveMixer2d`, on an example `y` with the embedding `e`.

    **Arguments:** as in `MixerBlock`; the embedding has `hidden_size` numbers.
    """

    patch_mixer: Mixing
    hidden_mixer: Mixing
    modulation: eqx.nn.Linear

    def __init__(
        self,
        num_patches: int,
        hidden_size: int,
        mix_patch_size: int,
        mix_hidden_size: int,
        *,
        key: PRNGKey,
    ):
        patch_key, hidden_key, mod_key = jax.random.split(key, 3)
        self.patch_mixer = Mixing(num_patches, mix_patch_size, key=patch_key)
        self.hidden_mixer = Mixing(hidden_size, mix_hidden_size, key=hidden_key)
        modulation = eqx.nn.Linear(hidden_size, 6 * hidden_size, key=mod_key)
        self.modulation = zeroed(modulation)

    def __call__(
        self, y: Float[Array, "patches hidden"], e: Float[Array, " hidden"]
    ) -> Float[Array, "patches hidden"]:
        """Return the patches `y`, mixed under the vector `e` of noise and condition."""
        return _block_of_one(
            y,
            self.modulation(e).reshape(6, -1),
            *self.patch_mixer.weights,
            *self.hidden_mixer.weights,
        )
