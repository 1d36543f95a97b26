"""Variance reduction for any module: separate noise for each example.

With one draw of the weights for a batch its rows are correlated, and the variance of
the gradient stops falling as batches grow. Linear layers and convolutions are exchanged
for layers that draw for each example; the code of the model does not change.
"""

import itertools
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._jaxpr.trace_scope import trace_scope
from ..._random.keys import example_keys
from ..._random.signs import random_signs
from ..._random.standard_normal import standard_normal
from ..._types import Model, PRNGKey
from .._weights.layers import AbstractBayesianLayer, variance_leaves
from .._weights.random_leaves import is_random, mean_leaves, sample_leaves
from .._weights.unconstrained import is_unconstrained

Estimator: TypeAlias = Literal["weight", "local", "flipout"]


class AbstractDrawn(eqx.Module):
    """Base class of layers whose weights differ between the examples of a batch."""

    @property
    def weight(self) -> Array:
        return self._read("weight")

    @property
    def bias(self) -> Array:
        return self._read("bias")

    def _read(self, name):
        raise ValueError(
            f"estimator={type(self).__name__.lower()!r} draws no {name} that a batch "
            f"shares, and this model reads the {name} of a layer beside calling it, as "
            "tied layers do. Write estimator='weight', which works for any module."
        )


class Local(AbstractDrawn):
    """A linear layer that draws its outputs: see `BayesianLinear`, `"local"`.

    It counts its uses and holds the transformation in which it was made: a second use
    for one example, or a use inside a loop or vmap of the model, would draw outputs of
    another weight matrix.
    """

    mean: Any
    variance: Any
    noise: Float[Array, " out"]
    scope: Any = eqx.field(static=True)
    uses: list = eqx.field(static=True)

    def __call__(self, x: Array, *, key: PRNGKey | None = None) -> Array:
        self.uses.append(None)
        if len(self.uses) > 1 or trace_scope() != self.scope:
            raise ValueError(
                "estimator='local' draws the outputs of each layer anew, so a layer "
                "may be used once for an example: this model uses one several times, "
                "or inside a loop or vmap, as attention and recurrent networks do. "
                "Write estimator='flipout', which works for them."
            )
        mean, variance = self.mean(x), self.variance(x**2)
        noise = self.noise.reshape(mean.shape).astype(mean.dtype)
        tiny = jnp.finfo(variance.dtype).tiny
        return mean + jnp.sqrt(jnp.maximum(variance, tiny)) * noise


class Flipout(AbstractDrawn):
    r"""An affine layer with the perturbation of the batch under signs of the example.

    $$y = \bar W x + r \circ (\Delta W (s \circ x) + \Delta b) + \bar b$$

    The matrix $\bar W + \Delta W \circ r s^\top$ has the distribution of W, and the
    matrices of two examples are uncorrelated.
    """

    mean: Any
    delta: Any
    signs: Float[Array, " features"]

    def __call__(self, x: Array, *, key: PRNGKey | None = None) -> Array:
        mean = self.mean(x)
        num = _num_inputs(self.delta)
        inner, outer = _shaped(self.signs[:num], x), _shaped(self.signs[num:], mean)
        return mean + outer * self.delta(inner * x)


def _num_inputs(layer):
    """Number of features or channels that go into a layer."""
    return layer.weight.shape[1] * getattr(layer, "groups", 1)


def _shaped(signs, x):
    """One sign for each feature or channel."""
    return signs.reshape(x.shape[:1] + (1,) * (x.ndim - 1)).astype(x.dtype)


class _Unbound(eqx.Module):
    """A layer of the batch, which becomes one of an example by its noise."""

    parts: tuple[Any, Any]
    estimator: Estimator = eqx.field(static=True)

    @property
    def num_noise(self) -> int:
        """Numbers that an example needs: one for each output, or signs at both ends."""
        layer = self.parts[0]
        inputs = _num_inputs(layer) if self.estimator == "flipout" else 0
        return len(layer.weight) + inputs

    def bind(self, noise):
        if self.estimator == "flipout":
            return Flipout(*self.parts, noise)
        return Local(*self.parts, noise, scope=trace_scope(), uses=[])


def prepare(tree: PyTree, estimator: Estimator, *, key: PRNGKey) -> PyTree:
    """Return the model of a batch: layers for the estimator, all else drawn.

    **Arguments:**

    - `tree`: a model with random leaves.
    - `estimator`: `"local"` takes linear layers, `"flipout"` convolutions as well.
    - `key`: of the batch.
    """
    takes = _is_linear if estimator == "local" else _is_affine

    def layer_of(node):
        inner = node.layer if isinstance(node, AbstractBayesianLayer) else node
        return inner if takes(inner) else None

    def is_leaf(node):
        return layer_of(node) is not None or is_random(node)

    nodes, structure = jax.tree.flatten(tree, is_leaf=is_leaf)
    layers = [layer_of(node) for node in nodes]
    rest = [node for node, layer in zip(nodes, layers, strict=True) if layer is None]
    taken = [layer for layer in layers if layer is not None]
    rest_key, *keys = example_keys(key, 1 + len(taken))
    if estimator == "local":
        # Those of all layers at once, because small ones share work.
        spread = iter(variance_leaves(taken))
    else:
        spread = map(_delta_layer, taken, keys)
    rest = iter(sample_leaves(rest, key=rest_key))
    placed = [
        next(rest)
        if layer is None
        else _Unbound((mean_leaves(layer), next(spread)), estimator)
        for layer in layers
    ]
    return jax.tree.unflatten(structure, placed)


def per_example(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Return `apply` for the model of `prepare`: each example draws its noise."""

    def wrapped(model: Model, x: Any, *, key: PRNGKey):
        noise_key, call_key = jax.random.split(key)
        leaves, structure = jax.tree.flatten(model, is_leaf=_is_unbound)
        layers = [leaf for leaf in leaves if _is_unbound(leaf)]
        if not layers:
            return apply(model, x, key=call_key)
        # One draw for all layers: each call of the generator costs as much as a layer.
        draw = standard_normal if layers[0].estimator == "local" else random_signs
        sizes = [layer.num_noise for layer in layers]
        dtype = jnp.result_type(*(layer.parts[0].weight for layer in layers))
        noise = draw(noise_key, (sum(sizes),), dtype)
        parts = iter(jnp.split(noise, list(itertools.accumulate(sizes))[:-1]))
        bound = [
            leaf.bind(next(parts)) if _is_unbound(leaf) else leaf for leaf in leaves
        ]
        return apply(jax.tree.unflatten(structure, bound), x, key=call_key)

    return wrapped


def _is_unbound(node):
    return isinstance(node, _Unbound)


def _is_linear(node):
    # A subclass may be called otherwise, and a stack of layers is for a scan.
    return (
        type(node) is eqx.nn.Linear
        and is_random(node.weight)
        and (len(node.weight.shape) == 2)
        and not is_unconstrained(node.bias)
    )


def _is_affine(node):
    if type(node) in (eqx.nn.Conv, eqx.nn.Conv1d, eqx.nn.Conv2d, eqx.nn.Conv3d):
        rank = node.num_spatial_dims + 2
        random = is_random(node.weight) and not is_unconstrained(node.bias)
        return random and len(node.weight.shape) == rank
    return _is_linear(node)


def _delta_layer(layer, key):
    """The layer with W - E[W] as its weights."""
    drawn, mean = sample_leaves(layer, key=key), mean_leaves(layer)
    return jax.tree.map(
        lambda a, b: a - b if eqx.is_inexact_array(a) else a, drawn, mean
    )
