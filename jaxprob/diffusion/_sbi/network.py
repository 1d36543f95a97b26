"""The network of a posterior: parameters and a summary of the observation."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey
from ..nn import ResidualBlock, Sinusoids

_FREQUENCIES = 64


class PosteriorMLP(eqx.Module):
    r"""Residual MLP which the condition enters twice.

    $$e = \mathrm{silu}(W_c \sin(c) + W_e\,\mathrm{cond}), \qquad
      h = W_x x + W_h\,\mathrm{cond},$$
    $$h \leftarrow h + W_2\,\mathrm{silu}\big(W_1 [(1 + a(e))\,\mathrm{norm}(h)
      + b(e)]\big)$$

    Added to the stream, as well as scaling and shifting it, the condition is learned
    from fewer simulations: weight decay that lets 10,000 of them not be learned by
    heart would leave modulations alone too small.

    **Arguments:**

    - `dim`: size of the vector.
    - `cond_dim`: size of the condition.
    - `width`: of the stream; layers inside of blocks have twice as many units.
    - `depth`: number of blocks.
    - `key`: of the initial weights.
    """

    sinusoids: Sinusoids
    noise: eqx.nn.Linear
    modulating: eqx.nn.Linear
    added: eqx.nn.Linear
    first: eqx.nn.Linear
    blocks: list[ResidualBlock]
    norm: eqx.nn.LayerNorm
    last: eqx.nn.Linear

    def __init__(
        self, dim: int, cond_dim: int, *, width: int, depth: int, key: PRNGKey
    ):
        keys = jax.random.split(key, 5 + depth)
        self.sinusoids = Sinusoids(_FREQUENCIES)
        self.noise = eqx.nn.Linear(_FREQUENCIES, width, key=keys[0])
        self.modulating = eqx.nn.Linear(cond_dim, width, key=keys[1])
        self.added = eqx.nn.Linear(cond_dim, width, key=keys[2])
        self.first = eqx.nn.Linear(dim, width, key=keys[3])
        self.blocks = [ResidualBlock(width, 2 * width, key=k) for k in keys[5:]]
        self.norm = eqx.nn.LayerNorm(width, use_weight=False, use_bias=False)
        # At zero, so that an untrained denoiser is the best linear one.
        last = eqx.nn.Linear(width, dim, key=keys[4])
        self.last = jax.tree.map(jnp.zeros_like, last)

    def __call__(
        self,
        x: Float[Array, " dim"],
        c: Float[Array, ""],
        cond: Float[Array, " cond_dim"],
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, " dim"]:
        """Return the output for the vector `x` with noise `c`; `key` is not used."""
        noise = self.noise(self.sinusoids(c).astype(x.dtype))
        e = jax.nn.silu(noise + self.modulating(cond))
        h = self.first(x) + self.added(cond)
        for block in self.blocks:
            h = block(h, e)
        return self.last(jax.nn.silu(self.norm(h)))
