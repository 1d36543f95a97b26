"""A run as tensors: each leaf is packed once, in the part that it belongs to."""

import numpy as np
import torch

from jaxprob.lightning._checkpoint import torch_arrays as _torch_arrays
from jaxprob.lightning._loop.run import is_optimizer_leaf

from ..scene import make_data, make_module, make_trainer


def test_a_checkpoint_packs_each_leaf_once(tmp_path, monkeypatch):
    module, trainer = make_module(), make_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, make_data(16))
    packed, to_torch = [], _torch_arrays.to_torch

    def counted(x):
        packed.append(x)
        return to_torch(x)

    monkeypatch.setattr(_torch_arrays, "to_torch", counted)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    leaves = _torch_arrays.leaf_names(module.state)
    assert len(packed) == len(leaves)
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    states = {
        name.removeprefix("state."): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith("state.")
    }
    (optimizer,) = checkpoint["optimizer_states"]
    assert not states.keys() & optimizer.keys()
    assert states.keys() | optimizer.keys() == leaves.keys()
    assert set(optimizer) == {name for name in leaves if is_optimizer_leaf(name)}
    for name, tensor in {**states, **optimizer}.items():
        assert np.array_equal(np.asarray(leaves[name]), tensor.numpy())
