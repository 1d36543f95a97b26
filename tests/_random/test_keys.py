import jax
import jax.numpy as jnp
import numpy as np

import jaxprob
from jaxprob._random.keys import as_seed, step_key


def data(keys):
    return {bytes(np.asarray(row)) for row in jax.random.key_data(keys).reshape(-1, 2)}


def test_example_keys_do_not_depend_on_the_batch(getkey):
    key = getkey()
    whole = jax.random.key_data(jaxprob.example_keys(key, 10))
    parts = [jaxprob.example_keys(key, 4), jaxprob.example_keys(key, 6, start=4)]
    assert jnp.array_equal(
        whole, jnp.concatenate([jax.random.key_data(p) for p in parts])
    )
    assert len(data(jaxprob.example_keys(key, 10))) == 10


def test_no_two_leaves_share_a_key(getkey):
    tree = {"a": jnp.zeros(2), "b": [jnp.zeros(3), jnp.zeros(4)], "none": None}
    keys = jaxprob.leaf_keys(getkey(), tree)
    assert jax.tree.structure(keys) == jax.tree.structure(tree)
    assert len(data(jnp.stack(jax.tree.leaves(keys)))) == 3


def test_a_leaf_keeps_its_key_when_leaves_are_added_behind_it(getkey):
    key = getkey()
    few = jaxprob.leaf_keys(key, [1.0, 2.0])
    more = jaxprob.leaf_keys(key, [1.0, 2.0, 3.0])
    assert all(jnp.array_equal(a, b) for a, b in zip(few, more[:2], strict=True))


def test_the_step_key_is_the_same_inside_jit(getkey):
    key = getkey()
    inside = jax.jit(step_key)(key, jnp.int32(7))
    assert jnp.array_equal(inside, step_key(key, 7))


def test_seeds_differ_between_keys(getkey):
    key = getkey()
    assert as_seed(key) == as_seed(key)
    assert as_seed(key) != as_seed(getkey())


def test_keys_are_fold_in_of_the_number_from_zero():
    key = jax.random.key(3)
    bits = jax.random.key_data
    for start in (0, 5):
        keys = jaxprob.example_keys(key, 3, start=start)
        for i in range(3):
            expected = jax.random.fold_in(key, start + i)
            assert np.array_equal(bits(keys[i]), bits(expected))
    for i, leaf in enumerate(jaxprob.leaf_keys(key, ["a", "b"])):
        assert np.array_equal(bits(leaf), bits(jax.random.fold_in(key, i)))
    assert np.array_equal(bits(step_key(key, 2)), bits(jax.random.fold_in(key, 2)))
