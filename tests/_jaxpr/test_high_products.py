"""The upper half of a product, by half-words and on several devices."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxprob import Layout
from jaxprob._jaxpr.high_products import partition_high_products


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "int32", "uint64", "int64"])
def test_products_are_exact(dtype):
    info = np.iinfo(dtype)
    x = np.array([info.min, info.min + 1, 0, 1, 3, info.max - 1, info.max], dtype)
    x, y = np.repeat(x, len(x)), np.tile(x, len(x))
    exact = [(int(a) * int(b)) >> info.bits for a, b in zip(x, y, strict=True)]
    partition_high_products()
    with jax.enable_x64(True):
        found = jax.jit(lambda x, y: jax.lax.mulhi(x, y))(x, y)  # compiled anew
    assert [int(value) for value in found] == exact


def test_draws_of_philox_on_several_devices_are_those_of_one():
    key = jax.random.key(0, impl="philox4x32")
    layout = Layout(data=4)

    def draw(key):
        return jax.random.bits(key, (64,))

    split = NamedSharding(layout.mesh, PartitionSpec("data"))
    found = jax.jit(draw, out_shardings=split)(key)
    np.testing.assert_array_equal(found, draw(key))
