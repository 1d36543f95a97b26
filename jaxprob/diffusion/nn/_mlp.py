"""A network for vectors."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._random.keys import check_key
from ..._types import PRNGKey
from .._types import Cond
from ._build import ROWS, Readers, build_readers
from ._condition import AbstractConditioned, AbstractReader
from ._embedding import Embedding
from ._kinds import Kinds
from ._parts import ConditionReader


class ResidualMLP(AbstractConditioned):
    r"""Residual MLP whose blocks are scaled and shifted by the embedding.

    $$h \leftarrow h + W_2\,\mathrm{silu}\big(W_1 [(1 + a(e))\,\mathrm{norm}(h)
      + b(e)]\big)$$

    The last layer starts at zero, so that a new denoiser with `predict="edm"` is the
    best linear one.

    Reference: *Deep Residual Learning for Image Recognition*, He et al., 2016; *FiLM:
    Visual Reasoning with a General Conditioning Layer*, Perez et al., 2018.

    ```python
    net = ResidualMLP(2, width=128, depth=3, key=key)
    denoiser = Preconditioned(net, VP.linear())
    ```

    **Arguments:**

    - `dim`: size of the vector.
    - `width`: of the residual stream.
    - `depth`: number of blocks.
    - `num_classes`, `cond_dim`: kind of condition, as in `Embedding`.
    - `conditions`: classes and vectors by name, as in `AbstractKind`.
    - `out_dim`: size of the output; by default `dim`.
    - `key`: of the initial weights.
    """

    embedding: Embedding
    conditions: ConditionReader | None
    first: eqx.nn.Linear
    blocks: list["ResidualBlock"]
    norm: eqx.nn.LayerNorm
    last: eqx.nn.Linear

    def __init__(
        self,
        dim: int,
        *,
        width: int = 128,
        depth: int = 3,
        num_classes: int | None = None,
        cond_dim: int | None = None,
        conditions: Kinds | None = None,
        out_dim: int | None = None,
        key: PRNGKey,
    ):
        check_key(key)
        embed_key, first_key, last_key, blocks_key = jax.random.split(key, 4)
        self.embedding, self.conditions = build_readers(
            width, conditions, num_classes, cond_dim, allowed=ROWS, key=embed_key
        )
        self.first = eqx.nn.Linear(dim, width, key=first_key)
        self.blocks = [
            ResidualBlock(width, key=jax.random.fold_in(blocks_key, i))
            for i in range(depth)
        ]
        self.norm = eqx.nn.LayerNorm(width)
        last = eqx.nn.Linear(width, out_dim or dim, key=last_key)
        self.last = jax.tree.map(jnp.zeros_like, last)

    @property
    def reader(self) -> AbstractReader:
        return Readers(self.embedding, self.conditions).reader

    def __call__(
        self,
        x: Float[Array, " dim"],
        c: Float[Array, ""],
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, " out_dim"]:
        """Return the output for the vector `x` with noise `c`; `key` is not used."""
        dim = self.first.in_features
        if x.shape != (dim,):
            remedy = "map over a batch with jax.vmap"
            if x.ndim == 1:
                remedy = f"give data of that size, or build it with dim={x.size}"
            raise ValueError(
                f"this ResidualMLP is for one vector of shape ({dim},); got shape "
                f"{x.shape}: {remedy}"
            )
        e, _ = Readers(self.embedding, self.conditions)(x, c, cond)
        h = self.first(x)
        for block in self.blocks:
            h = block(h, e)
        return self.last(jax.nn.silu(self.norm(h)))


class ResidualBlock(eqx.Module):
    """One block of `ResidualMLP`, on a vector `h` with the embedding `e`.

    **Arguments:**

    - `width`: size of both.
    - `hidden`: units of the layer inside; `width` by default.
    - `key`: of the initial weights.
    """

    norm: eqx.nn.LayerNorm
    modulation: eqx.nn.Linear
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self, width: int, hidden: int | None = None, *, key: PRNGKey):
        mod_key, up_key, down_key = jax.random.split(key, 3)
        hidden = width if hidden is None else hidden
        self.norm = eqx.nn.LayerNorm(width, use_weight=False, use_bias=False)
        self.modulation = eqx.nn.Linear(width, 2 * width, key=mod_key)
        self.up = eqx.nn.Linear(width, hidden, key=up_key)
        self.down = eqx.nn.Linear(hidden, width, key=down_key)

    def __call__(
        self, h: Float[Array, " width"], e: Float[Array, " width"]
    ) -> Float[Array, " width"]:
        """Return the hidden vector `h` plus its update under the vector `e`."""
        scale, shift = jnp.split(self.modulation(e), 2)
        inner = (1.0 + scale) * self.norm(h) + shift
        return h + self.down(jax.nn.silu(self.up(inner)))
