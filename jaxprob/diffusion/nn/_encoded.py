"""A network whose condition goes through an encoder."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, PyTree

from ..._types import PRNGKey
from ._condition import AbstractConditioned, AbstractReader, Condition, is_condition


class Encoded(AbstractConditioned):
    r"""$\mathrm{net}(x, c, \mathrm{encoder}(\mathrm{cond}))$.

    Both are trained together. The condition may be of any structure that the encoder
    reads: a set of rows, a series, an image.

    ```python
    encoder = eqx.nn.MLP(20, 8, 64, 2, key=encoder_key)
    net = nn.Encoded(encoder, nn.ResidualMLP(2, cond_dim=8, key=net_key))
    ```

    **Arguments:**

    - `encoder`: a function of one condition.
    - `net`: a network that is conditioned on what the encoder returns.
    """

    encoder: Callable[[PyTree], Array]
    net: Callable[..., Array]

    @property
    def reader(self) -> AbstractReader | None:
        """None: the condition is read by the encoder."""
        return None

    def __call__(
        self,
        x: Float[Array, "*shape"],
        c: Float[Array, ""],
        cond: PyTree = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        """Return the network's output for one example."""
        return self.net(x, c, _encoded(self.encoder, cond), key=key)


def _encoded(encoder: Callable, cond: Any):
    if cond is None:
        return None
    leaves = jax.tree.leaves(cond, is_leaf=is_condition)
    flags = [leaf.present for leaf in leaves if is_condition(leaf)]
    if not flags:
        return encoder(cond)
    # The encoder reads all of the condition: it is absent if a part of it is.
    present = flags[0]
    for flag in flags[1:]:
        present = present & flag
    values = jax.tree.map(
        lambda leaf: leaf.value if is_condition(leaf) else leaf,
        cond,
        is_leaf=is_condition,
    )
    return Condition(encoder(values), present)
