"""Inner activations of any model, by path, against the same computed by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob import tree


@pytest.fixture(scope="module")
def mlp():
    return eqx.nn.MLP(2, 1, 4, 2, jnp.tanh, key=jax.random.key(0))


def by_hand(mlp, x):
    first = mlp.layers[0](x)
    second = mlp.layers[1](jnp.tanh(first))
    return first, second, mlp.layers[2](jnp.tanh(second))


@pytest.mark.slow
def test_they_are_what_the_parts_give(mlp):
    x = jnp.asarray([0.3, -1.0])
    y, inner = tree.activations(mlp, eqx.nn.Linear, x)
    assert list(inner) == ["layers.0", "layers.1", "layers.2"]
    for (found,), expected in zip(inner.values(), by_hand(mlp, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(y, mlp(x), rtol=1e-6)


@pytest.mark.slow
def test_under_jit_and_vmap_and_without_a_leak(mlp):
    x = jax.random.normal(jax.random.key(1), (5, 2))

    @eqx.filter_jit
    def hidden(mlp, x):
        y, inner = jax.vmap(lambda x: tree.activations(mlp, "layers.1", x))(x)
        return y, inner["layers.1"][0]

    with jax.checking_leaks():
        y, found = hidden(mlp, x)
    _, second, last = jax.vmap(lambda x: by_hand(mlp, x))(x)
    np.testing.assert_allclose(found, second, rtol=1e-6)
    np.testing.assert_allclose(y, last, rtol=1e-6)


@pytest.mark.slow
def test_they_have_gradients(mlp):
    x = jnp.asarray([0.3, -1.0])

    def energy(mlp):
        return jnp.sum(tree.activations(mlp, "layers.0", x)[1]["layers.0"][0] ** 2)

    found = eqx.filter_grad(energy)(mlp)
    expected = eqx.filter_grad(lambda m: jnp.sum(m.layers[0](x) ** 2))(mlp)
    assert eqx.tree_equal(found, expected, rtol=1e-6)


def test_a_part_called_several_times_gives_a_list(mlp):
    x = jnp.asarray([0.3, -1.0])
    _, inner = tree.activations(mlp, ("activation", "layers.0"), x)
    first, second, _ = by_hand(mlp, x)
    # The MLP holds its activation once for each width.
    calls = [jnp.ravel(value) for value in inner["activation"]]
    np.testing.assert_allclose(
        jnp.concatenate(calls), jnp.tanh(jnp.concatenate([first, second])), rtol=1e-6
    )
    assert len(inner["layers.0"]) == 1


def test_an_outer_part_and_one_inside_of_it(mlp):
    model = eqx.nn.Sequential([mlp, eqx.nn.Lambda(jnp.exp)])
    x = jnp.asarray([0.3, -1.0])
    y, inner = tree.activations(model, ("layers.0.layers.1", "layers.0"), x)
    np.testing.assert_allclose(inner["layers.0"][0], mlp(x), rtol=1e-6)
    np.testing.assert_allclose(inner["layers.0.layers.1"][0], by_hand(mlp, x)[1])
    np.testing.assert_allclose(y, jnp.exp(mlp(x)), rtol=1e-6)


@pytest.mark.slow
def test_what_a_model_maps_itself_comes_whole():
    """Attention calls its projections for each place of the sequence."""
    attention = eqx.nn.MultiheadAttention(2, 4, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (5, 4))
    y, inner = tree.activations(attention, "query_proj", x, x, x)
    (found,) = inner["query_proj"]
    np.testing.assert_allclose(found, x @ attention.query_proj.weight.T, rtol=1e-5)
    np.testing.assert_allclose(y, attention(x, x, x), rtol=1e-5)


def test_a_part_stays_of_its_class():
    """`Sequential` asks a layer whether it has a state."""
    model, state = eqx.nn.make_with_state(eqx.nn.Sequential)(
        [
            eqx.nn.Linear(2, 3, key=jax.random.key(0)),
            eqx.nn.BatchNorm(3, "batch", mode="ema", inference=True),
        ]
    )
    x = jnp.ones(2)
    (y, _), inner = tree.activations(model, "layers.1", x, state)
    np.testing.assert_array_equal(inner["layers.1"][0][0], y)
    np.testing.assert_allclose(y, model(x, state)[0], rtol=1e-6)


def test_the_model_is_as_it_was(mlp):
    leaves = jax.tree.leaves(mlp)
    tree.activations(mlp, eqx.nn.Linear, jnp.ones(2))
    assert all(a is b for a, b in zip(leaves, jax.tree.leaves(mlp), strict=True))


class Looped(eqx.Module):
    cell: eqx.nn.Linear
    spare: eqx.nn.Linear

    def __call__(self, x):
        return jax.lax.scan(lambda h, _: (self.cell(h), None), x, None, length=3)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("cell", "inside a loop"),
        ("spare", "is not called"),
        ("cell.weight", "ArrayImpl, which is not called"),
        ("other", "has no 'other'"),
        (eqx.nn.Conv2d, "no such module"),
    ],
)
def test_what_cannot_be_had_is_refused(where, message):
    layers = (eqx.nn.Linear(2, 2, key=jax.random.key(i)) for i in range(2))
    with pytest.raises(ValueError, match=message):
        tree.activations(Looped(*layers), where, jnp.ones(2))
