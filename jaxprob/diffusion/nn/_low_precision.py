"""A network that computes in half precision and is stored in single precision."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey
from ._condition import AbstractConditioned, AbstractReader, reader_of
from ._embedding import Embedding
from ._parts import ConditionReader


class LowPrecision(AbstractConditioned):
    """A network in bfloat16 whose parameters and gradients are float32.

    Parameters and input are cast at each call, so derivatives with respect to them have
    their dtype, and so does the optimiser. Embeddings of the noise, the arithmetic of
    the denoiser, and means and variances of norms stay in float32.

    It is faster on accelerators and slower on a CPU.

    Reference: *Mixed Precision Training*, Micikevicius et al., 2018.

    ```python
    denoiser = Preconditioned(nn.LowPrecision(net), VP.linear())
    ```

    **Arguments:**

    - `net`: a network of this package, or any that takes `c` in float32 beside a low
        precision `x`.
    - `dtype`: `jnp.bfloat16`, or `jnp.float16`, which may overflow.
    """

    net: Callable[..., Float[Array, "..."]]
    dtype: Any = eqx.field(static=True)

    def __init__(self, net: Callable, dtype: Any = jnp.bfloat16):
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"dtype={dtype}: give a floating-point type")
        self.net = net
        self.dtype = jnp.dtype(dtype)

    @property
    def reader(self) -> AbstractReader | None:
        return reader_of(self.net)

    def __call__(
        self,
        x: Float[Array, "*shape"],
        c: Float[Array, ""],
        cond: Any = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        """Return the network's output in the dtype of `x`."""

        def is_reader(node):
            return isinstance(node, Embedding | ConditionReader)

        def cast(leaf):
            if is_reader(leaf) or not eqx.is_inexact_array(leaf):
                return leaf
            return leaf.astype(self.dtype)

        net = jax.tree.map(cast, self.net, is_leaf=is_reader)
        return net(x.astype(self.dtype), c, cond, key=key).astype(x.dtype)
