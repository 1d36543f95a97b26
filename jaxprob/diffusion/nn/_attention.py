"""Self-attention among the rows of one example."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from ..._types import PRNGKey
from ._digits import wide
from ._images import linear


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
        if num_heads < 1 or dim % num_heads:
            fitting = [d for d in range(1, dim + 1) if dim % d == 0]
            raise ValueError(
                f"num_heads={num_heads} does not divide {dim} numbers; {fitting} do"
            )
        qkv_key, out_key = jax.random.split(key)
        self.qkv = eqx.nn.Linear(dim, 3 * dim, key=qkv_key)
        self.out = eqx.nn.Linear(dim, dim, key=out_key)
        self.num_heads = num_heads

    def __call__(self, rows: Float[Array, "rows dim"]) -> Float[Array, "rows dim"]:
        form = "t (three heads d) -> three t heads d"
        q, k, v = rearrange(linear(self.qkv, rows), form, three=3, heads=self.num_heads)
        scores = jnp.einsum("thd,shd->hts", q, k) / math.sqrt(q.shape[-1])
        weights = jax.nn.softmax(scores.astype(wide(scores.dtype))).astype(v.dtype)
        mixed = jnp.einsum("hts,shd->thd", weights, v)
        return linear(self.out, rearrange(mixed, "t heads d -> t (heads d)"))
