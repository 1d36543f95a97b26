"""Members along a leading axis: one by one as side by side."""

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxprob.bnn._ensembles.stacked import one_by_one, stack, take


def layer(seed):
    return eqx.nn.Linear(2, 3, key=jax.random.key(seed))


def test_a_stack_gives_back_its_trees():
    layers = [layer(seed) for seed in range(3)]
    stacked = stack(layers)
    assert stacked.weight.shape == (3, 3, 2)
    for index, one in enumerate(layers):
        assert eqx.tree_equal(take(stacked, index), one)


def test_a_loop_over_members_gives_what_vmap_gives():
    stacked = stack([layer(seed) for seed in range(3)])
    x = jnp.arange(6.0).reshape(3, 2)

    def function(layer, x):
        return {"out": layer(x), "layer": layer, "name": "member"}

    found = one_by_one(function, stacked, x)
    expected = eqx.filter_vmap(function)(stacked, x)
    assert found["name"] == "member"
    assert jnp.allclose(found["out"], expected["out"], rtol=1e-6)
    assert eqx.tree_equal(found["layer"], stacked)
