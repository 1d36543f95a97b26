r"""The curvature G of a data set by its products with vectors, never as a matrix."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._training.batch import num_rows, unpack
from ..._types import Model
from ...tree._ravel import ravel
from .._joint.log_joint import LogJoint
from .._joint.output_hessian import Kind, output_root
from .._joint.row import as_row, weighted
from .._joint.target import num_observed
from .curvature_pass import counted_rows, linked_joint
from .dense import as_function
from .low_rank import curvature_product, reiterable
from .sum_over_rows import batch_size_for, sum_over_rows


class Noise(NamedTuple):
    r"""Result of a pass that draws from $\mathcal N(0, G)$.

    **Fields:**

    - `draws`: one for each key.
    - `values`: sums over the rows of the values of `output_hessian`, for N rows.
    - `num_targets`: how many numbers the targets hold.
    """

    draws: Float[Array, "draws dim"]
    values: Float[Array, "2"]
    num_targets: Float[Array, ""]


class GaussNewton:
    r"""$G = \sum_i J_i^\top R_i^\top R_i J_i$, scaled to N rows.

    Each method is one pass over the batches, for several vectors at once, and its
    memory beside their arguments is two results and what one batch needs.

    **Arguments:**

    - `joint`, `model`, `flags`, `batches`: as in `curvature`.
    - `kind`: `"ggn"`, where $R^\top R$ is the expected information of the output; or
        `"fisher"`, where R is the gradient.
    """

    def __init__(
        self,
        joint: LogJoint,
        model: Model,
        flags: PyTree[bool],
        batches: Iterable[PyTree],
        kind: Kind,
    ):
        self._joint = joint
        self._model = eqx.nn.inference_mode(model)
        self._flags = flags
        self._batches = reiterable(batches)
        self._kind = kind
        self._linked: LogJoint | None = None
        self._factor: Any = None
        self.passes = 0

    def noise(self, keys: Array) -> Noise:
        r"""Draw $\sum_i J_i^\top R_i^\top \epsilon_i$, whose covariance is G.

        **Arguments:**

        - `keys`: one for each draw. It depends on the order of the rows too.

        **Raises:** `ValueError` for a likelihood whose expected information is not
        known, because its H may be indefinite.
        """
        total: Any = None
        for number, batch in enumerate(self._batches):
            batch_keys = jax.vmap(lambda k, n=number: jax.random.fold_in(k, n))(keys)
            part = _noise(*self._parts(batch), batch, batch_keys, self._kind)
            total = part if total is None else _add(total, part)
        if total is None:
            raise ValueError("batches is empty: give the training set once more")
        self.passes += 1
        draws, values, (rows, targets) = total
        self._factor = factor = self._joint.num_data / rows
        return Noise(_times(draws, jnp.sqrt(factor)), factor * values, factor * targets)

    def product(self, vectors: Float[Array, "vectors dim"]) -> Array:
        """Return G times each vector; after the first `noise`, which counts rows."""
        total: Any = None
        for batch in self._batches:
            part = _product(*self._parts(batch), batch, vectors, self._kind)
            total = part if total is None else _add(total, part)
        if total is None:
            raise ValueError(
                "batches is empty in its second pass: give a list or a loader"
            )
        self.passes += 1
        return _times(total, self._factor)

    def _parts(self, batch):
        if self._linked is None:
            x = as_row(unpack(batch)[0]).x
            self._linked, is_expected = linked_joint(self._joint, self._model, x)
            if self._kind == "ggn" and not is_expected:
                name = type(self._joint.likelihood).__name__
                raise ValueError(
                    f"the likelihood, a {name}, has no known expected information, so "
                    "that the curvature of a row may be negative and has no root to "
                    "draw with. Write kind='fisher'; register its information with "
                    "bnn.register_family; or write Laplace(..., structure='low_rank')"
                )
        return self._linked, self._model, self._flags


def curvature_noise(
    joint: LogJoint,
    model: Model,
    flags: PyTree[bool],
    x: PyTree,
    y: PyTree,
    weights: Float[Array, " rows"],
    kind: Kind,
    noise: Float[Array, "rows draws root"],
) -> tuple[Float[Array, "draws dim"], Float[Array, "rows 2"]]:
    r"""Return $\sum_i \sqrt{w_i} J_i^\top R_i^\top \epsilon_i$ for each draw; and the
    values of `output_hessian`.
    """
    vector, output = as_function(joint, model, flags)

    def flat(vector):
        return jax.vmap(lambda x: ravel(output(vector, x))[0])(x)

    outputs = jax.vmap(lambda x: output(vector, x))(x)
    roots, values = jax.vmap(lambda out, y: output_root(joint, out, y, kind))(
        outputs, y
    )
    assert roots is not None
    roots = weighted(jnp.sqrt(weights), roots)
    slopes = jnp.einsum("nro,nsr->sno", roots, noise)
    _, backward = jax.vjp(flat, vector)
    return jax.vmap(lambda s: backward(s)[0])(slopes), values


@eqx.filter_jit
def _noise(joint, model, flags, batch, keys, kind):
    x, y, weights, mask = counted_rows(batch)
    vector, output = as_function(joint, model, flags)

    def root(row):
        x, y = row
        return output_root(joint, output(vector, x), y, kind)[0]

    first = jax.tree.map(lambda a: a[0], (x, y))
    shape = jax.eval_shape(root, first)
    size = (num_rows(y), shape.shape[0])
    drawn = jax.vmap(lambda k: jax.random.normal(k, size, shape.dtype), out_axes=1)

    def some_rows(data, weights):
        x, y, noise = data
        draws, values = curvature_noise(joint, model, flags, x, y, weights, kind, noise)
        targets = weighted(weights, jax.vmap(num_observed)(y).astype(values.dtype))
        return draws, jnp.sum(weighted(weights, values), 0), jnp.sum(targets)

    data = (x, y, drawn(keys))
    batch_size = _rows_at_once(shape, num_rows(y))
    draws, values, targets = sum_over_rows(some_rows, data, weights, batch_size)
    return draws, values, (jnp.sum(mask).astype(values.dtype), targets)


@eqx.filter_jit
def _product(joint, model, flags, batch, vectors, kind):
    x, y, weights, _ = counted_rows(batch)
    _, output = as_function(joint, model, flags)

    def some_rows(data, weights):
        x, y = data
        found, _ = curvature_product(
            joint, model, flags, x, y, weights, kind, vectors.T
        )
        return found.T

    vector, _ = ravel(eqx.filter(model, flags))
    first = jax.tree.map(lambda a: a[0], x)
    shape = jax.eval_shape(lambda x: ravel(output(vector, x))[0], first)
    square = jax.ShapeDtypeStruct((shape.size, shape.size), shape.dtype)
    batch_size = _rows_at_once(square, num_rows(y))
    return sum_over_rows(some_rows, (x, y), weights, batch_size)


def _rows_at_once(shape, rows):
    """Rows whose roots and curvatures fit; the products need memory of a batch."""
    return batch_size_for(4 * shape.size * shape.dtype.itemsize, rows)


# The first argument is given away, so that no pass needs memory for a third result.
_add = jax.jit(lambda total, part: jax.tree.map(jnp.add, total, part), donate_argnums=0)
_times = jax.jit(lambda vectors, factor: vectors * factor, donate_argnums=0)
