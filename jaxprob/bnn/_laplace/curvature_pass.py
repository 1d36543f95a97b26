"""Pass over the data that sums the curvature of the log-likelihood at a model."""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._training.batch import Batch, num_rows, unpack
from ..._types import Model
from ...tree._ravel import ravel
from .._joint.log_joint import LogJoint, fill_padding
from .._joint.output_hessian import Kind, has_information
from .._joint.output_link import LinkedApply, LinkedLikelihood, output_link
from .._joint.row import as_row, weighted
from .._joint.target import num_observed
from .._weights.unconstrained import constrained
from .curvature import (
    AbstractCurvature,
    DiagonalCurvature,
    FullCurvature,
)
from .dense import (
    HESSIAN_COLUMNS,
    as_function,
    diagonal,
    exact_hessian,
    full_matrix,
)
from .kronecker import (
    Sharing,
    kronecker_block,
    kronecker_factors,
    numbers_of_row,
)
from .kronecker_curvature import KroneckerCurvature
from .layers import Layers
from .low_rank import curvature_product, leading_factor, reiterable
from .sum_over_rows import batch_size_for, sum_over_rows

Structure: TypeAlias = Literal["full", "diagonal", "kronecker", "low_rank"]


class Pass(NamedTuple):
    """Result of a pass over the data, for N rows.

    **Fields:**

    - `curvature`: G.
    - `values`: the sum of the values of `output_hessian`.
    - `num_targets`: how many numbers the targets hold.
    - `is_expected`: whether H was the expected information, which has no negative
        eigenvalues in any row.
    """

    curvature: AbstractCurvature
    values: Float[Array, "2"]
    num_targets: Float[Array, ""]
    is_expected: bool


def curvature(
    joint: LogJoint,
    model: Model,
    flags: PyTree[bool],
    batches: Iterable[PyTree],
    tau: Float[Array, " dim"],
    *,
    structure: Structure,
    kind: Kind,
    rank: int,
    sharing: Sharing,
) -> Pass:
    """Return the curvature over a data set.

    **Arguments:**

    - `joint`: the likelihood and N. The sum over the rows of the batches is scaled to
        N rows.
    - `model`: the mode; used in inference mode.
    - `flags`: the leaves it is over.
    - `batches`: the training set; `"low_rank"` makes four passes over it.
    - `tau`: precision of the prior.
    - `structure`: shape of the matrix.
    - `kind`: `"ggn"`, `"hessian"`, or `"fisher"` for the empirical Fisher matrix.
    - `rank`: of `"low_rank"`.
    - `sharing`: of `"kronecker"`.
    """
    model = eqx.nn.inference_mode(model)
    batches = reiterable(batches)
    first: list[tuple[LogJoint, bool, PyTree]] = []

    def whole(columns=None):
        total: Any = None
        for batch in batches:
            if not first:
                x = as_row(unpack(batch)[0]).x
                first.append((*linked_joint(joint, model, x), x))
            part = _sums(first[0][0], model, flags, batch, columns, structure, kind)
            total = part if total is None else jax.tree.map(jnp.add, total, part)
        if total is None:
            raise ValueError("batches is empty: give the training set once more")
        return total

    vector, _ = ravel(eqx.filter(model, flags))
    matrix: Any
    if structure == "low_rank":
        matrix, values, count = leading_factor(whole, vector.size, rank, tau)
    else:
        matrix, values, count = whole()
    rows, total_weight, targets = count
    factor = joint.num_data / rows
    result: AbstractCurvature
    if structure == "full":
        result = FullCurvature(factor * matrix)
    elif structure == "diagonal":
        result = DiagonalCurvature(factor * matrix)
    elif structure == "low_rank":
        result = matrix.scaled(factor)
    else:
        linked, _, x = first[0]
        parts = Layers(linked, model, flags, x).parts
        blocks = [
            kronecker_block(part, sums, sharing, factor, total_weight)
            for part, sums in zip(parts, matrix, strict=True)
        ]
        result = KroneckerCurvature(tuple(blocks))
    return Pass(result, factor * values, factor * targets, first[0][1])


def linked_joint(joint: LogJoint, model: Model, x: PyTree) -> tuple[LogJoint, bool]:
    """Return the log joint of unconstrained outputs, and whether H is their
    information.

    **Arguments:**

    - `joint`, `model`: as in `curvature`.
    - `x`: some rows.
    """
    row = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)

    def shape(joint):
        return jax.eval_shape(
            lambda x: joint.apply(constrained(model), x, key=jax.random.key(0)), row
        )

    link = output_link(joint.likelihood, shape(joint))
    if link is not None:
        joint = eqx.tree_at(
            lambda j: (j.likelihood, j.apply),
            joint,
            (LinkedLikelihood(link), LinkedApply(link, joint.apply)),
        )
    return joint, has_information(joint.likelihood, shape(joint))


@eqx.filter_jit
def _sums(joint, model, flags, batch, columns, structure, kind):
    """Matrix, values and counts of one batch. Compiled once for all passes."""
    x, y, weights, mask = counted_rows(batch)

    def some_rows(data, weights):
        x, y = data
        matrix, values = _part(
            joint, model, flags, x, y, weights, columns, structure, kind
        )
        targets = jax.vmap(num_observed)(y).astype(values.dtype)
        total_weight = jnp.sum(weights).astype(values.dtype)
        counts = total_weight, jnp.sum(weighted(weights, targets))
        return matrix, jnp.sum(weighted(weights, values), 0), counts

    size = _row_bytes(joint, model, flags, x, structure, kind)
    batch_size = batch_size_for(size, num_rows(y))
    sums = sum_over_rows(some_rows, (x, y), weights, batch_size)
    matrix, values, (total_weight, targets) = sums
    rows = jnp.sum(mask).astype(values.dtype)
    return matrix, values, (rows, total_weight, targets)


def counted_rows(batch: PyTree) -> tuple[PyTree, PyTree, Array, Array]:
    """Return x, y, how often each row counts, and the mask of a batch, as arrays."""
    data, mask = unpack(batch)
    if isinstance(batch, Batch):
        data = fill_padding(data, mask)
    row = as_row(data)
    # The targets of a pair may be a NumPy array.
    x, y = jax.tree.map(jnp.asarray, (row.x, row.y))
    return x, y, row.known(mask), jnp.asarray(mask)


def _part(joint, model, flags, x, y, weights, columns, structure, kind):
    if kind == "hessian":
        return exact_hessian(joint, model, flags, x, y, weights)
    if structure == "kronecker":
        return kronecker_factors(joint, model, flags, x, y, weights, kind)
    if structure == "low_rank":
        return curvature_product(joint, model, flags, x, y, weights, kind, columns)
    make = diagonal if structure == "diagonal" else full_matrix
    return make(joint, model, flags, x, y, weights, kind)


def _row_bytes(joint, model, flags, x, structure, kind):
    """Memory of one row: the derivatives of its outputs, H, and arrays of its size."""
    row = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
    vector, output = as_function(joint, model, flags)
    flat = jax.eval_shape(lambda x: ravel(output(vector, x))[0], row)
    out = flat.size
    matrices = 4 * out**2
    if kind == "hessian":
        numbers = HESSIAN_COLUMNS * out
    elif structure == "full":
        numbers = 2 * out * vector.size
    elif structure == "diagonal":
        some = batch_size_for(2 * vector.size * flat.dtype.itemsize, out)
        numbers = (2 * some + 1) * vector.size
    elif structure == "kronecker":
        numbers = numbers_of_row(Layers(joint, model, flags, x))
    else:
        numbers = 0
    return flat.dtype.itemsize * (matrices + numbers)
