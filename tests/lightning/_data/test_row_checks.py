"""Rows of any loader are checked and counted in a Trainer, as arrays are."""

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
import torch

from jaxprob import bnn
from jaxprob.lightning import BNNModule

from ..scene import make_trainer


def loader(x, y):
    tensors = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    return torch.utils.data.DataLoader(tensors, batch_size=8)


def module(num_data):
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data)
    method = bnn.MAP(joint, optax.adam(1e-2))
    return BNNModule(method, eqx.nn.Linear(2, 1, key=jax.random.key(0)))


@pytest.mark.slow
def test_a_torch_loader_is_checked_and_counted(tmp_path):
    x = np.ones((20, 2), np.float32)
    y = x[:, :1]
    with pytest.warns(UserWarning, match="num_data=2000, and the training set has 20"):
        make_trainer(tmp_path / "a", max_epochs=1).fit(module(2000), loader(x, y))
    broken = x.copy()
    broken[11, 1] = np.nan
    message = r"batch 1: data\[0\] .* the first at row 3, column 1: nan"
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path / "b", max_epochs=1).fit(module(20), loader(broken, y))
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path / "c").validate(
            module(20), loader(broken, y), verbose=False
        )
