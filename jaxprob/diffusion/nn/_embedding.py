"""How a network hears of the noise level and of the condition."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey


class Sinusoids(eqx.Module):
    r"""$\cos(2\pi f_k c), \sin(2\pi f_k c)$ for frequencies in geometric progression.

    Nothing is trained. A scalar alone moves a network's input far too little to tell
    two nearby noise levels apart.

    Reference: *Attention Is All You Need*, Vaswani et al., 2017; *Fourier Features Let
    Networks Learn High Frequency Functions in Low Dimensional Domains*, Tancik et al.,
    2020.

    **Arguments:**

    - `dim`: size of the output; even.
    - `low`, `high`: smallest and largest frequency, in cycles per unit of c. The
        default suits $c = \tfrac14 \log(\sigma/\alpha)$, which is between -2 and 2.
    """

    dim: int = eqx.field(static=True)
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)

    def __init__(self, dim: int, *, low: float = 0.05, high: float = 5.0):
        if dim < 2 or dim % 2:
            raise ValueError(f"dim={dim}: sinusoids come in pairs; give an even number")
        if not 0.0 < low <= high:
            raise ValueError(f"frequencies must satisfy 0 < low={low} <= high={high}")
        self.dim = dim
        self.low = low
        self.high = high

    def __call__(self, c: Float[Array, ""]) -> Float[Array, " dim"]:
        exponent = jnp.linspace(math.log(self.low), math.log(self.high), self.dim // 2)
        angles = 2.0 * math.pi * jnp.exp(exponent).astype(c.dtype) * c
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)])


class Embedding(eqx.Module):
    r"""The vector that tells a network its noise level and its condition.

    $$e = W_2\,\mathrm{silu}(W_1 \sin(c) + \mathrm{cond}), $$

    where a class has a row of a table and a vector a linear map. No condition (`None`,
    or what `no_condition` gives: class -1, NaN) has a vector of its own, which
    classifier-free guidance needs.

    **Arguments:**

    - `dim`: size of the vector.
    - `num_classes`: number of classes, if the condition is a class.
    - `cond_dim`: size of the condition, if it is a vector.
    - `key`: of the initial weights.
    """

    sinusoids: Sinusoids
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    classes: Float[Array, "classes dim"] | None
    vector: eqx.nn.Linear | None
    nothing: Float[Array, " dim"] | None
    num_classes: int | None = eqx.field(static=True)
    cond_dim: int | None = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        *,
        num_classes: int | None = None,
        cond_dim: int | None = None,
        key: PRNGKey,
    ):
        if num_classes is not None and cond_dim is not None:
            raise ValueError("give num_classes or cond_dim, not both")
        first_key, second_key, cond_key, nothing_key = jax.random.split(key, 4)
        features = 2 * max(8, dim // 4)
        self.sinusoids = Sinusoids(features)
        self.first = eqx.nn.Linear(features, dim, key=first_key)
        self.second = eqx.nn.Linear(dim, dim, key=second_key)
        self.classes = self.vector = self.nothing = None
        if num_classes is not None:
            self.classes = jax.random.normal(cond_key, (num_classes, dim))
        if cond_dim is not None:
            self.vector = eqx.nn.Linear(cond_dim, dim, key=cond_key)
        if num_classes is not None or cond_dim is not None:
            self.nothing = jax.random.normal(nothing_key, (dim,))
        self.num_classes = num_classes
        self.cond_dim = cond_dim

    def __call__(
        self,
        c: Float[Array, ""],
        cond: Array | None = None,
    ) -> Float[Array, " dim"]:
        """The vector for noise level `c` and condition `cond`."""
        # The angles in the dtype of c, which knows them; weights may have fewer bits.
        hidden = self.first(self.sinusoids(c).astype(self.first.weight.dtype))
        addition = self._condition(cond)
        if addition is not None:
            hidden = hidden + addition
        return self.second(jax.nn.silu(hidden))

    def _condition(self, cond):
        if cond is None:
            return self.nothing
        if not hasattr(cond, "dtype"):
            raise TypeError(
                f"cond is a {type(cond).__name__} where an Embedding takes one array: "
                "give it jnp.asarray(...) of a class or a vector, or the leaf of a "
                "tree that it is to read"
            )
        if self.classes is not None:
            if jnp.shape(cond) != () or not jnp.issubdtype(cond.dtype, jnp.integer):
                raise ValueError(
                    f"cond is {cond.dtype}{list(jnp.shape(cond))} where one class, an "
                    f"integer in 0, ..., {len(self.classes) - 1}, is needed"
                )
            # -1 is no class, and uint8 has none: 255 would be taken for it.
            cond = cond.astype(jnp.int32)
            # An unknown class reads as NaN, which training and sampling report, and
            # not as the last class, which is what an index out of bounds gives.
            index = jnp.where(cond < 0, len(self.classes), cond)
            row = self.classes.at[index].get(mode="fill", fill_value=jnp.nan)
            assert self.nothing is not None
            return jnp.where(cond == -1, self.nothing, row)
        if self.vector is not None:
            if jnp.shape(cond) != (self.cond_dim,):
                raise ValueError(
                    f"cond has shape {jnp.shape(cond)} where ({self.cond_dim},) is "
                    "needed"
                )
            cond = as_vector(cond).astype(self.vector.weight.dtype)
            none = jnp.any(jnp.isnan(cond))
            # Replaced inside as well: the gradient of a NaN that is not chosen is NaN.
            row = self.vector(jnp.where(none, jnp.zeros_like(cond), cond))
            assert self.nothing is not None
            return jnp.where(none, self.nothing, row)
        raise ValueError(
            "the network was given a condition but built without one; build it with "
            "num_classes or cond_dim"
        )


def as_vector(cond: Array) -> Float[Array, "..."]:
    """A vector of floats: integers have no NaN, which stands for none."""
    check_not_boolean(cond)
    integers = jnp.issubdtype(cond.dtype, jnp.integer)
    return cond.astype(jnp.result_type(float)) if integers else cond


def check_not_boolean(cond: Any) -> None:
    """A Boolean has no value left to say that there is no condition."""
    if cond.dtype == bool:
        raise TypeError(
            f"cond is bool{list(cond.shape)}: write cond.astype(int) if it is a class "
            "and cond.astype(float) if it is a vector"
        )


def embedded(
    embedding: Embedding, c: Float[Array, ""], cond: Array | None, dtype
) -> Float[Array, " dim"]:
    """What the layers of a network multiply: silu of the embedding, in their dtype.

    The embedding itself stays in the dtype of `c`: three digits, all that bfloat16 has,
    do not tell nearby noise levels apart.
    """
    return jax.nn.silu(embedding(c, cond)).astype(dtype)
