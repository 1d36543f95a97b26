"""The embedding of the noise and of the condition, a network's second input."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._random.keys import check_key
from ..._types import PRNGKey
from .._types import ARRAYS
from ._condition import AbstractReader, Condition, when_present
from ._condition_checks import check_not_boolean


class Sinusoids(eqx.Module):
    r"""$\cos(2\pi f_k c), \sin(2\pi f_k c)$ for frequencies in geometric progression.

    Nothing is trained. A scalar alone changes a network's input too little to separate
    two nearby noise levels.

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


class Embedding(AbstractReader):
    r"""The vector of the noise and the condition.

    $$e = W_2\,\mathrm{silu}(W_1 \sin(c) + \mathrm{cond}), $$

    where a class has a row of a table and a vector a linear map. No condition (`None`,
    or a `Condition` that is absent) has a separate vector, which classifier-free
    guidance needs. It is zero until `DenoisingLoss(cond_dropout=...)` or a data set
    with absent conditions has trained it.

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
        check_key(key)
        first_key, second_key, cond_key, _ = jax.random.split(key, 4)
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
            # Zero and not random, so that `Guided` sees that it was never trained.
            self.nothing = jnp.zeros((dim,))
        self.num_classes = num_classes
        self.cond_dim = cond_dim

    def __call__(
        self,
        c: Float[Array, ""],
        cond: Array | Condition | None = None,
    ) -> Float[Array, " dim"]:
        """Return the vector for the noise `c` and the condition `cond`."""
        # Angles keep the dtype of c; weights may have fewer bits.
        hidden = self.first(self.sinusoids(c).astype(self.first.weight.dtype))
        addition = self._condition(cond)
        if addition is not None:
            hidden = hidden + addition
        return self.second(jax.nn.silu(hidden))

    def _condition(self, cond):
        if self.nothing is None:
            if cond is None:
                return None
            raise ValueError(
                "the network was given a condition but built without one; build it "
                "with num_classes or cond_dim"
            )
        return when_present(cond, self._row, self.nothing)

    def _row(self, cond):
        if not isinstance(cond, ARRAYS):
            raise TypeError(
                f"cond is a {type(cond).__name__} where an Embedding takes one array: "
                "give it jnp.asarray(...) of a class or a vector, or the leaf of a "
                "tree that it is to read"
            )
        check_not_boolean(cond)
        if self.classes is not None:
            if jnp.shape(cond) != () or not jnp.issubdtype(cond.dtype, jnp.integer):
                raise ValueError(
                    f"cond is {cond.dtype}{list(jnp.shape(cond))} where one class, an "
                    f"integer in 0, ..., {len(self.classes) - 1}, is needed"
                )
            # An unknown class reads as NaN, which training and sampling report. JAX
            # would clamp the index to the last class. uint8 cannot hold 256.
            cond = cond.astype(jnp.int32)
            index = jnp.where(cond < 0, len(self.classes), cond)
            return self.classes.at[index].get(mode="fill", fill_value=jnp.nan)
        assert self.vector is not None
        if jnp.shape(cond) != (self.cond_dim,):
            raise ValueError(
                f"cond has shape {jnp.shape(cond)} where ({self.cond_dim},) is needed"
            )
        return self.vector(jnp.asarray(cond, self.vector.weight.dtype))


def embedded(
    embedding: Embedding,
    c: Float[Array, ""],
    cond: Array | Condition | None,
    dtype,
) -> Float[Array, " dim"]:
    """Return silu of the embedding, in the dtype of a network's layers.

    The embedding itself stays in the dtype of `c`: the three digits of bfloat16 do not
    separate nearby noise levels.
    """
    return jax.nn.silu(embedding(c, cond)).astype(dtype)
