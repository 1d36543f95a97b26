"""Kronecker factors of weights that are used several times for a row, against exact
blocks.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob.bnn._laplace.layers import Layers
from jaxprob.diffusion import nn

NOISE = 0.5


def fit(model, x, y, structure: Any = "kronecker", likelihood=None, **kwargs) -> Any:
    likelihood = likelihood or bnn.NormalLikelihood(NOISE)
    joint = bnn.LogJoint(likelihood, bnn.FanInNormal(), num_data=len(x))
    method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)), structure, **kwargs)
    return method.posterior(method.init(model), [(x, y)])


def dense(posterior):
    """The curvature as a matrix, from its blocks."""
    curvature = posterior.curvature
    eye = jnp.eye(sum(block.size for block in curvature.blocks))
    total = np.zeros(eye.shape)
    for block in curvature.blocks:
        basis = np.asarray(block.matrix(eye))
        factors = map(np.asarray, (block.outputs, block.inputs))
        total += np.einsum("agoi,gop,gij,bgpj->ab", basis, *factors, basis)
    return total


class Tokens(eqx.Module):
    """A linear map of three tokens, applied in one of many ways."""

    layer: eqx.nn.Linear
    way: str = eqx.field(static=True)
    average: bool = eqx.field(static=True)

    def __call__(self, x):
        layer, bias = self.layer, self.layer.bias
        assert bias is not None
        rows = {
            "vmap": lambda: jax.vmap(layer)(x),
            "transposed product": lambda: x @ layer.weight.T + bias[None],
            "einsum of heads": lambda: self.heads(x),
            "scan": lambda: jax.lax.scan(lambda c, t: (c, layer(t)), 0, x)[1],
            "loop in a checkpoint": lambda: eqx.filter_checkpoint(self.nested)(x),
            "called twice": lambda: jnp.stack([layer(x[0]), layer(x[1]), layer(x[2])]),
        }[self.way]()
        return jnp.mean(rows, 0) if self.average else rows

    def heads(self, x):
        weight, bias = self.layer.weight.reshape(2, 2, 2), self.layer.bias
        assert bias is not None
        return jnp.einsum("hoi,ti->tho", weight, x).reshape(3, 4) + bias[None]

    def nested(self, x):
        @eqx.filter_jit
        def call(layer, rows):
            return jax.vmap(layer)(rows)

        def step(carry, token):
            return carry, call(self.layer, token[None])[0]

        return jax.lax.scan(step, 0, x, reverse=True)[1]


WAYS = ("vmap", "transposed product", "einsum of heads", "scan")
WAYS += ("loop in a checkpoint", "called twice")


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_one_shared_layer_is_its_block_exactly(x64, getkey, way, average):
    r"""$\sum a a^\top$ of all tokens for a loss of each, of means for one loss."""
    layer = eqx.nn.Linear(2, 4, key=getkey())
    x = np.random.default_rng(0).normal(size=(5, 3, 2))
    y = np.zeros((5, 4) if average else (5, 3, 4))
    sharing = "reduce" if average else "expand"
    posterior = fit(Tokens(layer, way, average), x, y, sharing=sharing)
    (block,) = posterior.curvature.blocks
    a = np.concatenate([x, np.ones((5, 3, 1))], 2)
    a = a.mean(1) if average else a.reshape(-1, 3)
    inner = a.T @ a / NOISE**2
    exact = np.kron(np.eye(4), inner)
    found = np.kron(block.outputs[0], block.inputs[0])
    assert np.allclose(found, exact, rtol=0.0, atol=1e-12)
    assert (block.start, block.bias_start) == (0, 8)


LAYERS = {
    "depthwise": (
        lambda key: eqx.nn.Conv2d(3, 3, 2, stride=2, groups=3, key=key),
        (3, 5, 4),
        3,
    ),
    "transposed, grouped": (
        lambda key: eqx.nn.ConvTranspose1d(4, 2, 3, 2, groups=2, key=key),
        (4, 3),
        2,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_grouped_and_transposed_convolutions_are_their_ggn(x64, getkey, name):
    """With Gaussian noise on every place the weights enter linearly."""
    make, shape, groups = LAYERS[name]
    model = make(getkey())
    x = jax.random.normal(getkey(), (4, *shape))
    y = jax.vmap(model)(x) + 0.1
    posterior = fit(model, x, y, sharing="expand")
    assert posterior.curvature.blocks[0].shape[0] == groups
    exact = fit(model, x, y, "full")
    assert np.allclose(dense(posterior), exact.curvature.matrix, rtol=0.0, atol=1e-10)
    evidence = posterior.log_evidence()
    assert np.isclose(evidence, exact.log_evidence(), rtol=0.0, atol=1e-9)


class Stack(eqx.Module):
    """Layers that are stacked for a scan, or of an ensemble under `vmap`."""

    layers: eqx.nn.Linear
    is_scan: bool = eqx.field(static=True)

    def __init__(self, is_scan, key):
        keys = jax.random.split(key, 3)
        self.layers = eqx.filter_vmap(lambda k: eqx.nn.Linear(2, 2, key=k))(keys)
        self.is_scan = is_scan

    def __call__(self, x):
        if not self.is_scan:
            return eqx.filter_vmap(lambda layer, x: layer(x))(self.layers, x)
        arrays, static = eqx.partition(self.layers, eqx.is_array)

        def step(carry, pair):
            arrays, token = pair
            return carry, eqx.combine(arrays, static)(token)

        return jax.lax.scan(step, 0, (arrays, x))[1]


@pytest.mark.slow
@pytest.mark.parametrize("is_scan", [True, False])
def test_stacked_layers_are_groups(x64, getkey, is_scan):
    model = Stack(is_scan, getkey())
    x = jax.random.normal(getkey(), (6, 3, 2))
    y = jnp.zeros((6, 3, 2))
    posterior = fit(model, x, y)
    (block,) = posterior.curvature.blocks
    assert block.shape == (3, 2, 2)
    assert block.bias_start == 12
    exact = fit(model, x, y, "full").curvature.matrix
    assert np.allclose(dense(posterior), exact, rtol=0.0, atol=1e-10)


class Others(eqx.Module):
    """Leaves that are no linear maps: a table of positions, gains, a number."""

    positions: jax.Array
    norm: eqx.nn.LayerNorm
    scale: jax.Array

    def __call__(self, x):
        rows = jax.vmap(self.norm)(x) + self.positions
        return jnp.exp(self.scale) * rows


def test_other_leaves_have_their_own_blocks(x64, getkey):
    """A vector's block is exact for any model; a table's for a loss of each entry."""
    model = Others(
        0.1 * jax.random.normal(getkey(), (3, 2)), eqx.nn.LayerNorm(2), jnp.array(0.3)
    )
    x = jax.random.normal(getkey(), (5, 3, 2))
    data = (x, jnp.zeros((5, 3, 2)))
    where = ("positions", "norm", "scale")
    posterior = fit(model, *data, where=where)
    exact = np.asarray(fit(model, *data, "full", where=where).curvature.matrix)
    paths = {b.path: b.shape for b in posterior.curvature.blocks}
    assert paths == {
        "positions": (1, 3, 2),
        "norm.weight": (1, 1, 2),
        "norm.bias": (1, 1, 2),
        "scale": (1, 1, 1),
    }
    blocks = np.zeros_like(exact)
    for start, stop in ((0, 6), (6, 8), (8, 10), (10, 11)):
        blocks[start:stop, start:stop] = exact[start:stop, start:stop]
    assert np.allclose(dense(posterior), blocks, rtol=0.0, atol=1e-12)


class Recurrent(eqx.Module):
    cell: Any
    head: eqx.nn.Linear

    def __call__(self, x):
        lstm = isinstance(self.cell, eqx.nn.LSTMCell)
        zero = jnp.zeros(3, x.dtype)

        def step(h, token):
            return self.cell(token, h), None

        hidden, _ = jax.lax.scan(step, (zero, zero) if lstm else zero, x)
        return self.head(hidden[0] if lstm else hidden)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [eqx.nn.GRUCell, eqx.nn.LSTMCell])
def test_factors_of_recurrent_cells_are_the_definition(x64, getkey, cell):
    """Inputs of each step, and derivatives in what each step adds, from autodiff."""
    model = Recurrent(cell(2, 3, key=getkey()), eqx.nn.Linear(3, 2, key=getkey()))
    x = jax.random.normal(getkey(), (4, 5, 2))
    posterior = fit(model, x, jnp.zeros((4, 2)), sharing="expand")
    blocks = {block.path: block for block in posterior.curvature.blocks}
    assert blocks["cell.weight_ih"].bias_start is not None
    a = np.concatenate([x, np.ones((4, 5, 1))], 2).reshape(-1, 3)
    assert np.allclose(blocks["cell.weight_ih"].inputs[0], a.T @ a)

    def output(shifts, x):
        """A bias of each step is a probe of its pre-activation."""

        def step(h, pair):
            token, shift = pair
            own = eqx.tree_at(lambda c: c.bias, model.cell, model.cell.bias + shift)
            return own(token, h), None

        zero = jnp.zeros(3)
        start = (zero, zero) if cell is eqx.nn.LSTMCell else zero
        hidden, _ = jax.lax.scan(step, start, (x, shifts))
        return model.head(hidden[0] if cell is eqx.nn.LSTMCell else hidden)

    width = model.cell.bias.size
    jacobian = jax.vmap(lambda x: jax.jacrev(output)(jnp.zeros((5, width)), x))(x)
    b = np.einsum("ncto,nctp->op", jacobian, jacobian) / (4 * 5) / NOISE**2
    assert np.allclose(blocks["cell.weight_ih"].outputs[0], b, rtol=0.0, atol=1e-12)


class Attention(eqx.Module):
    attention: eqx.nn.MultiheadAttention
    head: eqx.nn.Linear

    def __call__(self, x):
        return self.head(self.attention(x, x, x).mean(0))


@pytest.mark.slow
def test_attention_is_covered_and_its_traces_are_exact(x64, getkey):
    attention = eqx.nn.MultiheadAttention(2, 4, use_query_bias=True, key=getkey())
    model = Attention(attention, eqx.nn.Linear(4, 3, key=getkey()))
    x = jax.random.normal(getkey(), (4, 3, 4))
    found = fit(model, x, jnp.zeros((4, 3))).curvature
    exact = fit(model, x, jnp.zeros((4, 3)), "diagonal").curvature.diagonal
    covered = jnp.zeros(exact.size)
    for block in found.blocks:
        trace = jnp.trace(block.inputs[0]) * jnp.trace(block.outputs[0])
        assert np.isclose(trace, jnp.sum(block.matrix(exact)), rtol=1e-9), block.path
        covered = block.put(covered, block.matrix(exact))
    assert np.array_equal(covered, exact)


def parts(model, x):
    """Kind and shape of each part, and how many weights they cover."""
    joint = bnn.LogJoint(
        bnn.NormalLikelihood(NOISE), bnn.FanInNormal(), num_data=1,
        apply=lambda model, x, *, key: model(*x),
    )  # fmt: skip
    flags = jax.tree.map(eqx.is_inexact_array, model)
    found = Layers(joint, model, flags, jax.tree.map(lambda a: a[None], x)).parts
    return {part.path: part for part in found}


def test_all_matrices_of_a_diffusion_transformer_are_layers(getkey):
    model = nn.DiT((1, 4, 4), 2, width=4, depth=1, num_classes=3, key=getkey())
    found = parts(model, (jnp.ones((1, 4, 4)), jnp.array(0.2), jnp.array(1)))
    matrices = [p for p, a in jaxprob.tree.paths(model).items() if a.ndim == 2]
    others = {path for path in matrices if found[path].kind != "layer"}
    # The program adds one of them, and takes a row of the other.
    assert others == {"positions", "embedding.classes"}
    assert all(found[path].bias_start for path in matrices if path not in others)


def test_a_weight_read_in_two_ways_is_a_table(getkey):
    """A product with its square is no linear map, nor is one with its transpose."""

    class Read(eqx.Module):
        weight: jax.Array
        way: str = eqx.field(static=True)

        def __call__(self, x):
            if self.way == "squared":
                return self.weight**2 @ x
            if self.way == "penalised":
                return self.weight @ x + jnp.sum(self.weight)
            if self.way == "columns":
                return self.weight[:, :1] @ x[:1] + self.weight[:, 1:] @ x[1:]
            if self.way == "a branch":
                return jax.lax.cond(x[0] > 0, lambda w: w @ x, lambda w: w @ -x,
                                    self.weight)  # fmt: skip
            return self.weight @ jnp.tanh(self.weight.T @ x)

    for way in ("squared", "penalised", "columns", "a branch", "transposed"):
        weight = jax.random.normal(getkey(), (2, 2))
        (part,) = parts(Read(weight, way), (jnp.ones(2),)).values()
        assert part.kind == "table", way


def test_a_bias_that_other_paths_pass_by_is_a_vector(getkey):
    """The derivative in what is added is not that in the result of the product."""

    class Residual(eqx.Module):
        weight: jax.Array
        bias: jax.Array
        is_residual: bool = eqx.field(static=True)

        def __call__(self, x):
            product = self.weight @ x
            if self.is_residual:
                return jnp.tanh(product + self.bias) + product
            return jnp.tanh(x + (product + self.bias))

    for is_residual in (False, True):
        weight = jax.random.normal(getkey(), (3, 3))
        model = Residual(weight, jnp.ones(3), is_residual)
        kinds = [part.kind for part in parts(model, (jnp.ones(3),)).values()]
        assert kinds == (["layer", "vector"] if is_residual else ["layer"])


def test_a_factor_that_is_too_large_is_rejected_by_name(getkey):
    table = eqx.nn.Embedding(20_000, 1, key=getkey())
    where = {"table": table, "head": eqx.nn.Linear(1, 1, key=getkey())}

    class Words(eqx.Module):
        layers: dict

        def __call__(self, word):
            return self.layers["head"](self.layers["table"](word))

    with pytest.raises(
        ValueError, match=r"layers\.table\.weight.*20000 x 20000.*where"
    ):
        parts(Words(where), (jnp.array(3),))
