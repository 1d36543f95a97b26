"""The diffusion transformer."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._random.keys import check_key
from ..._types import PRNGKey
from .._types import Cond
from ._attention import CrossAttention, SelfAttention
from ._build import Readers, build_readers, with_in_channels
from ._condition import AbstractConditioned, AbstractReader
from ._digits import wide
from ._embedding import Embedding
from ._images import (
    as_shape,
    as_sizes,
    check_image,
    cropped,
    from_patches,
    into_patches,
    linear,
    padded,
    zeroed,
)
from ._kinds import Kinds
from ._parts import ConditionReader


class DiT(AbstractConditioned):
    r"""A transformer over the patches of a signal, image or volume, with adaLN-Zero.

    Norms are scaled and shifted, and branches gated, by linear maps of the embedding
    that are zero at first, so that each block begins as the identity. Sizes that
    patches do not tile are padded inside by repeating the edges, and the output is
    cropped.

    Reference: *Scalable Diffusion Models with Transformers*, Peebles and Xie, 2023.

    ```python
    net = DiT((3, 32, 32), patch_size=4, width=256, depth=8, num_classes=10, key=key)
    ```

    **Arguments:**

    - `image_shape`: channels and sizes of one example: (channels, length), (channels,
        height, width) or (channels, depth, height, width).
    - `patch_size`: side of a patch, or one for each axis.
    - `width`: numbers per patch.
    - `depth`: number of blocks.
    - `num_heads`: of the attention; divides `width`.
    - `mlp_ratio`: width of the MLPs over `width`.
    - `num_classes`, `cond_dim`: kind of condition, as in `Embedding`.
    - `conditions`, `in_channels`, `out_channels`: as in `UNet`; every block reads a
        sequence.
    - `dropout`: probability with which outputs of attention and MLPs are left out in
        training, which then needs a `key`.
    - `key`: of the initial weights.

    **Raises:** `ValueError` when the heads do not divide the width.
    """

    embedding: Embedding
    conditions: ConditionReader | None
    patch_in: eqx.nn.Linear
    positions: Float[Array, "patches width"]
    blocks: list["DiTBlock"]
    modulation: eqx.nn.Linear
    patch_out: eqx.nn.Linear
    image_shape: tuple[int, ...] = eqx.field(static=True)
    patch_size: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        image_shape: Sequence[int],
        patch_size: int | tuple[int, ...] = 4,
        *,
        width: int = 128,
        depth: int = 6,
        num_heads: int = 4,
        mlp_ratio: int = 4,
        num_classes: int | None = None,
        cond_dim: int | None = None,
        conditions: Kinds | None = None,
        in_channels: int | None = None,
        out_channels: int | None = None,
        dropout: float = 0.0,
        key: PRNGKey,
    ):
        image_shape = as_shape(image_shape)
        check_key(key)
        channels, *spatial = image_shape
        patch_size = as_sizes(patch_size, len(spatial))
        counts = [-(-n // p) for n, p in zip(spatial, patch_size, strict=True)]
        pixels = math.prod(patch_size)
        keys = jax.random.split(key, 6)
        embed_key, in_key, position_key, mod_key, out_key, blocks_key = keys
        conditions = with_in_channels(conditions, channels, in_channels)
        self.embedding, self.conditions = build_readers(
            width, conditions, num_classes, cond_dim, key=embed_key
        )
        beside = 0 if self.conditions is None else self.conditions.num_channels
        reads = self.conditions is not None and self.conditions.has_tokens
        self.patch_in = eqx.nn.Linear((channels + beside) * pixels, width, key=in_key)
        self.positions = 0.02 * jax.random.normal(
            position_key, (math.prod(counts), width)
        )
        self.blocks = [
            DiTBlock(
                width,
                num_heads,
                mlp_ratio,
                token_dim=width * reads,
                dropout=dropout,
                key=jax.random.fold_in(blocks_key, i),
            )
            for i in range(depth)
        ]
        self.modulation = zeroed(eqx.nn.Linear(width, 2 * width, key=mod_key))
        out = (out_channels or channels) * pixels
        self.patch_out = zeroed(eqx.nn.Linear(width, out, key=out_key))
        self.image_shape = image_shape
        self.patch_size = patch_size

    @property
    def reader(self) -> AbstractReader:
        return Readers(self.embedding, self.conditions).reader

    def __call__(
        self,
        x: Float[Array, "channels *spatial"],
        c: Float[Array, ""],
        cond: Cond = None,
        *,
        mask: Bool[Array, "..."] | None = None,
        key: PRNGKey | None = None,
    ) -> Float[Array, "out_channels *spatial"]:
        """Return the output for the example `x` with noise `c`.

        **Arguments:**

        - `x`, `c`, `cond`: example, noise and condition.
        - `mask`: True for patches that may be attended to, `(patches,)`, or for pairs
            of them, `(patches, patches)`, the patch that attends first. Patches are in
            the order of the example's axes.
        - `key`: needed in training where there is dropout.
        """
        check_image(self, x)
        e, read = Readers(self.embedding, self.conditions)(x, c, cond)
        h = x if read.channels is None else jnp.concatenate([x, read.channels])
        h = padded(h, self.patch_size)
        rows = into_patches(self.patch_in, h, self.patch_size) + self.positions
        for i, block in enumerate(self.blocks):
            block_key = None if key is None else jax.random.fold_in(key, i)
            rows = block(rows, e, read.tokens, read.mask, mask=mask, key=block_key)
        scale, shift = jnp.split(self.modulation(e), 2)
        rows = _modulated_norm(rows, scale, shift)
        out = from_patches(self.patch_out, rows, h.shape[1:], self.patch_size)
        return cropped(out, x.shape[1:], self.patch_size)


class DiTBlock(eqx.Module):
    """Attention and an MLP, modulated by the embedding `e`.

    **Arguments:** as in `DiT`; `token_dim` is the size of a token of the condition, 0
    for none.
    """

    attention: SelfAttention
    cross: CrossAttention | None
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    modulation: eqx.nn.Linear
    dropout: eqx.nn.Dropout | None

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_ratio: int,
        *,
        token_dim: int = 0,
        dropout: float = 0.0,
        key: PRNGKey,
    ):
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout} is a probability, in [0, 1)")
        attention_key, up_key, down_key, mod_key = jax.random.split(key, 4)
        self.attention = SelfAttention(width, num_heads, key=attention_key)
        self.cross = None
        if token_dim:
            cross_key = jax.random.fold_in(attention_key, 1)
            self.cross = CrossAttention(width, token_dim, num_heads, key=cross_key)
        self.up = eqx.nn.Linear(width, mlp_ratio * width, key=up_key)
        self.down = eqx.nn.Linear(mlp_ratio * width, width, key=down_key)
        self.modulation = zeroed(eqx.nn.Linear(width, 6 * width, key=mod_key))
        self.dropout = eqx.nn.Dropout(dropout) if dropout else None

    def __call__(
        self,
        rows: Float[Array, "rows width"],
        e: Float[Array, " width"],
        tokens: Float[Array, "tokens token_dim"] | None = None,
        token_mask: Bool[Array, " tokens"] | None = None,
        *,
        mask: Bool[Array, "..."] | None = None,
        key: PRNGKey | None = None,
    ) -> Float[Array, "rows width"]:
        """Return the block's output; the masks say what may be attended to."""
        keys = (None, None) if key is None else jax.random.split(key)
        scale1, shift1, gate1, scale2, shift2, gate2 = jnp.split(self.modulation(e), 6)
        mixed = self.attention(_modulated_norm(rows, scale1, shift1), mask)
        rows = rows + gate1[None] * self._dropped(mixed, keys[0])
        if self.cross is not None and tokens is not None:
            zero = jnp.zeros_like(scale1)
            normed = _modulated_norm(rows, zero, zero)
            rows = rows + self.cross(normed, tokens, token_mask)
        hidden = linear(self.up, _modulated_norm(rows, scale2, shift2))
        out = linear(self.down, jax.nn.gelu(hidden))
        return rows + gate2[None] * self._dropped(out, keys[1])

    def _dropped(self, rows, key):
        return rows if self.dropout is None else self.dropout(rows, key=key)


def _modulated_norm(rows, scale, shift):
    digits = rows.astype(wide(rows.dtype))
    normed = jax.nn.standardize(digits, axis=-1, epsilon=1e-6).astype(rows.dtype)
    return normed * (1.0 + scale[None]) + shift[None]
