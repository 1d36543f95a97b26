"""The canary: what we touch of Lightning's insides is still there, and nothing else."""

import ast
import inspect
import pathlib
import re

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, ModelSummary
from pytorch_lightning.loops.fetchers import _PrefetchDataFetcher
from pytorch_lightning.loops.utilities import _select_data_fetcher
from pytorch_lightning.utilities.combined_loader import CombinedLoader, _MaxSizeCycle

from jaxprob.lightning._loop import fast_forward as _fast_forward
from jaxprob.lightning._trainer import private as _private
from jaxprob.lightning._trainer.warnings import silence_false_alarms

from ..scene import make_data, make_module, make_trainer

HOUSE = pathlib.Path(_private.__file__).parents[1]

CHECKPOINT = (
    "_every_n_train_steps",
    "_train_time_interval",
    "_last_time_checked",
    "_should_skip_saving_checkpoint",
    "_monitor_candidates",
    "_save_topk_checkpoint",
    "_save_last_checkpoint",
)


@pytest.mark.parametrize("path", _private.CONTRACT)
def test_a_trainer_has_what_we_lean_on(tmp_path, path):
    assert _private._has(make_trainer(tmp_path), path)


@pytest.mark.parametrize("name", CHECKPOINT)
def test_a_checkpoint_callback_has_what_we_lean_on(name):
    assert hasattr(ModelCheckpoint(), name)


def test_a_summary_and_a_module_have_what_we_lean_on():
    assert hasattr(ModelSummary(), "_max_depth")
    assert hasattr(pl.LightningModule, "_on_before_batch_transfer")


def test_the_loader_is_iterated_as_we_think():
    silence_false_alarms()
    loader = CombinedLoader([[1, 2]], "max_size_cycle")
    iter(loader)
    assert isinstance(loader._iterator, _MaxSizeCycle)
    assert loader._iterator.iterators
    assert loader._iterator._idx == 0


def test_the_fetcher_of_training_is_the_one_we_replace(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.strategy.connect(make_module())
    fetcher = _select_data_fetcher(trainer, pl.trainer.states.RunningStage.TRAINING)
    assert type(fetcher) is _PrefetchDataFetcher


def test_counting_steps_moves_every_counter(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.strategy._lightning_module = make_module()
    _private.count_steps(trainer, 5)
    assert trainer.global_step == 5
    assert _private.batch_in_run(trainer) == _private.batch_in_epoch(trainer) == 4
    assert _private.logger_step(trainer) == 5


def test_a_lightning_without_it_is_refused_by_name(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path)
    monkeypatch.setattr(_private, "CONTRACT", ("fit_loop.gone",))
    with pytest.raises(RuntimeError, match=r"trainer\.fit_loop\.gone"):
        trainer.fit(make_module(), make_data())


@pytest.mark.slow
def test_many_steps_do_run_in_one_dispatch(tmp_path):
    # If the fetcher were not ours any more, training would be right, and slow.
    class Count(pl.Callback):
        sees_every_batch = False

        calls = 0

        def on_train_batch_start(self, *args):
            Count.calls += 1

    make_trainer(tmp_path, max_epochs=1, callbacks=[Count()]).fit(
        make_module(8), make_data()
    )
    assert Count.calls == 2  # 13 batches: 8 and 5


def test_only_one_file_touches_the_inside_of_lightning():
    ours = re.compile(r"\.(fit_loop|epoch_loop|_logger_connector|_data_fetcher)\b")
    for path in HOUSE.rglob("*.py"):
        if path.name != "private.py":
            code = ast.unparse(ast.parse(path.read_text()))
            assert not ours.search(code), path.name
    assert ours.search(inspect.getsource(_private))
    assert "private" in inspect.getsource(_fast_forward)
