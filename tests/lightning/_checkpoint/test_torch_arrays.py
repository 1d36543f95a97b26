"""Arrays through torch and back: every bit, every dtype, or an error with the leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxprob.lightning import (
    CheckpointMismatchError,
    export_safetensors,
    import_safetensors,
)
from jaxprob.lightning._checkpoint.torch_arrays import (
    from_torch,
    pack,
    to_torch,
    unpack,
)

from ..scene import bits_of, network

DTYPES = [
    "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64",
    "float8_e4m3fnuz", "float8_e4m3b11fnuz", "int4", "uint4",
    "int8", "int16", "int32", "uint8", "uint16", "uint32", "bool",
]  # fmt: skip


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 5)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_comes_back(tmp_path, dtype, shape):
    raw = np.random.default_rng(0).integers(0, 2, size=shape)
    x = jnp.asarray(raw).astype(dtype)
    path = tmp_path / "x.pt"
    torch.save(to_torch(x), path)
    back = from_torch("x", torch.load(path, weights_only=True), x)
    assert back.dtype == x.dtype
    assert back.shape == x.shape
    assert bits_of(back) == bits_of(x)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_typed_keys_come_back(impl, shape):
    key = jax.random.key(7, impl=impl)
    key = jax.random.split(key, shape) if shape else key
    back = from_torch("key", to_torch(key), key)
    assert back.dtype == key.dtype
    assert jnp.array_equal(jax.random.key_data(back), jax.random.key_data(key))


def test_double_precision_comes_back(x64):
    x = jnp.asarray(np.random.default_rng(0).normal(size=5))
    assert x.dtype == jnp.float64
    assert bits_of(from_torch("x", to_torch(x), x)) == bits_of(x)


def test_a_tensor_is_a_copy(getkey):
    x = jnp.ones(3)
    tensor = to_torch(x)
    tensor += 1
    assert jnp.array_equal(x, jnp.ones(3))


@pytest.mark.parametrize(
    "other", [torch.zeros(4), torch.zeros(3, dtype=torch.float16), torch.zeros(3, 1)]
)
def test_another_shape_or_dtype_names_the_leaf(other):
    tree = {"layers": [jnp.zeros(3)]}
    with pytest.raises(CheckpointMismatchError, match=r"layers\.0"):
        unpack(tree, {"layers.0": other})


def test_a_tree_comes_back():
    model = network(3)
    assert bits_of(unpack(network(4), pack(model))) == bits_of(model)


def test_safetensors_carry_the_weights(tmp_path):
    model = network(3)
    path = tmp_path / "model.safetensors"
    export_safetensors(model, path)
    assert bits_of(import_safetensors(network(4), path)) == bits_of(model)
    with pytest.raises(CheckpointMismatchError, match="layers"):
        import_safetensors(network(4, width=8), path)
