"""Histograms and images for TensorBoard and Weights & Biases; CSV does without."""

import sys
import types
from typing import Any

import numpy as np
import pytest
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jaxprob.lightning import ParameterHistograms, log_histogram, log_image

from ..scene import make_data, make_module, make_trainer

NAMES = [f"model/layers.{i}.{leaf}" for i in (0, 3) for leaf in ("bias", "weight")]


def events_of(logger):
    events = EventAccumulator(logger.log_dir, size_guidance={"histograms": 0})
    events.Reload()
    return events


@pytest.mark.slow
def test_parameters_reach_tensorboard_and_do_not_trouble_csv(tmp_path):
    board = TensorBoardLogger(tmp_path, "tb")
    trainer = make_trainer(
        tmp_path,
        max_epochs=4,
        logger=[board, CSVLogger(tmp_path, "csv")],
        log_every_n_steps=5,
        callbacks=[ParameterHistograms(every_n_epochs=2)],
    )
    module = make_module(8)
    trainer.fit(module, make_data())
    events = events_of(board)
    assert sorted(events.Tags()["histograms"]) == NAMES
    found = events.Histograms("model/layers.0.weight")
    assert [event.step for event in found] == [26, 52]
    values = np.asarray(module.model.layers[0].weight)
    last = found[-1].histogram_value
    assert last.num == values.size
    assert np.isclose(last.sum, values.sum(), rtol=1e-5)
    assert np.isclose(last.min, values.min())
    assert np.isclose(last.max, values.max())


def test_the_leaves_can_be_chosen(tmp_path):
    board = TensorBoardLogger(tmp_path, "tb")
    trainer = make_trainer(
        tmp_path,
        max_epochs=1,
        logger=board,
        log_every_n_steps=5,
        callbacks=[ParameterHistograms("layers.*.bias")],
    )
    trainer.fit(make_module(8), make_data())
    assert sorted(events_of(board).Tags()["histograms"]) == [NAMES[0], NAMES[2]]


class Wandb(WandbLogger):
    """The logger of Weights & Biases with its connection cut."""

    def __init__(self):
        self.logged = []

    @property
    def experiment(self):
        return types.SimpleNamespace(log=self.logged.append)

    def log_image(self, key, images, step=None, **kwargs):
        self.logged.append({key: images, "step": step})


@pytest.fixture
def wandb(monkeypatch):
    fake: Any = types.ModuleType("wandb")
    fake.Histogram = lambda values: ("histogram", len(values))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return Wandb()


def test_weights_and_biases_gets_both(tmp_path, wandb):
    trainer = make_trainer(tmp_path)
    trainer.loggers = [wandb]
    log_histogram(trainer, "h", np.array([[1.0, np.nan], [2.0, np.inf]]), 7)
    image = np.zeros((2, 2, 1), np.float32)
    log_image(trainer, "i", image, 8)
    histogram, shown = wandb.logged
    assert histogram == {"h": ("histogram", 2), "trainer/global_step": 7}
    assert shown["step"] == 8
    assert shown["i"][0] is image


def test_values_none_of_which_is_finite_are_left_out(tmp_path, wandb):
    trainer = make_trainer(tmp_path)
    trainer.loggers = [wandb]
    log_histogram(trainer, "h", np.full(3, np.nan), 1)
    assert wandb.logged == []


def test_a_wrong_interval_is_rejected():
    with pytest.raises(ValueError, match="every_n_epochs=0"):
        ParameterHistograms(every_n_epochs=0)
