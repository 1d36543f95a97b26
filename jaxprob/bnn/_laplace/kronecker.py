"""Kronecker factors of each affine layer, from one pass over rows."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ... import tree
from ..._checks import path_name
from ..._jaxpr.trace_scope import trace_scope
from ..._types import Model
from ...tree._ravel import ravel
from ...tree._single import single
from .._joint.log_joint import LogJoint
from .._joint.output_hessian import Kind, output_hessian
from .._joint.row import weighted
from .._weights.edge import constraint_of
from .dense import batches_of_outputs

CONVOLUTIONS = (eqx.nn.Conv, eqx.nn.Conv1d, eqx.nn.Conv2d, eqx.nn.Conv3d)


class FactoredLayer(eqx.Module):
    """A layer that has a pair of factors.

    **Fields:**

    - `path`: of the layer in the model.
    - `bias`: whether its bias is among the chosen leaves.
    - `start`: first place of its weights in the vector of all.
    - `width`: outputs or channels.
    """

    path: str = eqx.field(static=True)
    bias: bool = eqx.field(static=True)
    start: int = eqx.field(static=True)
    width: int = eqx.field(static=True)


class _Tap(eqx.Module):
    """A layer that records its inputs and adds a probe to its output.

    Inputs have one row for each use of the weights: a linear layer has one use, a
    convolution has one at each place.
    """

    layer: Any
    probe: Float[Array, "uses out"] | None
    path: str = eqx.field(static=True)
    scope: Any = eqx.field(static=True)
    notes: dict = eqx.field(static=True)

    @property
    def weight(self):
        return self._read()

    @property
    def bias(self):
        return self._read()

    def _read(self):
        raise ValueError(
            f"no Kronecker factor for {self.path}: the model reads its weight or bias "
            "beside calling it, as tied layers do. Use structure='diagonal', "
            "'low_rank' or 'full', or leave it out by `where`."
        )

    def __call__(self, x, *, key=None):
        if self.path in self.notes or trace_scope() != self.scope:
            raise ValueError(
                f"no Kronecker factor for {self.path}: it is used several times for an "
                "example, or inside a loop or vmap of the model. Use "
                "structure='diagonal' or 'full', or leave it out by `where`."
            )
        out = self.layer(x)
        channels = self.layer.weight.shape[0]
        uses = out.size // channels
        if isinstance(self.layer, CONVOLUTIONS):
            inputs = patches(self.layer, x).reshape(-1, uses).T
        else:
            inputs = jnp.ravel(x)[None]
        self.notes[self.path] = inputs
        if self.probe is None:
            return out
        return out + self.probe.T.reshape(out.shape)


def patches(
    conv: eqx.nn.Conv, x: Float[Array, "channels *places"]
) -> Float[Array, "features *out_places"]:
    """Return the inputs that the weights multiply at each place, in their order."""
    padding = conv.padding
    if conv.padding_mode != "ZEROS":
        x, padding = conv._nonzero_pad(x), "VALID"
    return jax.lax.conv_general_dilated_patches(
        x[None], conv.kernel_size, conv.stride, padding, rhs_dilation=conv.dilation
    )[0]


def factored_layers(model: Model, flags: PyTree[bool]) -> tuple[FactoredLayer, ...]:
    """Return all layers that hold chosen leaves, in the order of `tree.ravel`.

    **Raises:** `ValueError` for a chosen leaf that has no Kronecker factor.
    """
    nodes = jax.tree_util.tree_leaves_with_path(model, is_leaf=_has_factors)
    chosen = tree.paths(eqx.filter(model, flags))
    layers, start, covered = [], 0, set()
    for path, node in nodes:
        name = path_name(path)
        prefix = name + "." if name else ""
        if not _has_factors(node) or prefix + "weight" not in chosen:
            continue
        bias = prefix + "bias" in chosen
        layers.append(FactoredLayer(name, bias, start, len(node.weight)))
        start += node.weight.size + (node.bias.size if bias else 0)
        covered |= {prefix + "weight", prefix + "bias"}
    missing = [path for path in chosen if path not in covered]
    if missing and missing[0].endswith(".coordinates"):
        path = missing[0].removesuffix(".coordinates")
        edge = constraint_of(tree.get(model, path).edge)
        raise ValueError(
            f"no Kronecker factor for {path}, whose prior has an edge ({edge}): a "
            "layer is not linear in the unconstrained coordinates of its weights. "
            "Leave the leaf out by `where`, or use structure='full', 'low_rank' or "
            "'diagonal'."
        )
    if missing:
        raise ValueError(
            f"no Kronecker factor for {missing[0]}: each eqx.nn.Linear and each "
            "convolution with groups=1 has one if its weight is chosen, and nothing "
            "else has. Leave the leaf out by `where`, or use structure='diagonal', "
            "'low_rank' or 'full'."
        )
    return tuple(layers)


def _has_factors(node):
    # Not a subclass, whose call may be another; not a stack of layers, for a scan.
    if type(node) is eqx.nn.Linear:
        return getattr(node.weight, "ndim", 2) == 2
    if type(node) in CONVOLUTIONS and node.groups == 1:
        return getattr(node.weight, "ndim", 0) == node.num_spatial_dims + 2
    return False


def kronecker_factors(
    joint: LogJoint,
    model: Model,
    layers: tuple[FactoredLayer, ...],
    x: PyTree,
    y: PyTree,
    weights: Float[Array, " rows"],
    kind: Kind,
) -> tuple[list[tuple[Array, Array]], Float[Array, "rows 2"]]:
    r"""Return sums over rows of $\sum_t a_t a_t^\top$ and of the mean over t of
    $J_t^\top H J_t$, for each layer; and the values of `output_hessian`.

    t runs over the uses of the weights for one example, the places of a convolution
    (KFAC-expand). Reference: *Kronecker-factored approximate curvature for modern
    neural network architectures*, Eschenhagen, Immer, Turner, Schneider and Hennig,
    2023, https://arxiv.org/abs/2311.00636.
    """

    def one(probes, x):
        out, inputs = _tapped(joint, model, layers, x, probes)
        return ravel(out)[0], (out, inputs)

    def all_rows(probes):
        return jax.vmap(one)(probes, x)

    probes = [
        jnp.zeros((len(weights), uses.shape[0], layer.width), uses.dtype)
        for layer, uses in zip(
            layers, layer_inputs(joint, model, layers, x), strict=True
        )
    ]
    _, pull, (out, inputs) = jax.vjp(all_rows, probes, has_aux=True)
    hessians, values = jax.vmap(lambda out, y: output_hessian(joint, out, y, kind))(
        out, y
    )
    hessians = weighted(weights, hessians)

    def add(total, pair):
        (left,), (right,) = jax.vmap(pull)(pair[0]), jax.vmap(pull)(pair[1])
        parts = [
            jnp.einsum("cnto,cntp->op", single(j), single(s)) / j.shape[2]
            for j, s in zip(left, right, strict=True)
        ]
        return jax.tree.map(jnp.add, total, parts), None

    pairs = batches_of_outputs(hessians, sum(p.size * p.dtype.itemsize for p in probes))
    start = [jnp.zeros(p.shape[-1:] * 2, single(p).dtype) for p in probes]
    outers, _ = jax.lax.scan(add, start, pairs)
    factors = []
    for a, b, layer in zip(inputs, outers, layers, strict=True):
        a = single(a)
        if layer.bias:
            a = jnp.concatenate([a, jnp.ones((*a.shape[:2], 1), a.dtype)], 2)
        width = a.shape[-1]
        left = weighted(weights, a)
        factors.append((left.reshape(-1, width).T @ a.reshape(-1, width), b))
    return factors, values


def layer_inputs(
    joint: LogJoint, model: Model, layers: tuple[FactoredLayer, ...], x: PyTree
) -> list[jax.ShapeDtypeStruct]:
    """Return the shape (uses, in) of each layer's inputs in one row."""
    row = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
    none = [None] * len(layers)
    return jax.eval_shape(lambda x: _tapped(joint, model, layers, x, none), row)[1]


def _tapped(joint, model, layers, x, probes):
    """The output, and the inputs of each layer; probes are added to their outputs."""
    notes, scope = {}, trace_scope()
    tapped = model
    for layer, probe in zip(layers, probes, strict=True):
        tapped = tree.swap(
            tapped,
            layer.path,
            lambda node, path=layer.path, probe=probe: _Tap(
                node, probe, path, scope, notes
            ),
        )
    out = joint.apply(tapped, x, key=jax.random.key(0))
    unused = [layer.path for layer in layers if layer.path not in notes]
    if unused:
        raise ValueError(
            f"no Kronecker factor for {unused[0]}: the model never calls it. "
            "Leave it out by `where`."
        )
    return out, [notes[layer.path] for layer in layers]
