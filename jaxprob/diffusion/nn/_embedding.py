"""The embedding of the noise and of the condition, a network's second input."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._random.keys import check_key
from ..._types import PRNGKey
from ._condition import Condition
from ._rows import AbstractRowReader


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
        """Return cosines, then sines, of `c` at each frequency."""
        exponent = jnp.linspace(math.log(self.low), math.log(self.high), self.dim // 2)
        angles = 2.0 * math.pi * jnp.exp(exponent).astype(c.dtype) * c
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)])


class Embedding(AbstractRowReader):
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
    - `missing_entries`: whether entries of the vector may be missing, as in
        `VectorCondition`.
    - `key`: of the initial weights.
    """

    sinusoids: Sinusoids
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    classes: Float[Array, "classes dim"] | None
    vector: eqx.nn.Linear | None
    missing: Float[Array, "entries dim"] | None
    nothing: Float[Array, " dim"] | None
    num_classes: int | None = eqx.field(static=True)
    cond_dim: int | None = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        *,
        num_classes: int | None = None,
        cond_dim: int | None = None,
        missing_entries: bool = False,
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
        self.classes = self.vector = self.missing = self.nothing = None
        if num_classes is not None:
            self.classes = jax.random.normal(cond_key, (num_classes, dim))
        if cond_dim is not None:
            self.vector = eqx.nn.Linear(cond_dim, dim, key=cond_key)
            self.missing = jnp.zeros((cond_dim, dim)) if missing_entries else None
        if num_classes is not None or cond_dim is not None:
            # Zero and not random, so that `Guided` sees that it was never trained.
            self.nothing = jnp.zeros((dim,))
        self.num_classes = num_classes
        self.cond_dim = cond_dim

    def __call__(
        self,
        c: Float[Array, ""],
        cond: Array | Condition | None = None,
        row: Float[Array, " dim"] | None = None,
    ) -> Float[Array, " dim"]:
        """Return the vector for the noise `c` and the condition `cond`.

        `row` is the sum of the vectors of other conditions.
        """
        # Angles keep the dtype of c; weights may have fewer bits.
        hidden = self.first(self.sinusoids(c).astype(self.first.weight.dtype))
        addition = self.row(cond)
        if addition is not None:
            hidden = hidden + addition
        if row is not None:
            hidden = hidden + row.astype(hidden.dtype)
        return self.second(jax.nn.silu(hidden))


def embedded(
    embedding: Embedding,
    c: Float[Array, ""],
    cond: Array | Condition | None,
    dtype,
    row: Float[Array, " dim"] | None = None,
) -> Float[Array, " dim"]:
    """Return silu of the embedding, in the dtype of a network's layers.

    The embedding itself stays in the dtype of `c`: the three digits of bfloat16 do not
    separate nearby noise levels.
    """
    return jax.nn.silu(embedding(c, cond, row)).astype(dtype)
