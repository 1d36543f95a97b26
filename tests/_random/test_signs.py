"""Signs of one bit each: their law, and that a draw is that of its key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob._random.signs import random_signs


def test_signs_are_fair_and_independent(getkey):
    signs = np.asarray(random_signs(getkey(), (64_000,), jnp.float32))
    assert set(np.unique(signs)) == {-1.0, 1.0}
    bound = 5 / np.sqrt(len(signs))
    assert abs(signs.mean()) < bound
    for shift in (1, 31, 32, 33, 32_000):
        assert abs(np.mean(signs[:-shift] * signs[shift:])) < 1.5 * bound
    # Each of the 32 bits of a word is fair by itself.
    each = signs.reshape(-1, 32).mean(0)
    assert np.all(np.abs(each) < 5 / np.sqrt(len(signs) / 32))


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("shape", [(), (1,), (33, 2), (0, 3)])
def test_signs_have_the_shape_and_the_dtype(shape, kind, x64):
    signs = random_signs(jax.random.key(1, impl=kind), shape, jnp.float64)
    assert signs.shape == shape
    assert signs.dtype == jnp.float64
    assert np.all(np.abs(signs) == 1)


def test_signs_of_many_keys_at_once_are_those_of_each(getkey):
    keys = jax.random.split(getkey(), 3)

    def draw(key):
        return random_signs(key, (70,), jnp.float32)

    alone = jnp.stack([draw(key) for key in keys])
    assert jnp.array_equal(jax.vmap(draw)(keys), alone)
    assert len(np.unique(np.asarray(alone), axis=0)) == 3
