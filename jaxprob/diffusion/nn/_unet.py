"""The U-Net of diffusion models."""

from collections.abc import Sequence
from itertools import count

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._random.keys import check_key
from ..._types import PRNGKey
from .._types import Cond
from ._build import Readers, build_readers, with_in_channels
from ._condition import AbstractConditioned, AbstractReader
from ._embedding import Embedding
from ._images import as_shape, check_image, cropped, padded, zeroed
from ._kinds import Kinds
from ._parts import ConditionReader
from ._unet_block import CONVOLUTIONS, UNetBlock, group_norm


class UNet(AbstractConditioned):
    r"""Residual blocks at falling and rising resolutions, with skips between them.

    Each level has half the sizes of the one before. Norms inside residual blocks are
    scaled and shifted by the embedding of noise level and condition. Signals, images
    and volumes have one, two and three axes; sizes that cannot be halved as often as
    there are levels are padded inside by repeating the edges, and the output is
    cropped.

    Reference: *Denoising Diffusion Probabilistic Models*, Ho et al., 2020; the blocks
    as in *Diffusion Models Beat GANs on Image Synthesis*, Dhariwal and Nichol, 2021.

    ```python
    net = UNet((1, 28, 28), widths=(32, 64, 64), attention_at=(7,), key=key)
    denoiser = Preconditioned(net, VP.linear())
    ```

    **Arguments:**

    - `image_shape`: channels and sizes of one example: (channels, length), (channels,
        height, width) or (channels, depth, height, width).
    - `widths`: channels of each level, the finest first.
    - `blocks_per_level`: residual blocks going down; one more coming up.
    - `attention_at`: first sizes (heights of images), after padding, of the levels
        whose blocks are followed by attention. The middle, at the coarsest level,
        always has it.
    - `num_heads`: of the attention; divides the widths there.
    - `num_classes`, `cond_dim`: kind of condition, as in `Embedding`.
    - `conditions`: other kinds, or several by name, e.g. `nn.ImageCondition(1)`, an
        image beside the example, or `nn.SequenceCondition(16)`, which blocks with
        attention read.
    - `in_channels`: channels of the first layer. More than the example's are those of
        an image condition.
    - `out_channels`: channels of the output; by default those of the example.
    - `dropout`: probability with which numbers inside blocks are left out in training,
        which then needs a `key`.
    - `key`: of the initial weights.

    **Raises:** `ValueError` when sizes do not fit.
    """

    embedding: Embedding
    conditions: ConditionReader | None
    conv_in: eqx.nn.Conv
    down: list[list["UNetBlock"]]
    shrink: list[eqx.nn.Conv]
    middle: tuple["UNetBlock", "UNetBlock"]
    up: list[list["UNetBlock"]]
    grow: list[eqx.nn.Conv]
    norm: eqx.nn.GroupNorm
    conv_out: eqx.nn.Conv
    image_shape: tuple[int, ...] = eqx.field(static=True)

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
        conditions: Kinds | None = None,
        in_channels: int | None = None,
        out_channels: int | None = None,
        dropout: float = 0.0,
        key: PRNGKey,
    ):
        image_shape = as_shape(image_shape)
        check_key(key)
        channels, *spatial = image_shape
        _check_sizes(widths, dropout)
        factor = 2 ** (len(widths) - 1)
        heights = [(spatial[0] + -spatial[0] % factor) >> i for i in range(len(widths))]
        _check_attention(attention_at, heights)
        keys = (jax.random.fold_in(key, i) for i in range(10_000))
        dim, axes = 4 * widths[0], len(spatial)
        conditions = with_in_channels(conditions, channels, in_channels)
        self.embedding, self.conditions = build_readers(
            dim, conditions, num_classes, cond_dim, key=next(keys)
        )
        beside = 0 if self.conditions is None else self.conditions.num_channels
        reads = self.conditions is not None and self.conditions.has_tokens
        settings = {"num_axes": axes, "token_dim": dim * reads, "dropout": dropout}

        def block(narrow, wide, attention):
            heads = num_heads if attention else 0
            return UNetBlock(
                narrow, wide, dim, num_heads=heads, **settings, key=next(keys)
            )

        def conv(narrow, wide, stride=1):
            return CONVOLUTIONS[axes](
                narrow, wide, 3, stride=stride, padding=1, key=next(keys)
            )

        self.conv_in = conv(channels + beside, widths[0])
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
        self.norm = group_norm(now)
        self.conv_out = zeroed(conv(now, out_channels or channels))
        self.image_shape = image_shape

    @property
    def reader(self) -> AbstractReader:
        return Readers(self.embedding, self.conditions).reader

    def __call__(
        self,
        x: Float[Array, "channels *spatial"],
        c: Float[Array, ""],
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "out_channels *spatial"]:
        """Return the output for the example `x` with noise `c`.

        `key` is needed in training where there is dropout.
        """
        check_image(self, x)
        e, read = Readers(self.embedding, self.conditions)(x, c, cond)
        keys = (None if key is None else jax.random.fold_in(key, i) for i in count())

        def through(block, h):
            return block(h, e, read.tokens, read.mask, key=next(keys))

        h = x if read.channels is None else jnp.concatenate([x, read.channels])
        factors = [2 ** len(self.grow)] * (x.ndim - 1)
        h = self.conv_in(padded(h, factors))
        skips = [h]
        for level, blocks in enumerate(self.down):
            for block in blocks:
                h = through(block, h)
                skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
                skips.append(h)
        for block in self.middle:
            h = through(block, h)
        for level, blocks in enumerate(self.up):
            for block in blocks:
                h = through(block, jnp.concatenate([h, skips.pop()]))
            if level < len(self.grow):
                for axis in range(1, h.ndim):
                    h = jnp.repeat(h, 2, axis=axis)
                h = self.grow[level](h)
        return cropped(self.conv_out(jax.nn.silu(self.norm(h))), x.shape[1:], factors)


def _check_sizes(widths, dropout):
    if not widths:
        raise ValueError("widths=(): a UNet has at least one level")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout={dropout} is a probability, in [0, 1)")


def _check_attention(attention_at, heights):
    unknown = set(attention_at) - set(heights)
    if unknown:
        raise ValueError(
            f"attention_at={attention_at} names heights that no level has; levels "
            f"have {heights}"
        )
