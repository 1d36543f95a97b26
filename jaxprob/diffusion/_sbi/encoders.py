"""Encoders: from one standardised observation to a vector."""

import abc
import math
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._types import PRNGKey

if TYPE_CHECKING:  # see _training/capabilities.py
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractEncoder(eqx.Module):
    """Base class of encoders.

    **Fields:**

    - `size`: of the vector that it returns.
    """

    size: AbstractVar[int]

    @abc.abstractmethod
    def __call__(self, x: PyTree) -> Float[Array, " size"]:
        """Return the vector of one standardised observation."""

    def summary(self, x: PyTree) -> Float[Array, " features"]:
        """Return features of one observation for a linear regression of parameters.

        They depend on no weights. By default there are none.
        """
        return jnp.zeros(0)


class VectorEncoder(AbstractEncoder):
    r"""The entries v of an observation, any tree of arrays, and a perceptron of them.

    $$e = [v, \mathrm{MLP}(v)]$$

    **Arguments:**

    - `example`: one standardised observation.
    - `size`, `width`: of the perceptron's result and of its two hidden layers.
    - `key`: of the initial weights.
    """

    size: int = eqx.field(static=True)
    features: eqx.nn.MLP

    def __init__(
        self, example: PyTree, *, size: int = 32, width: int = 64, key: PRNGKey
    ):
        inputs = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(example))
        self.size = inputs + size
        self.features = eqx.nn.MLP(inputs, size, width, 2, jax.nn.silu, key=key)

    def __call__(self, x: PyTree) -> Float[Array, " size"]:
        entries = self.summary(x)
        return jnp.concatenate([entries, self.features(entries)])

    def summary(self, x: PyTree) -> Float[Array, " features"]:
        return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(x)])


class SetEncoder(AbstractEncoder):
    r"""A function of the rows that does not depend on their order.

    $$e = W \big[\tfrac1n \sum_i \phi(x_i), \max_i \phi(x_i), \log n\big]$$

    The rows of one observation are exchangeable, such as n draws of one distribution.
    With `missing=True`, rows of which all entries are NaN are absent, so that sets have
    any size up to that of the array.

    Reference: *Deep Sets*, Zaheer et al., 2017.

    **Arguments:**

    - `example`: one standardised observation, of shape (rows, columns).
    - `missing`: whether the second half of the columns says which entries are there.
    - `size`, `width`: of the result, and of $\phi$'s layers.
    - `key`: of the initial weights.
    """

    size: int = eqx.field(static=True)
    missing: bool = eqx.field(static=True)
    each: eqx.nn.MLP
    all: eqx.nn.MLP

    def __init__(
        self,
        example: Float[Array, "rows columns"],
        *,
        missing: bool,
        size: int = 64,
        width: int = 128,
        key: PRNGKey,
    ):
        each_key, all_key = jax.random.split(key)
        columns, silu = example.shape[1], jax.nn.silu
        self.size = size
        self.missing = missing
        self.each = eqx.nn.MLP(columns, width, width, 2, silu, key=each_key)
        self.all = eqx.nn.MLP(2 * width + 1, size, width, 1, silu, key=all_key)

    def __call__(self, x: Float[Array, "rows columns"]) -> Float[Array, " size"]:
        present = self._present(x)
        values = jax.vmap(self.each)(x)
        mean, count = _mean_of(values, present)
        most = jnp.max(jnp.where(present[:, None], values, -1e3), axis=0)
        return self.all(jnp.concatenate([mean, most, jnp.log(count)[None]]))

    def summary(self, x: Float[Array, "rows columns"]) -> Float[Array, " features"]:
        return _mean_of(x, self._present(x))[0]

    def _present(self, x):
        if not self.missing:
            return jnp.ones(len(x), bool)
        return jnp.any(x[:, x.shape[1] // 2 :] > 0.0, axis=1)


def _mean_of(values, present):
    """Return the mean of the rows that are present, and their number."""
    count = jnp.maximum(jnp.sum(present), 1).astype(values.dtype)
    total = jnp.sum(jnp.where(present[:, None], values, 0.0), axis=0)
    return total / count, count


class BlocksEncoder(AbstractEncoder):
    """A set of which the rows stand side by side in one vector.

    **Arguments:**

    - `example`: one standardised observation, whose size is a multiple of `num_blocks`.
    - `num_blocks`: number of rows.
    - `key`: of the initial weights.
    """

    num_blocks: int = eqx.field(static=True)
    rows: SetEncoder

    def __init__(
        self, example: Float[Array, " columns"], num_blocks: int, *, key: PRNGKey
    ):
        self.num_blocks = num_blocks
        rows = example.reshape(num_blocks, -1)
        self.rows = SetEncoder(rows, missing=False, width=64, key=key)

    @property
    def size(self) -> int:
        return self.rows.size

    def __call__(self, x: Float[Array, " columns"]) -> Float[Array, " size"]:
        return self.rows(x.reshape(self.num_blocks, -1))

    def summary(self, x: PyTree) -> Float[Array, " features"]:
        # That of `VectorEncoder`, so that held-out losses of both can be compared.
        return x


class ConvEncoder(AbstractEncoder):
    """Convolutions over a series (time, columns) or an image (channels, height, width).

    Each halves the axes of space or time; a linear map of the rest follows.

    **Arguments:**

    - `example`: one standardised observation.
    - `size`, `width`: of the result, and number of channels.
    - `key`: of the initial weights.
    """

    size: int = eqx.field(static=True)
    layers: list[eqx.nn.Conv]
    last: eqx.nn.Linear

    def __init__(
        self,
        example: Float[Array, "..."],
        *,
        size: int = 64,
        width: int = 32,
        key: PRNGKey,
    ):
        axes = example.ndim - 1
        channels = example.shape[-1] if axes == 1 else example.shape[0]
        extent = list(example.shape[:1] if axes == 1 else example.shape[1:])
        self.size = size
        self.layers = []
        for i in range(3):
            if min(extent) < 4:
                break
            conv_key = jax.random.fold_in(key, i)
            conv = eqx.nn.Conv(axes, channels, width, 3, 2, padding=1, key=conv_key)
            self.layers.append(conv)
            channels, extent = width, [-(-n // 2) for n in extent]
        last_key = jax.random.fold_in(key, len(self.layers))
        self.last = eqx.nn.Linear(channels * math.prod(extent), size, key=last_key)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, " size"]:
        h = x.T if x.ndim == 2 else x
        for layer in self.layers:
            h = jax.nn.silu(layer(h))
        return self.last(h.reshape(-1))


ENCODERS = ("vector", "set", "series", "image")


def make_encoder(
    kind: str | None, example: PyTree, *, missing: bool, key: PRNGKey
) -> AbstractEncoder:
    """Return the encoder of a kind of observation.

    **Arguments:**

    - `kind`: one of `ENCODERS`; by default a vector, if all arrays have at most one
        axis.
    - `example`: one standardised observation.

    **Raises:** `ValueError` for another kind, or one that does not fit the shape.
    """
    shapes = [leaf.shape for leaf in jax.tree.leaves(example)]
    if kind is None:
        if any(len(shape) > 1 for shape in shapes):
            raise ValueError(
                f"observations of shape {shapes[0]}: say what their axes are, "
                "encoder='set' (exchangeable rows), 'series' (time, columns), 'image' "
                "(channels, height, width) or 'vector' (fixed places)"
            )
        kind = "vector"
    if kind not in ENCODERS:
        raise ValueError(f"encoder={kind!r}: one of {ENCODERS}, or an AbstractEncoder")
    if kind == "vector":
        return VectorEncoder(example, key=key)
    axes = {"set": 2, "series": 2, "image": 3}[kind]
    if len(shapes) != 1 or len(shapes[0]) != axes:
        raise ValueError(
            f"encoder={kind!r} is for one array of {axes} axes; observations have the "
            f"shapes {shapes}"
        )
    if kind == "set":
        return SetEncoder(example, missing=missing, key=key)
    return ConvEncoder(example, key=key)


@eqx.filter_jit
def summaries(encoder: AbstractEncoder, x: PyTree) -> Float[Array, "rows features"]:
    """Return the features of observations with a leading axis."""
    return jax.vmap(encoder.summary)(jax.tree.map(jnp.asarray, x))
