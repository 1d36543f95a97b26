"""What is shown and written: files of loggers, bars, summaries."""

import csv
import io

import numpy as np
import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    ModelSummary,
    RichModelSummary,
    RichProgressBar,
    TQDMProgressBar,
)
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ..scene import make_data, make_module, make_trainer


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logged")
    loggers = [TensorBoardLogger(folder, "tb"), CSVLogger(folder, "csv")]
    trainer = make_trainer(folder, logger=loggers, log_every_n_steps=5)
    trainer.fit(make_module(8), make_data())
    return loggers, trainer


@pytest.mark.slow
def test_tensorboard_gets_each_step_under_its_number(logged):
    (board, _), trainer = logged
    events = EventAccumulator(board.log_dir)
    events.Reload()
    steps = [event.step for event in events.Scalars("train_loss_step")]
    assert steps == [4, 9, 14, 19, 24]
    assert [event.step for event in events.Scalars("val_loss")] == [12, 25]
    last = events.Scalars("train_loss")[-1].value
    assert np.isclose(last, float(trainer.callback_metrics["train_loss"]))


def test_csv_gets_the_same(logged):
    (_, table), _ = logged
    with open(f"{table.log_dir}/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows if row["train_loss_step"]]
    assert steps == [4, 9, 14, 19, 24]
    assert [int(row["step"]) for row in rows if row["val_loss"]] == [12, 25]


@pytest.mark.slow
@pytest.mark.parametrize("bar", [TQDMProgressBar, RichProgressBar])
def test_a_progress_bar_shows_the_metrics_and_ends_full(tmp_path, bar):
    callback = bar()
    trainer = make_trainer(tmp_path, enable_progress_bar=True, callbacks=[callback])
    trainer.fit(make_module(8), make_data())
    shown = callback.get_metrics(trainer, trainer.lightning_module)
    assert {"train_loss_step", "train_loss", "val_loss"} <= set(shown)
    if bar is TQDMProgressBar:
        assert callback.train_progress_bar.n == 13


@pytest.mark.slow
@pytest.mark.parametrize("summary", [ModelSummary, RichModelSummary])
def test_a_summary_prints_the_real_count(tmp_path, summary, monkeypatch):
    seen = {}

    def summarize(data, total, **rest):
        seen["data"], seen["total"] = dict(data), total

    monkeypatch.setattr(summary, "summarize", staticmethod(summarize))
    trainer = make_trainer(tmp_path, max_steps=1, callbacks=[summary(max_depth=2)])
    trainer.fit(make_module(1), make_data())
    assert seen["total"] == 49
    assert "layers.0" in seen["data"]["Name"]


@pytest.mark.slow
def test_a_summary_that_is_asked_for_appears(tmp_path, monkeypatch):
    import rich.console

    out = io.StringIO()
    monkeypatch.setattr(
        rich, "get_console", lambda: rich.console.Console(file=out, width=100)
    )
    callback = RichModelSummary()
    make_trainer(tmp_path, max_steps=1, callbacks=[callback]).fit(
        make_module(1), make_data()
    )
    assert isinstance(callback, pl.Callback)
    assert "49" in out.getvalue()
