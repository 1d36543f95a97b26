"""One pass over the data: the curvature of the log-likelihood at a model."""

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.extend.core import get_opaque_trace_state
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .. import tree
from .._batch import Batch, unpack
from .._types import Model
from ._curvature import (
    AbstractCurvature,
    DiagonalCurvature,
    FullCurvature,
    KroneckerBlock,
    KroneckerCurvature,
)
from ._likelihood import NormalLikelihood
from ._log_joint import LogJoint, fill_padding, log_likelihood_of, xy

Structure: TypeAlias = Literal["full", "diagonal", "kronecker"]
Kind: TypeAlias = Literal["ggn", "fisher"]


def curvature(
    joint: LogJoint,
    model: Model,
    flags: PyTree[bool],
    batches: Iterable[PyTree],
    *,
    structure: Structure,
    kind: Kind,
) -> tuple[AbstractCurvature, Float[Array, ""]]:
    """The curvature over a data set and the log-likelihood there, both for N rows.

    **Arguments:**

    - `joint`: the likelihood and N. Rows that are seen are scaled to N.
    - `model`: where; used in inference mode.
    - `flags`: the leaves it is over.
    - `batches`: the training set, once.
    - `structure`: shape of the matrix.
    - `kind`: `"ggn"`, or `"fisher"` for the empirical Fisher matrix.
    """
    model = eqx.nn.inference_mode(model)
    layers = linear_layers(model, flags) if structure == "kronecker" else ()

    @eqx.filter_jit
    def sums(joint, model, batch):
        data, mask = unpack(batch)
        if isinstance(batch, Batch):
            data = fill_padding(data, mask)
        x, y = xy(data)
        weights = jnp.asarray(mask)
        if structure == "kronecker":
            matrix, values = _kronecker(joint, model, layers, x, y, weights, kind)
        else:
            matrix, values = _dense(joint, model, flags, x, y, weights, kind, structure)
        values = jnp.where(weights, values, jnp.zeros((), values.dtype))
        return matrix, jnp.sum(values), jnp.sum(weights).astype(values.dtype)

    total: Any = None
    for batch in batches:
        part = sums(joint, model, batch)
        total = part if total is None else jax.tree.map(jnp.add, total, part)
    if total is None:
        raise ValueError("batches gave no batch: give the training set once more")
    matrix, log_likelihood, count = total
    factor = joint.num_data / count
    if structure == "full":
        result = FullCurvature(factor * matrix)
    elif structure == "diagonal":
        result = DiagonalCurvature(factor * matrix)
    else:
        blocks = [
            KroneckerBlock(factor * a, b / count, layer.start, layer.bias)
            for layer, (a, b) in zip(layers, matrix, strict=True)
        ]
        result = KroneckerCurvature(tuple(blocks))
    return result, factor * log_likelihood


def output_hessian(
    joint: LogJoint, output: PyTree, y: Array, kind: Kind
) -> tuple[Float[Array, "out out"], Float[Array, ""]]:
    r"""$-\nabla_f^2 \log p(y \mid f)$, or the outer product of the gradient; and
    $\log p(y \mid f)$.

    For most likelihoods the Hessian may have negative eigenvalues at some y, which are
    set to zero. Where theory excludes them it is left alone, and differentiable.
    """
    flat, unflatten = ravel_pytree(output)

    def negative(flat):
        return -log_likelihood_of(joint.likelihood(unflatten(flat)), y)

    if kind == "fisher":
        value, gradient = jax.value_and_grad(negative)(flat)
        return jnp.outer(gradient, gradient), -value
    hessian, value = jax.hessian(negative)(flat), negative(flat)
    p = joint.likelihood(output)
    natural = isinstance(p, dist.CategoricalLogits | dist.BernoulliLogits)
    if not natural and not isinstance(joint.likelihood, NormalLikelihood):
        values, vectors = jnp.linalg.eigh(hessian)
        hessian = (vectors * jnp.maximum(values, 0.0)[None]) @ vectors.T
    return hessian, -value


def _dense(joint, model, flags, x, y, weights, kind, structure):
    vector, unravel = tree.ravel(model, flags)

    def one(x, y):
        def output(vector):
            return joint.apply(unravel(vector), x, key=jax.random.key(0))

        hessian, value = output_hessian(joint, output(vector), y, kind)
        jacobian = jax.jacrev(lambda v: ravel_pytree(output(v))[0])(vector)
        return jacobian, hessian @ jacobian, value

    jacobian, scaled, values = jax.vmap(one)(x, y)
    zero = jnp.zeros((), scaled.dtype)
    scaled = jnp.where(weights[:, None, None], scaled, zero)
    if structure == "diagonal":
        return jnp.sum(jacobian * scaled, axis=(0, 1)), values
    dim = vector.size
    return jacobian.reshape(-1, dim).T @ scaled.reshape(-1, dim), values


class _Layer(eqx.Module):
    path: str = eqx.field(static=True)
    out: int = eqx.field(static=True)
    bias: bool = eqx.field(static=True)
    start: int = eqx.field(static=True)


class _Tap(eqx.Module):
    """A linear layer that notes its input and adds a probe to its output."""

    layer: eqx.nn.Linear
    probe: Float[Array, " out"]
    path: str = eqx.field(static=True)
    scope: Any = eqx.field(static=True)
    inputs: dict = eqx.field(static=True)

    def __call__(self, x, *, key=None):
        if self.path in self.inputs or get_opaque_trace_state() != self.scope:
            raise ValueError(
                f"no Kronecker factor for {self.path}: it is used several times for an "
                "example, or inside a loop or vmap of the model's own. Use "
                "structure='diagonal' or 'full', or leave it out by `where`."
            )
        out = self.layer(x)
        self.inputs[self.path] = jnp.ravel(x)
        return out + self.probe.reshape(out.shape)


def linear_layers(model: Model, flags: PyTree[bool]) -> tuple[_Layer, ...]:
    """All linear layers that hold chosen leaves, in the order of `tree.ravel`.

    **Raises:** `ValueError` for a chosen leaf that has no Kronecker factor.
    """
    nodes = jax.tree_util.tree_leaves_with_path(model, is_leaf=_is_linear)
    chosen = tree.paths(eqx.filter(model, flags))
    layers, start, covered = [], 0, set()
    for path, node in nodes:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        prefix = name + "." if name else ""
        if not _is_linear(node) or prefix + "weight" not in chosen:
            continue
        bias = prefix + "bias" in chosen
        layers.append(_Layer(name, node.weight.shape[0], bias, start))
        start += node.weight.size + (node.bias.size if bias else 0)
        covered |= {prefix + "weight", prefix + "bias"}
    missing = [path for path in chosen if path not in covered]
    if missing:
        raise ValueError(
            f"no Kronecker factor for {missing[0]}: each eqx.nn.Linear has one "
            "whose weight is chosen, and for nothing else. Leave the leaf out by "
            "`where`, or use structure='diagonal' or 'full'."
        )
    return tuple(layers)


def _is_linear(node):
    return type(node) is eqx.nn.Linear and getattr(node.weight, "ndim", 2) == 2


def _kronecker(joint, model, layers, x, y, weights, kind):
    paths = [layer.path for layer in layers]

    def one(x, y):
        def output(probes):
            inputs, scope = {}, get_opaque_trace_state()
            tapped = model
            for path, probe in zip(paths, probes, strict=True):
                tapped = tree.swap(
                    tapped,
                    path,
                    lambda node, path=path, probe=probe: _Tap(
                        node, probe, path, scope, inputs
                    ),
                )
            out = joint.apply(tapped, x, key=jax.random.key(0))
            unused = [path for path in paths if path not in inputs]
            if unused:
                raise ValueError(
                    f"no Kronecker factor for {unused[0]}: the model never calls it. "
                    "Leave it out by `where`."
                )
            return ravel_pytree(out)[0], (out, [inputs[path] for path in paths])

        probes = [jnp.zeros(layer.out, x_dtype) for layer in layers]
        jacobians, (out, inputs) = jax.jacrev(output, has_aux=True)(probes)
        hessian, value = output_hessian(joint, out, y, kind)
        inputs = [
            jnp.concatenate([a, jnp.ones(1, a.dtype)]) if layer.bias else a
            for a, layer in zip(inputs, layers, strict=True)
        ]
        return inputs, jacobians, [hessian @ j for j in jacobians], value

    x_dtype = tree.get(model, paths[0]).weight.dtype if paths[0] else model.weight.dtype
    inputs, jacobians, scaled, values = jax.vmap(one)(x, y)
    factors = []
    for a, j, s in zip(inputs, jacobians, scaled, strict=True):
        zero = jnp.zeros((), s.dtype)
        s = jnp.where(weights[:, None, None], s, zero)
        left = jnp.where(weights[:, None], a, zero)
        width = j.shape[-1]
        factors.append((left.T @ a, j.reshape(-1, width).T @ s.reshape(-1, width)))
    return factors, values
