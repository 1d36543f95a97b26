"""Kronecker factors of each part of the weights, from one pass over rows."""

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._types import Model
from ...tree._ravel import ravel
from ...tree._single import single
from .._joint.log_joint import LogJoint
from .._joint.output_hessian import Kind, output_hessian
from .._joint.row import weighted
from .dense import batches_of_outputs
from .kronecker_curvature import KroneckerBlock
from .layers import Layers, Part, in_order

Sharing: TypeAlias = Literal["scaled", "expand", "reduce"]


class Sums(NamedTuple):
    """Sums over rows from which `kronecker_block` makes the factors of a part.

    **Fields:**

    - `inputs`, `outputs`: by the setting of a layer, `"expand"` and `"reduce"`, or by
        another kind of part; see `kronecker_factors`.
    - `trace`: of the exact block.
    """

    inputs: dict[str, Float[Array, "groups in in"]]
    outputs: dict[str, Float[Array, "groups out out"]]
    trace: Float[Array, ""]


def kronecker_factors(
    joint: LogJoint,
    model: Model,
    flags: PyTree[bool],
    x: PyTree,
    y: PyTree,
    weights: Float[Array, " rows"],
    kind: Kind,
) -> tuple[list[Sums], Float[Array, "rows 2"]]:
    r"""Return sums over rows for each part of the weights, and the values of
    `output_hessian`.

    A layer with the inputs $a_t$ and derivatives $J_t$ of the output in its results, t
    running over the uses of the weights for one row (places of a convolution, tokens,
    steps of a recurrent cell), has

    $$\text{expand: } \sum_t a_t a_t^\top, \; \frac 1 T \sum_t J_t^\top H J_t, \qquad
      \text{reduce: } \bar a \bar a^\top, \; g^\top H g \; \text{ with } \bar a = \frac
      1 T \sum_t a_t, \; g = \sum_t J_t$$

    A vector has its exact block $J^\top H J$. With D, the derivative in a table as a
    matrix, a table has $D^\top H D$ summed over its rows, and over its columns.

    Reference: *Kronecker-factored approximate curvature for modern neural network
    architectures*, Eschenhagen, Immer, Turner, Schneider and Hennig, 2023, sections 3.2
    and 3.3, https://arxiv.org/abs/2311.00636.
    """
    layers = Layers(joint, model, flags, x)

    def one(probes, x):
        out, inputs = layers(probes, x)
        return ravel(out)[0], (out, inputs)

    def all_rows(probes):
        return jax.vmap(one)(probes, x)

    rows = len(weights)
    probes = jax.tree.map(
        lambda a: jnp.zeros((rows, *a.shape), a.dtype), layers.probes()
    )
    _, pull, (out, inputs) = jax.vjp(all_rows, probes, has_aux=True)
    hessians, values = jax.vmap(lambda out, y: output_hessian(joint, out, y, kind))(
        out, y
    )
    hessians = weighted(weights, hessians)

    inputs = [_inputs(layers, part, inputs) for part in layers.parts]
    size = sum(p.size * p.dtype.itemsize for p in jax.tree.leaves(probes))

    def outer(pair):
        (left,), (right,) = jax.vmap(pull)(pair[0]), jax.vmap(pull)(pair[1])
        return [
            _outer(part, a, *(_derivative(layers, part, d) for d in (left, right)))
            for part, a in zip(layers.parts, inputs, strict=True)
        ]

    def add(total, pair):
        return jax.tree.map(jnp.add, total, outer(pair)), None

    pairs = batches_of_outputs(hessians, size)
    shapes = jax.eval_shape(outer, jax.tree.map(lambda a: a[0], pairs))
    start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    outers, _ = jax.lax.scan(add, start, pairs)
    sums = [
        Sums({**columns, **_input_factors(weights, a)}, outputs, trace)
        for a, (columns, outputs, trace) in zip(inputs, outers, strict=True)
    ]
    return sums, values


def kronecker_block(
    part: Part,
    sums: Sums,
    sharing: Sharing,
    factor: Float[Array, ""],
    total_weight: Float[Array, ""],
) -> KroneckerBlock:
    """Return the block of a part from the sums over all rows.

    **Arguments:**

    - `part`: of the weights.
    - `sums`: over all rows.
    - `sharing`: of weights that are used several times for a row; `"scaled"` is
        `"expand"` times the number that makes its trace the exact one.
    - `factor`: N over the number of rows.
    - `total_weight`: the sum of the weights of the rows.
    """
    if part.kind == "vector":
        inputs = sums.inputs["columns"]
        outputs = jnp.ones((1, 1, 1), inputs.dtype)
    elif part.kind == "table":
        # Both sums have the trace of the exact block.
        inputs = sums.inputs["columns"]
        nonzero = jnp.where(sums.trace == 0.0, jnp.ones_like(sums.trace), sums.trace)
        outputs = sums.outputs["rows"] / nonzero
    else:
        inputs, outputs = _of_layer(sums, sharing, total_weight)
    return KroneckerBlock(
        factor * inputs,
        outputs,
        part.path,
        part.start,
        part.bias_start,
        part.transposed,
    )


def numbers_of_row(layers: Layers) -> int:
    """Return how many numbers inputs and derivatives have in one row."""
    ours, uses = layers.probes()
    leaves = sum(leaf.size for leaf in ours.values())
    numbers = 2 * (leaves + sum(probe.size for probe in uses))
    for part in layers.parts:
        inputs = [layers.program.inputs[use] for use in part.uses]
        pairs = sum(a.shape[1] for a in inputs) ** 2
        numbers += sum(a.size for a in inputs)
        numbers += 2 * part.shape[0] * min(pairs, part.shape[1] * part.shape[2])
    return numbers


def _of_layer(sums, sharing, total_weight):
    pairs = {
        name: (sums.inputs[name], sums.outputs[name] / total_weight)
        for name in sums.inputs
    }
    if len(pairs) == 1 or sharing == "expand":
        return pairs["expand"]
    if sharing == "reduce":
        return pairs["reduce"]

    inputs, outputs = pairs["expand"]
    traces = [jnp.trace(f, axis1=1, axis2=2) for f in (inputs, outputs)]
    ours = jnp.sum(traces[0] * traces[1])
    ratio = sums.trace / jnp.where(ours == 0.0, jnp.ones_like(ours), ours)
    return inputs, ratio * outputs


def _outer(part, a, j, s):
    """Sums over outputs and rows of products of the derivatives j and s = H j: those of
    the columns, those of the rows, and their trace.
    """
    if part.kind == "vector":
        columns = jnp.einsum("cni,cnj->ij", j, s)[None]
        return {"columns": columns}, {}, jnp.trace(columns[0])
    if part.kind == "table":
        columns = jnp.einsum("cnro,cnrp->op", j, s)[None]
        rows = jnp.einsum("cnro,cnso->rs", j, s)[None]
        return {"columns": columns}, {"rows": rows}, jnp.trace(columns[0])
    found = {"expand": jnp.einsum("cngto,cngtp->gop", j, s) / j.shape[3]}
    trace = jnp.zeros((), j.dtype)
    if j.shape[3] > 1:
        found["reduce"] = jnp.einsum("cngo,cngp->gop", j.sum(3), s.sum(3))
        trace = _trace(a, j, s)
    return {}, found, trace


def _derivative(layers, part, derivatives):
    """Derivatives `(outputs, rows, ...)`, of a layer with the axes of its results."""
    of_leaves, of_uses = derivatives
    if part.kind == "layer":
        found = [
            in_order(single(of_uses[use]), {2: orders.groups, 4: orders.outs})
            for use, orders in layers.orders(part)
        ]
        return jnp.concatenate(found, axis=3)
    array = single(of_leaves[part.leaf])
    shape = part.shape[2:] if part.kind == "vector" else part.shape[1:]
    return array.reshape(*array.shape[:2], *shape)


def _inputs(layers, part, inputs):
    """Inputs `(rows, groups, uses, in)` of a layer, with 1 for its bias."""
    if part.kind != "layer":
        return None
    found = [
        in_order(single(inputs[use]), {1: orders.groups, 3: orders.ins})
        for use, orders in layers.orders(part)
    ]
    a = jnp.concatenate(found, axis=2)
    if part.bias_start is None:
        return a
    return jnp.concatenate([a, jnp.ones((*a.shape[:3], 1), a.dtype)], 3)


def _input_factors(weights, a):
    if a is None:
        return {}
    found = {"expand": _second_moment(weights, a)}
    if a.shape[2] > 1:
        found["reduce"] = _second_moment(weights, jnp.mean(a, axis=2, keepdims=True))
    return found


def _second_moment(weights, a):
    return jnp.einsum("ngti,ngtj->gij", weighted(weights, a), a)


def _trace(a, j, s):
    r"""Sum of $\langle \sum_t j_t a_t^\top, \sum_t s_t a_t^\top \rangle$."""
    uses, outs, ins = a.shape[2], j.shape[4], a.shape[3]
    if uses**2 <= outs * ins:
        inner = jnp.einsum("cngto,cnguo->ngtu", j, s)
        return jnp.sum(inner * jnp.einsum("ngti,ngui->ngtu", a, a))
    both = [jnp.einsum("cngto,ngti->cngoi", g, a) for g in (j, s)]
    return jnp.sum(both[0] * both[1])
