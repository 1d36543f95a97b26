"""Which rows the predictions of a Trainer are of."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.utils.data import DataLoader

import jaxprob
from jaxprob.lightning import ArrayDataModule, LearnerModule

from ..scene import make_trainer

VALUES = np.arange(10, dtype=np.float32)[:, None]


class Identity(eqx.Module):
    weight: jax.Array

    def __call__(self, x):
        return x + 0.0 * self.weight


def module():
    def loss(model, batch, *, key):
        return jnp.sum(model.weight), {}

    learner = jaxprob.GradientDescent(loss, optax.sgd(0.1))
    return LearnerModule(learner, Identity(jnp.ones(1)))


def torch_rows():
    dataset: Any = torch.from_numpy(VALUES)
    return DataLoader(dataset, batch_size=4, shuffle=True)


def shuffled():
    return jaxprob.ArrayLoader(VALUES, batch_size=4, shuffle=True, seed=1)


class Batches:
    def __iter__(self):
        return iter([VALUES[:4], VALUES[4:]])


@pytest.mark.filterwarnings("ignore:Your `predict_dataloader`'s sampler has shuffling")
@pytest.mark.filterwarnings("ignore:The 'predict_dataloader' does not have many")
@pytest.mark.parametrize("loader", [torch_rows, shuffled])
@pytest.mark.parametrize("limit", [1.0, 2])
def test_each_prediction_has_the_number_of_its_row(tmp_path, loader, limit):
    predictor = module()
    trainer = make_trainer(tmp_path, limit_predict_batches=limit)
    outputs: Any = trainer.predict(predictor, loader())
    rows = predictor.predicted_rows
    assert [len(part) for part in rows] == [4, 4, 2][: 3 if limit == 1.0 else 2]
    for part, numbers in zip(outputs, rows, strict=True):
        assert np.array_equal(part, VALUES[numbers])
    if limit == 1.0:
        assert sorted(np.concatenate(rows)) == list(range(10))
        assert list(np.concatenate(rows)) != list(range(10))


def test_rows_of_several_loaders_and_of_none(tmp_path):
    predictor = module()
    data = ArrayDataModule(predict=VALUES, batch_size=8)
    trainer = make_trainer(tmp_path)
    trainer.predict(predictor, data)
    assert [list(part) for part in predictor.predicted_rows] == [
        list(range(8)),
        [8, 9],
    ]
    trainer.predict(predictor, [shuffled(), Batches()])
    first, second = predictor.predicted_rows
    assert sorted(np.concatenate(first)) == list(range(10))
    assert second == [None, None]
