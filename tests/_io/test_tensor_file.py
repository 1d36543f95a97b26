"""Bytes of a file are a function of its content."""

import numpy as np

from jaxprob._io import tensor_file


def test_texts_are_in_order_and_read_back(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays = {"b": np.arange(3.0), "a": np.zeros((2, 2), np.float32)}
    texts = {str(i): 'é"' * i for i in range(9)}
    contents = set()
    for _ in range(8):  # the hash table of safetensors has another salt in each
        tensor_file.write(path, arrays, texts)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    found, metadata = tensor_file.read(path)
    assert metadata == texts
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
