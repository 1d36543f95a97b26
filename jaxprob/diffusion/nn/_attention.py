"""Attention among the rows of one example, and from its rows to other tokens."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float

from ..._types import PRNGKey
from ._digits import wide
from ._images import linear, zeroed


class SelfAttention(eqx.Module):
    r"""$\mathrm{softmax}(Q K^T / \sqrt d)\,V$ in several heads, then a linear map.

    Reference: *Attention Is All You Need*, Vaswani et al., 2017.

    **Arguments:**

    - `dim`: size of a row.
    - `num_heads`: divides `dim`.
    - `key`: of the initial weights.

    **Raises:** `ValueError` when the number of heads does not divide `dim`.
    """

    qkv: eqx.nn.Linear
    out: eqx.nn.Linear
    num_heads: int = eqx.field(static=True)

    def __init__(self, dim: int, num_heads: int, *, key: PRNGKey):
        check_heads(dim, num_heads)
        qkv_key, out_key = jax.random.split(key)
        self.qkv = eqx.nn.Linear(dim, 3 * dim, key=qkv_key)
        self.out = eqx.nn.Linear(dim, dim, key=out_key)
        self.num_heads = num_heads

    def __call__(
        self, rows: Float[Array, "rows dim"], mask: Bool[Array, "..."] | None = None
    ) -> Float[Array, "rows dim"]:
        """Return the rows mixed with one another.

        **Arguments:**

        - `rows`: of one example.
        - `mask`: True for rows that may be attended to, of shape `(rows,)`, or of shape
            `(rows, rows)`, the row that attends first.
        """
        form = "t (three heads d) -> three t heads d"
        q, k, v = rearrange(linear(self.qkv, rows), form, three=3, heads=self.num_heads)
        return linear(self.out, attend(q, k, v, mask))


class CrossAttention(eqx.Module):
    """Attention from the rows of one example to tokens of its condition.

    The last map is zero at first, so that it adds nothing.

    Reference: *High-Resolution Image Synthesis with Latent Diffusion Models*, Rombach
    et al., 2022, section 3.3.

    **Arguments:**

    - `dim`: size of a row.
    - `token_dim`: size of a token.
    - `num_heads`: divides `dim`.
    - `key`: of the initial weights.

    **Raises:** `ValueError` when the number of heads does not divide `dim`.
    """

    query: eqx.nn.Linear
    key_value: eqx.nn.Linear
    out: eqx.nn.Linear
    num_heads: int = eqx.field(static=True)

    def __init__(self, dim: int, token_dim: int, num_heads: int, *, key: PRNGKey):
        check_heads(dim, num_heads)
        query_key, value_key, out_key = jax.random.split(key, 3)
        self.query = eqx.nn.Linear(dim, dim, key=query_key)
        self.key_value = eqx.nn.Linear(token_dim, 2 * dim, key=value_key)
        self.out = zeroed(eqx.nn.Linear(dim, dim, key=out_key))
        self.num_heads = num_heads

    def __call__(
        self,
        rows: Float[Array, "rows dim"],
        tokens: Float[Array, "tokens token_dim"],
        mask: Bool[Array, "..."] | None = None,
    ) -> Float[Array, "rows dim"]:
        """Return what each row reads of the tokens; `mask` as in `SelfAttention`."""
        heads = self.num_heads
        q = rearrange(linear(self.query, rows), "t (heads d) -> t heads d", heads=heads)
        form = "s (two heads d) -> two s heads d"
        k, v = rearrange(linear(self.key_value, tokens), form, two=2, heads=heads)
        return linear(self.out, attend(q, k, v, mask))


def attend(
    q: Float[Array, "rows heads d"],
    k: Float[Array, "keys heads d"],
    v: Float[Array, "keys heads d"],
    mask: Bool[Array, "..."] | None = None,
) -> Float[Array, "rows dim"]:
    """Return the values weighted by the softmax of the products, heads side by side."""
    scores = jnp.einsum("thd,shd->hts", q, k) / math.sqrt(q.shape[-1])
    scores = scores.astype(wide(scores.dtype))
    if mask is not None:
        shape = len(q), len(k)
        if mask.shape not in (shape, shape[1:]):
            raise ValueError(
                f"mask has shape {mask.shape}: give one Boolean for each of the "
                f"{shape[1]} rows that are attended to, or an array of shape {shape}"
            )
        mask = jnp.broadcast_to(mask, shape)
        # Finite: a row that may attend to nothing is a mean and not NaN.
        scores = jnp.where(mask[None], scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(scores).astype(v.dtype)
    mixed = jnp.einsum("hts,shd->thd", weights, v)
    return rearrange(mixed, "t heads d -> t (heads d)")


def check_heads(dim: int, num_heads: int) -> None:
    """Check that heads divide the size of a row.

    **Raises:** `ValueError` with numbers that do.
    """
    if num_heads < 1 or dim % num_heads:
        fitting = [d for d in range(1, dim + 1) if dim % d == 0]
        raise ValueError(
            f"num_heads={num_heads} does not divide {dim} numbers; {fitting} do"
        )
