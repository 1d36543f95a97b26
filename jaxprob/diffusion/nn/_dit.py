"""The diffusion transformer."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._random.keys import check_key
from ..._types import PRNGKey
from ._attention import SelfAttention
from ._condition import AbstractConditioned, Condition
from ._digits import wide
from ._embedding import Embedding, embedded
from ._images import (
    as_image_shape,
    check_image,
    check_patches,
    from_patches,
    into_patches,
    linear,
    zeroed,
)


class DiT(AbstractConditioned):
    r"""A transformer over the patches of an image, with adaLN-Zero.

    Norms are scaled and shifted, and branches gated, by linear maps of the embedding
    that are zero at first, so that each block begins as the identity.

    Reference: *Scalable Diffusion Models with Transformers*, Peebles and Xie, 2023.

    ```python
    net = DiT((3, 32, 32), patch_size=4, width=256, depth=8, num_classes=10, key=key)
    ```

    **Arguments:**

    - `image_shape`: channels, height, width.
    - `patch_size`: side of a patch; divides height and width.
    - `width`: numbers per patch.
    - `depth`: number of blocks.
    - `num_heads`: of the attention; divides `width`.
    - `mlp_ratio`: width of the MLPs over `width`.
    - `num_classes`, `cond_dim`: kind of condition, as in `Embedding`.
    - `key`: of the initial weights.

    **Raises:** `ValueError` when the patch size does not divide the image or the heads
    do not divide the width.
    """

    embedding: Embedding
    patch_in: eqx.nn.Linear
    positions: Float[Array, "patches width"]
    blocks: list["DiTBlock"]
    modulation: eqx.nn.Linear
    patch_out: eqx.nn.Linear
    image_shape: tuple[int, int, int] = eqx.field(static=True)
    patch_size: int = eqx.field(static=True)

    def __init__(
        self,
        image_shape: Sequence[int],
        patch_size: int = 4,
        *,
        width: int = 128,
        depth: int = 6,
        num_heads: int = 4,
        mlp_ratio: int = 4,
        num_classes: int | None = None,
        cond_dim: int | None = None,
        key: PRNGKey,
    ):
        image_shape = as_image_shape(image_shape)
        check_key(key)
        num_patches = check_patches(image_shape, patch_size)
        pixels = image_shape[0] * patch_size**2
        keys = jax.random.split(key, 6)
        embed_key, in_key, position_key, mod_key, out_key, blocks_key = keys
        self.embedding = Embedding(
            width, num_classes=num_classes, cond_dim=cond_dim, key=embed_key
        )
        self.patch_in = eqx.nn.Linear(pixels, width, key=in_key)
        self.positions = 0.02 * jax.random.normal(position_key, (num_patches, width))
        self.blocks = [
            DiTBlock(width, num_heads, mlp_ratio, key=jax.random.fold_in(blocks_key, i))
            for i in range(depth)
        ]
        self.modulation = zeroed(eqx.nn.Linear(width, 2 * width, key=mod_key))
        self.patch_out = zeroed(eqx.nn.Linear(width, pixels, key=out_key))
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
        rows = into_patches(self.patch_in, x, self.patch_size) + self.positions
        for block in self.blocks:
            rows = block(rows, e)
        scale, shift = jnp.split(self.modulation(e), 2)
        rows = _modulated_norm(rows, scale, shift)
        return from_patches(self.patch_out, rows, x.shape[1], self.patch_size)


class DiTBlock(eqx.Module):
    """Attention and an MLP, modulated by the embedding `e`.

    **Arguments:** as in `DiT`.
    """

    attention: SelfAttention
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    modulation: eqx.nn.Linear

    def __init__(self, width: int, num_heads: int, mlp_ratio: int, *, key: PRNGKey):
        attention_key, up_key, down_key, mod_key = jax.random.split(key, 4)
        self.attention = SelfAttention(width, num_heads, key=attention_key)
        self.up = eqx.nn.Linear(width, mlp_ratio * width, key=up_key)
        self.down = eqx.nn.Linear(mlp_ratio * width, width, key=down_key)
        self.modulation = zeroed(eqx.nn.Linear(width, 6 * width, key=mod_key))

    def __call__(
        self, rows: Float[Array, "rows width"], e: Float[Array, " width"]
    ) -> Float[Array, "rows width"]:
        scale1, shift1, gate1, scale2, shift2, gate2 = jnp.split(self.modulation(e), 6)
        mixed = self.attention(_modulated_norm(rows, scale1, shift1))
        rows = rows + gate1[None] * mixed
        hidden = linear(self.up, _modulated_norm(rows, scale2, shift2))
        return rows + gate2[None] * linear(self.down, jax.nn.gelu(hidden))


def _modulated_norm(rows, scale, shift):
    digits = rows.astype(wide(rows.dtype))
    normed = jax.nn.standardize(digits, axis=-1, epsilon=1e-6).astype(rows.dtype)
    return normed * (1.0 + scale[None]) + shift[None]
