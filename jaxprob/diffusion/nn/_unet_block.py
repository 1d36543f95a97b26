"""The residual block of the U-Net."""

import math

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Float

from ..._types import PRNGKey
from ._attention import CrossAttention, SelfAttention
from ._images import zeroed

CONVOLUTIONS = {1: eqx.nn.Conv1d, 2: eqx.nn.Conv2d, 3: eqx.nn.Conv3d}
"""Convolutions by the number of axes."""


class UNetBlock(eqx.Module):
    """A residual block of two convolutions and, optionally, attention over pixels.

    Pixels attend to one another, and then to the tokens of a condition, if any.

    **Arguments:**

    - `in_channels`, `out_channels`: channels of input and output.
    - `dim`: size of the embedding.
    - `num_heads`: of the attention; 0 for none.
    - `num_axes`: 1 for signals, 2 for images, 3 for volumes.
    - `token_dim`: size of a token of the condition; 0 for none.
    - `dropout`: probability with which a number before the second convolution is left
        out in training.
    - `key`: of the initial weights.
    """

    norm1: eqx.nn.GroupNorm
    conv1: eqx.nn.Conv
    modulation: eqx.nn.Linear
    norm2: eqx.nn.GroupNorm
    conv2: eqx.nn.Conv
    skip: eqx.nn.Conv | None
    norm3: eqx.nn.GroupNorm | None
    attention: SelfAttention | None
    norm4: eqx.nn.GroupNorm | None
    cross: CrossAttention | None
    dropout: eqx.nn.Dropout | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dim: int,
        *,
        num_heads: int = 0,
        num_axes: int = 2,
        token_dim: int = 0,
        dropout: float = 0.0,
        key: PRNGKey,
    ):
        conv = CONVOLUTIONS[num_axes]
        key1, mod_key, key2, skip_key, attention_key = jax.random.split(key, 5)
        self.norm1 = group_norm(in_channels)
        self.conv1 = conv(in_channels, out_channels, 3, padding=1, key=key1)
        self.modulation = eqx.nn.Linear(dim, 2 * out_channels, key=mod_key)
        self.norm2 = group_norm(out_channels, affine=False)
        self.conv2 = zeroed(conv(out_channels, out_channels, 3, padding=1, key=key2))
        self.skip = self.norm3 = self.attention = self.norm4 = self.cross = None
        self.dropout = eqx.nn.Dropout(dropout) if dropout else None
        if in_channels != out_channels:
            self.skip = conv(in_channels, out_channels, 1, key=skip_key)
        if num_heads:
            self.norm3 = group_norm(out_channels)
            attention = SelfAttention(out_channels, num_heads, key=attention_key)
            self.attention = eqx.tree_at(lambda a: a.out, attention, replace_fn=zeroed)
        if num_heads and token_dim:
            self.norm4 = group_norm(out_channels)
            cross_key = jax.random.fold_in(attention_key, 1)
            self.cross = CrossAttention(
                out_channels, token_dim, num_heads, key=cross_key
            )

    def __call__(
        self,
        x: Float[Array, "in_channels *spatial"],
        e: Float[Array, " dim"],
        tokens: Float[Array, "tokens token_dim"] | None = None,
        mask: Bool[Array, " tokens"] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "out_channels *spatial"]:
        """Return the block's output; `mask` says which tokens are there."""
        h = self.conv1(jax.nn.silu(self.norm1(x)))
        scale, shift = self.modulation(e).reshape(2, -1, *[1] * (h.ndim - 1))
        h = jax.nn.silu((1.0 + scale) * self.norm2(h) + shift)
        if self.dropout is not None:
            h = self.dropout(h, key=key)
        h = self.conv2(h)
        h = h + (x if self.skip is None else self.skip(x))
        if self.attention is not None:
            assert self.norm3 is not None
            h = h + _as_pixels(self.attention(_as_rows(self.norm3(h))), h)
        if self.cross is not None and tokens is not None:
            assert self.norm4 is not None
            h = h + _as_pixels(self.cross(_as_rows(self.norm4(h)), tokens, mask), h)
        return h


def _as_rows(h):
    return h.reshape(h.shape[0], -1).T


def _as_pixels(rows, h):
    return rows.T.reshape(h.shape)


def group_norm(channels: int, *, affine: bool = True) -> eqx.nn.GroupNorm:
    """Return the norm of groups of at most an eighth of the channels."""
    groups = math.gcd(channels, 8)
    return eqx.nn.GroupNorm(groups, channels, channelwise_affine=affine)
