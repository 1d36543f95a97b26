"""The canary: private names of Lightning exist, are listed, and stand in one file."""

import ast
import importlib
import inspect
import pathlib
import re

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, ModelSummary
from pytorch_lightning.loops.fetchers import _PrefetchDataFetcher
from pytorch_lightning.loops.loop import _Loop
from pytorch_lightning.loops.utilities import _select_data_fetcher
from pytorch_lightning.overrides.distributed import _IndexBatchSamplerWrapper
from pytorch_lightning.trainer import call
from pytorch_lightning.trainer.states import RunningStage
from pytorch_lightning.utilities.combined_loader import CombinedLoader, _MaxSizeCycle
from torch.utils.data import BatchSampler

import jaxprob.lightning
from jaxprob.lightning._trainer import contract as _contract, private as _private
from jaxprob.lightning._trainer.contract import CONTRACT, has
from jaxprob.lightning._trainer.warnings import silence_false_alarms

from ..scene import make_data, make_module, make_trainer

HOUSE = pathlib.Path(jaxprob.lightning.__file__).parent
EXTERNAL = ("pytorch_lightning", "lightning_fabric", "torch", "fsspec")
OURS = {"_engine"}  # the one private object of a `LearnerModule`


def iterated_loader():
    silence_false_alarms()
    loader = CombinedLoader([[1, 2]], "max_size_cycle")
    iter(loader)
    return loader


def connected_fetcher():
    fetcher = _PrefetchDataFetcher()
    fetcher.setup(iterated_loader())
    iter(fetcher)
    return fetcher


def iterated_sampler():
    sampler = _IndexBatchSamplerWrapper(BatchSampler([0], 1, False))
    iter(sampler)
    return sampler


EXAMPLES = {
    "Trainer": lambda folder: make_trainer(folder),
    "ModelCheckpoint": lambda folder: ModelCheckpoint(folder),
    "ModelSummary": lambda folder: ModelSummary(),
    "LightningModule": lambda folder: pl.LightningModule(),
    "CombinedLoader": lambda folder: iterated_loader(),
    "_ModeIterator": lambda folder: iterated_loader()._iterator,
    "_PrefetchDataFetcher": lambda folder: connected_fetcher(),
    "_Loop": lambda folder: _Loop,
    "_IndexBatchSamplerWrapper": lambda folder: iterated_sampler(),
    "trainer.call": lambda folder: call,
}


@pytest.mark.parametrize(
    ("kind", "path"), [(kind, path) for kind in CONTRACT for path in CONTRACT[kind]]
)
def test_lightning_has_the_names_of_the_contract(tmp_path, kind, path):
    assert has(EXAMPLES[kind](tmp_path), path)
    assert not has(EXAMPLES[kind](tmp_path), path + "_gone")


def private_names(tree):
    """Names with a leading underscore that are read, written or imported."""
    names = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= {node.value} if re.fullmatch(r"_\w+", node.value) else set()
    return {name for name in names if re.match(r"_[^_]", name)}


def test_every_private_name_in_use_stands_in_the_contract():
    listed = {
        part
        for kind, paths in CONTRACT.items()
        for path in (kind, *paths)
        for part in path.split(".")
    }
    # Classes: that of the signals' connector, and of objects with a state.
    listed |= {"_SignalConnector", "_Stateful"}
    found = private_names(ast.parse(inspect.getsource(_private)))
    assert found - listed == set()
    wrong = "import x\ndef f(trainer):\n    trainer.fit_loop._new_name()\n"
    assert private_names(ast.parse(wrong)) - listed == {"_new_name"}


def test_the_loader_is_iterated_as_we_think():
    loader = iterated_loader()
    assert isinstance(loader._iterator, _MaxSizeCycle)
    assert loader._iterator.iterators
    assert loader._iterator._idx == 0


def test_the_fetcher_of_training_is_the_one_we_replace(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.strategy.connect(make_module())
    fetcher = _select_data_fetcher(trainer, RunningStage.TRAINING)
    assert type(fetcher) is _PrefetchDataFetcher


def test_counting_steps_moves_every_counter(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.strategy._lightning_module = make_module()
    _private.count_steps(trainer, 5)
    assert trainer.global_step == 5
    assert _private.batch_in_run(trainer) == _private.batch_in_epoch(trainer) == 4
    assert _private.logger_step(trainer) == 5


def test_updates_of_accumulated_batches_are_counted(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.strategy._lightning_module = make_module()
    trainer.accumulate_grad_batches = 4
    assert _private.batches_until(trainer, 2) == 8
    _private.count_steps(trainer, 3)
    assert trainer.global_step == 0
    assert _private.batches_until(trainer, 1) == 1
    _private.count_steps(trainer, 2)
    assert trainer.global_step == 1
    assert _private.batches_until(trainer, 1) == 3
    _private.count_steps(trainer, 4)
    assert trainer.global_step == _private.logger_step(trainer) == 2


@pytest.mark.parametrize("kind", ["Trainer", "LightningModule", "ModelCheckpoint"])
def test_a_lightning_without_it_is_rejected_by_name(tmp_path, monkeypatch, kind):
    trainer = make_trainer(
        tmp_path, enable_checkpointing=True, callbacks=[ModelCheckpoint(tmp_path)]
    )
    gone = {**CONTRACT, kind: {"fit_loop.gone": "a test"}}
    monkeypatch.setattr(_contract, "CONTRACT", gone)
    with pytest.raises(RuntimeError, match=rf"{kind}\.fit_loop\.gone.*for a test"):
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


# Reaches into Lightning, outside of the one file.


def inherited(cls):
    """Private names that a class of ours has from bases of other packages."""
    names = set()
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] in EXTERNAL:
            names |= {name for name in vars(base) if re.match(r"_[^_]", name)}
            source = inspect.getsource(base)
            names |= set(re.findall(r"self\.(_[a-z]\w*)", source))
    return names


def reaches(tree, classes):
    """Reads of private names of other packages in a file, as text.

    **Arguments:**

    - `classes`: private names that each class of the file inherits, by class.
    """
    found = []

    def visit(node, own):
        if isinstance(node, ast.ClassDef):
            own = classes.get(node.name, set())
        if isinstance(node, ast.ImportFrom) and not node.level:
            private = [a.name for a in node.names if a.name.startswith("_")]
            if (node.module or "").partition(".")[0] in EXTERNAL and private:
                found.append(f"import {private}")
        if isinstance(node, ast.Attribute):
            is_self = isinstance(node.value, ast.Name) and node.value.id in (
                "self",
                "cls",
            )
            private = re.match(r"_[^_]", node.attr) and node.attr not in OURS
            if private and (not is_self or node.attr in own):
                found.append(ast.unparse(node))
            if node.attr == "__dict__" and not is_self:
                found.append(ast.unparse(node))
            if node.attr in ("fit_loop", "epoch_loop"):
                found.append(ast.unparse(node))
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("getattr", "setattr", "hasattr")
            and isinstance(node.args[1], ast.Constant)
            and re.match(r"_[^_]", str(node.args[1].value))
        ):
            found.append(ast.unparse(node))
        for child in ast.iter_child_nodes(node):
            visit(child, own)

    visit(tree, set())
    return found


def classes_of(path):
    name = ".".join(("jaxprob.lightning", *path.relative_to(HOUSE).parts))
    module = importlib.import_module(name.removesuffix(".py").removesuffix(".__init__"))
    return {
        name: inherited(cls)
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and cls.__module__ == module.__name__
    }


def test_only_one_file_touches_the_inside_of_lightning():
    for path in HOUSE.rglob("*.py"):
        if path.name != "private.py":
            tree = ast.parse(path.read_text())
            assert reaches(tree, classes_of(path)) == [], path.name


@pytest.mark.parametrize(
    "wrong",
    [
        "from pytorch_lightning.loops.loop import _Loop",
        "trainer._signal_connector",
        "trainer.fit_loop.batch_idx",
        "callback._max_depth",
        "fetcher.__dict__",
        "getattr(callback, '_train_time_interval', 0)",
        "class Own:\n    def f(self):\n        return self._trainer",
        "class Own:\n    def f(self):\n        return super()._trainer",
    ],
)
def test_a_reach_into_lightning_is_found(wrong):
    assert reaches(ast.parse(wrong), {"Own": inherited(pl.LightningModule)})


def test_the_private_names_of_our_own_classes_are_no_reaches():
    right = "class Own:\n    def f(self):\n        return self._run"
    assert not reaches(ast.parse(right), {"Own": inherited(pl.LightningModule)})
