"""`vmap_last` gives what `jax.vmap` gives, with other products inside."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob._jaxpr.examples_last import vmap_last

ROWS, WIDTH = 12, 6


def mlp(activation):
    return eqx.nn.MLP(3, 2, WIDTH, 2, activation, key=jax.random.key(0))


class Own(eqx.Module):
    """Products from both sides, what the examples share, a loop without products."""

    a: jax.Array
    b: jax.Array
    scale: jax.Array

    def __init__(self):
        keys = jax.random.split(jax.random.key(1))
        self.a = jax.random.normal(keys[0], (3, WIDTH))
        self.b = jax.random.normal(keys[1], (WIDTH, WIDTH))
        self.scale = jnp.asarray(0.7)

    def __call__(self, x):
        h = jnp.tanh(x @ self.a)
        h = h + jax.jit(lambda h: self.b.T @ jnp.where(h > 0.1, h, self.scale))(h)
        h = h / (1.0 + jnp.dot(h, h)) + jnp.dot(self.b[0], h) * self.b[1]
        h = jax.lax.fori_loop(0, 3, lambda _, h: jnp.sin(h) + self.b[2], h)
        h = jax.nn.log_softmax(h)
        shared = jnp.sum(self.b, 0)
        return jnp.concatenate([jnp.flip(h), shared])[: WIDTH + 1], shared


class Normed(eqx.Module):
    inner: eqx.nn.MLP
    norm: eqx.nn.LayerNorm

    def __call__(self, x):
        return self.norm(jnp.outer(self.inner(x), x).ravel())


@jax.custom_vjp
def clipped(x):
    return x**2


clipped.defvjp(lambda x: (clipped(x), x), lambda x, g: (jnp.clip(2.0 * x * g, -1, 1),))


class Outer(eqx.Module):
    """Products without a sum, whose axes stand in the order of the factors."""

    a: jax.Array
    b: jax.Array

    def __init__(self):
        keys = jax.random.split(jax.random.key(1))
        self.a = jax.random.normal(keys[0], (3, 3))
        self.b = jax.random.normal(keys[1], (3,))

    def __call__(self, x):
        h = self.a @ x
        right, left = jnp.einsum("i,j->ij", h, self.b), jnp.tensordot(self.b, h, 0)
        return right, left, jnp.tensordot(h, self.a, 0), jnp.tensordot(self.a, h, 0)


class Beside(eqx.Module):
    """A rule of derivatives that reads what the model made beside it."""

    weight: jax.Array

    def __init__(self):
        self.weight = jax.random.normal(jax.random.key(1), (3, 3))

    def __call__(self, x):
        scale = jnp.sin(jnp.asarray(2.0))

        @jax.custom_jvp
        def scaled(x):
            return x * scale

        @scaled.defjvp
        def derivative(at, along):
            return scaled(*at), along[0] * scale

        return scaled(self.weight @ x)


MODELS = {
    "beside": Beside,
    "outer": Outer,
    "relu": lambda: mlp(jax.nn.relu),
    "silu": lambda: mlp(jax.nn.silu),
    "gelu": lambda: mlp(jax.nn.gelu),
    "softplus": lambda: mlp(jax.nn.softplus),
    "elu": lambda: mlp(jax.nn.elu),
    "own_vjp": lambda: mlp(clipped),
    "own": Own,
    "norm": lambda: Normed(mlp(jnp.tanh), eqx.nn.LayerNorm(6)),
}


def inputs(rows=ROWS):
    return jax.random.normal(jax.random.key(2), (rows, 3))


def close(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def total(over, static):
    """A scalar that depends on all outputs of all rows, and the outputs."""

    def value(params, x):
        out = over(lambda x: eqx.combine(params, static)(x))(x)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(out)), out

    return value


@pytest.fixture(autouse=True)
def exact(x64):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_values_and_derivatives_are_those_of_vmap(name):
    params, static = eqx.partition(MODELS[name](), eqx.is_inexact_array)
    stacked = jax.tree.map(lambda a: jnp.stack([a, 2.0 * a, -a]), params)
    x = inputs()
    found = {}
    for over in (vmap_last, jax.vmap):

        def everything(params, x, over=over):
            slope = jax.grad(total(over, static), (0, 1), has_aux=True)
            out = [
                slope(params, x),
                slope(params, 0.0 * x),  # where relu has its own rule
                jax.vmap(slope, (0, None))(stacked, x),  # the members of an ensemble
            ]
            if name != "own_vjp":  # which JAX differentiates once, and backwards only
                along = jax.tree.map(jnp.ones_like, (params, x))
                out += jax.jvp(lambda *at: slope(*at)[0], (params, x), along)
            return out

        found[over] = jax.jit(everything)(params, x)
    close(found[vmap_last], found[jax.vmap])


@pytest.mark.slow
def test_keys_integers_and_trees_are_mapped_too():
    layers = mlp(jax.nn.relu).layers
    dropout = eqx.nn.Dropout(0.4)

    def one(example, key):
        first, second = jax.random.split(key)
        h = dropout(jax.nn.relu(layers[0](example["x"])), key=first)
        h = layers[1](h) + jax.random.normal(second, (WIDTH,))
        return {"taken": h[example["label"]], "none": None, "label": example["label"]}

    rows = {"x": inputs(), "label": jnp.arange(ROWS) % WIDTH}
    keys = jax.random.split(jax.random.key(3), ROWS)
    got = vmap_last(one)(rows, keys)
    close(got, jax.vmap(one)(rows, keys))
    assert got["label"].dtype == rows["label"].dtype


def program(function, *args):
    return str(jax.make_jaxpr(function)(*args))


def test_no_activation_changes_sides():
    model = mlp(jax.nn.relu)

    def count(over):
        def loss(model, x):
            return jnp.sum(over(model)(x) ** 2)

        arrays, static = eqx.partition(model, eqx.is_array)
        slope = jax.grad(lambda arrays, x: loss(eqx.combine(arrays, static), x))
        text = program(slope, arrays, inputs())
        return text.count(f"{ROWS},{WIDTH}]"), text.count(f"{WIDTH},{ROWS}]")

    rows_first, rows_last = count(jax.vmap)
    assert rows_first > rows_last
    # What a product with W gives back to its input is such a product, transposed: one
    # call for XLA. One for each of the two later layers.
    rows_first, rows_last = count(vmap_last)
    assert rows_first == 2 < rows_last


WEIGHT = np.ones((3, 3))
WIDE = np.ones((4 * ROWS + 1, 3))


def convolving(x):
    return jnp.convolve(WEIGHT @ x, WEIGHT[0])


def in_a_loop(x):
    return jax.lax.fori_loop(0, 3, lambda _, h: jnp.tanh(WEIGHT @ h), x)


def telling(x):
    jax.debug.callback(lambda _: None, x)
    return WEIGHT @ x


def checking(x):
    return WEIGHT @ eqx.error_if(x, x > 1e6, "too large")


@jax.custom_batching.custom_vmap
def centred(x):
    return x


@centred.def_vmap
def _(_size, _mapped, x):
    return x - x.mean(0, keepdims=True), True


LEFT_ALONE = {
    "a check": checking,
    "a batching rule": lambda x: WEIGHT @ centred(x),
    "convolution": convolving,
    "loop": in_a_loop,
    "matrices": lambda x: WEIGHT @ (WEIGHT @ jnp.outer(x, x)),
    "wide": lambda x: WIDE @ x,
    "effects": telling,
    "no product": jnp.sin,
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_it_has_no_advantage_for_is_left_to_vmap(name):
    function = LEFT_ALONE[name]
    assert program(vmap_last(function), inputs()) == program(
        jax.vmap(function), inputs()
    )


def test_a_check_that_holds_raises_nothing():
    got = vmap_last(checking)(inputs())
    close(got, jax.vmap(checking)(inputs()))
    with pytest.raises(Exception, match="too large"):
        eqx.filter_jit(vmap_last(checking))(inputs() * 1e9)


@pytest.mark.slow
def test_as_wide_as_it_may_be_is_taken():
    def function(x):
        return WIDE[:-1] @ x + 1.0

    taken, plain = (program(v(function), inputs()) for v in (vmap_last, jax.vmap))
    assert taken != plain
