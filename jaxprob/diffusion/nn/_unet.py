"""The U-Net of diffusion models."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._random.keys import check_key
from ..._types import PRNGKey
from ._attention import SelfAttention
from ._condition import AbstractConditioned, Condition
from ._embedding import Embedding, embedded
from ._images import as_image_shape, check_image, zeroed


class UNet(AbstractConditioned):
    r"""Residual blocks at falling and rising resolutions, with skips between them.

    Each level has half the height and width of the one before. Norms inside residual
    blocks are scaled and shifted by the embedding of noise level and condition.

    Reference: *Denoising Diffusion Probabilistic Models*, Ho et al., 2020; the blocks
    as in *Diffusion Models Beat GANs on Image Synthesis*, Dhariwal and Nichol, 2021.

    ```python
    net = UNet((1, 28, 28), widths=(32, 64, 64), attention_at=(7,), key=key)
    denoiser = Preconditioned(net, VP.linear())
    ```

    **Arguments:**

    - `image_shape`: channels, height, width. Height and width divide by 2 once less
        than there are levels.
    - `widths`: channels of each level, the finest first.
    - `blocks_per_level`: residual blocks going down; one more coming up.
    - `attention_at`: heights of the levels whose blocks are followed by attention. The
        middle, at the coarsest level, always has it.
    - `num_heads`: of the attention; divides the widths there.
    - `num_classes`, `cond_dim`: kind of condition, as in `Embedding`.
    - `key`: of the initial weights.

    **Raises:** `ValueError` when sizes do not fit.
    """

    embedding: Embedding
    conv_in: eqx.nn.Conv2d
    down: list[list["UNetBlock"]]
    shrink: list[eqx.nn.Conv2d]
    middle: tuple["UNetBlock", "UNetBlock"]
    up: list[list["UNetBlock"]]
    grow: list[eqx.nn.Conv2d]
    norm: eqx.nn.GroupNorm
    conv_out: eqx.nn.Conv2d
    image_shape: tuple[int, int, int] = eqx.field(static=True)

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        widths: tuple[int, ...] = (32, 64, 64),
        blocks_per_level: int = 1,
        attention_at: tuple[int, ...] = (),
        num_heads: int = 4,
        num_classes: int | None = None,
        cond_dim: int | None = None,
        key: PRNGKey,
    ):
        image_shape = as_image_shape(image_shape)
        check_key(key)
        channels, height, _ = image_shape
        heights = [height >> level for level in range(len(widths))]
        _check_sizes(image_shape, widths, heights, attention_at)
        keys = (jax.random.fold_in(key, i) for i in range(10_000))
        dim = 4 * widths[0]

        def block(narrow, wide, attention):
            heads = num_heads if attention else 0
            return UNetBlock(narrow, wide, dim, num_heads=heads, key=next(keys))

        def conv(narrow, wide, stride=1):
            return eqx.nn.Conv2d(
                narrow, wide, 3, stride=stride, padding=1, key=next(keys)
            )

        self.embedding = Embedding(
            dim, num_classes=num_classes, cond_dim=cond_dim, key=next(keys)
        )
        self.conv_in = conv(channels, widths[0])
        now, skips = widths[0], [widths[0]]
        self.down, self.shrink, self.up, self.grow = [], [], [], []
        for level, wide in enumerate(widths):
            blocks = []
            for _ in range(blocks_per_level):
                blocks.append(block(now, wide, heights[level] in attention_at))
                now = wide
                skips.append(now)
            self.down.append(blocks)
            if level < len(widths) - 1:
                self.shrink.append(conv(now, now, stride=2))
                skips.append(now)
        self.middle = block(now, now, True), block(now, now, False)
        for level, wide in reversed(list(enumerate(widths))):
            blocks = []
            for _ in range(blocks_per_level + 1):
                attention = heights[level] in attention_at
                blocks.append(block(now + skips.pop(), wide, attention))
                now = wide
            self.up.append(blocks)
            if level > 0:
                self.grow.append(conv(now, now))
        self.norm = _group_norm(now)
        self.conv_out = zeroed(conv(now, channels))
        self.image_shape = image_shape

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
        h = self.conv_in(x)
        skips = [h]
        for level, blocks in enumerate(self.down):
            for block in blocks:
                h = block(h, e)
                skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
                skips.append(h)
        for block in self.middle:
            h = block(h, e)
        for level, blocks in enumerate(self.up):
            for block in blocks:
                h = block(jnp.concatenate([h, skips.pop()]), e)
            if level < len(self.grow):
                h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)
                h = self.grow[level](h)
        return self.conv_out(jax.nn.silu(self.norm(h)))


class UNetBlock(eqx.Module):
    """A residual block of two convolutions and, optionally, attention over pixels.

    **Arguments:**

    - `in_channels`, `out_channels`: channels of input and output.
    - `dim`: size of the embedding.
    - `num_heads`: of the attention; 0 for none.
    - `key`: of the initial weights.
    """

    norm1: eqx.nn.GroupNorm
    conv1: eqx.nn.Conv2d
    modulation: eqx.nn.Linear
    norm2: eqx.nn.GroupNorm
    conv2: eqx.nn.Conv2d
    skip: eqx.nn.Conv2d | None
    norm3: eqx.nn.GroupNorm | None
    attention: SelfAttention | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dim: int,
        *,
        num_heads: int = 0,
        key: PRNGKey,
    ):
        key1, mod_key, key2, skip_key, attention_key = jax.random.split(key, 5)
        self.norm1 = _group_norm(in_channels)
        self.conv1 = eqx.nn.Conv2d(in_channels, out_channels, 3, padding=1, key=key1)
        self.modulation = eqx.nn.Linear(dim, 2 * out_channels, key=mod_key)
        self.norm2 = _group_norm(out_channels, affine=False)
        self.conv2 = zeroed(
            eqx.nn.Conv2d(out_channels, out_channels, 3, padding=1, key=key2)
        )
        self.skip = self.norm3 = self.attention = None
        if in_channels != out_channels:
            self.skip = eqx.nn.Conv2d(in_channels, out_channels, 1, key=skip_key)
        if num_heads:
            self.norm3 = _group_norm(out_channels)
            attention = SelfAttention(out_channels, num_heads, key=attention_key)
            self.attention = eqx.tree_at(lambda a: a.out, attention, replace_fn=zeroed)

    def __call__(
        self, x: Float[Array, "in_channels height width"], e: Float[Array, " dim"]
    ) -> Float[Array, "out_channels height width"]:
        h = self.conv1(jax.nn.silu(self.norm1(x)))
        scale, shift = jnp.split(self.modulation(e), 2)
        h = (1.0 + scale[:, None, None]) * self.norm2(h) + shift[:, None, None]
        h = self.conv2(jax.nn.silu(h))
        h = h + (x if self.skip is None else self.skip(x))
        if self.attention is None:
            return h
        assert self.norm3 is not None
        rows = self.norm3(h).reshape(h.shape[0], -1).T
        return h + self.attention(rows).T.reshape(h.shape)


def _group_norm(channels: int, *, affine: bool = True) -> eqx.nn.GroupNorm:
    groups = math.gcd(channels, 8)
    return eqx.nn.GroupNorm(groups, channels, channelwise_affine=affine)


def _check_sizes(image_shape, widths, heights, attention_at):
    if not widths:
        raise ValueError("widths=(): a UNet has at least one level")
    factor = 2 ** (len(widths) - 1)
    for name, size in zip(("height", "width"), image_shape[1:], strict=True):
        if size % factor:
            most = 1
            while size % 2**most == 0:
                most += 1
            raise ValueError(
                f"{len(widths)} levels halve the image {len(widths) - 1} times, but "
                f"its {name} {size} does not divide by {factor}. Give at most {most} "
                f"widths, or pad or crop to {size + -size % factor}."
            )
    unknown = set(attention_at) - set(heights)
    if unknown:
        raise ValueError(
            f"attention_at={attention_at} names heights that no level has; levels "
            f"have {heights}"
        )
