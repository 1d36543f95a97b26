"""A state split over devices, through the Trainer and its checkpoints."""

from typing import Any

import jax
import numpy as np
import pytest
from pytorch_lightning.callbacks import ModelCheckpoint

from jaxprob import Layout

from ..scene import bits, make_data, make_module, make_trainer, predicted

FOUR = Layout(shard=4, min_shard_size=16)


def fitted(folder, layout, path=None):
    """Two epochs of 13 steps and 7 updates, saved after the first or resumed there."""
    module = make_module(8, layout=layout)
    options: dict[str, Any] = {"max_epochs": 2, "accumulate_grad_batches": 2}
    if path is None:
        saving = ModelCheckpoint(folder, every_n_epochs=1, save_top_k=-1)
        options |= {"enable_checkpointing": True, "callbacks": [saving]}
    make_trainer(folder, **options).fit(module, make_data(), ckpt_path=path)
    return module


def num_parts(module):
    leaves = jax.tree.leaves(module.state)
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    cut = [len({str(s.index) for s in a.addressable_shards}) for a in arrays]
    assert {n for a, n in zip(arrays, cut, strict=True) if a.size >= 16} == {4}
    return max(cut)


def close(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    for name in one:
        if name != "run.description":
            np.testing.assert_allclose(
                other[name].numpy(), one[name].numpy(), rtol=1e-5, atol=1e-6
            )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_split_state_trains_saves_and_resumes_in_any_layout(tmp_path):
    whole = fitted(tmp_path / "whole", FOUR)
    alone = fitted(tmp_path / "alone", None)
    assert num_parts(whole) == 4
    close(alone, whole)
    trainer = make_trainer(tmp_path)
    rows = [predicted(trainer, module, make_data()) for module in (alone, whole)]
    np.testing.assert_allclose(*rows, rtol=1e-5, atol=1e-6)
    path = tmp_path / "whole" / "epoch=0-step=7.ckpt"
    again = fitted(tmp_path / "again", FOUR, path)
    assert num_parts(again) == 4
    assert bits(again) == bits(whole)
    for layout in (None, Layout(data=2, shard=2, min_shard_size=16)):
        close(alone, fitted(tmp_path / "other", layout, path))
    path = tmp_path / "alone" / "epoch=0-step=7.ckpt"
    close(alone, fitted(tmp_path / "split", FOUR, path))
