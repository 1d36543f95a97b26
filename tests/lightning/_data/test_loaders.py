"""Loaders that are not ours train to the same bits, or are rejected."""

import multiprocessing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

import jaxprob
from jaxprob.lightning import ArrayDataModule

from ..scene import arrays, bits, make_module, make_trainer

ROWS, SIZE = 96, 8

pytestmark = [
    # Lightning advises more workers for any DataLoader without.
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


def trained(folder, data, steps=8, **options):
    module = make_module(steps)
    make_trainer(folder, **options).fit(module, data)
    return bits(module)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    ours = jaxprob.ArrayLoader(arrays(ROWS), batch_size=SIZE, drop_last=True)
    return trained(tmp_path_factory.mktemp("reference"), ours)


def rows() -> Any:
    return list(zip(*arrays(ROWS), strict=True))


def numpy_collate(examples):
    return tuple(np.stack(column) for column in zip(*examples, strict=True))


def dataset_of_tensors():
    return TensorDataset(*(torch.from_numpy(a) for a in arrays(ROWS)))


class Iterable:
    """The least that a loader can be; it fills one buffer again and again."""

    def __init__(self):
        self.buffer = tuple(np.empty((SIZE, 1), np.float32) for _ in range(2))

    def __iter__(self):
        for start in range(0, ROWS, SIZE):
            for kept, array in zip(self.buffer, arrays(ROWS), strict=True):
                kept[:] = array[start : start + SIZE]
            yield self.buffer


class Sized(Iterable):
    def __len__(self):
        return ROWS // SIZE


class OfTensors(Iterable):
    def __iter__(self):
        for batch in super().__iter__():
            yield [torch.from_numpy(a) for a in batch]


LOADERS = {
    "tensors": lambda: DataLoader(dataset_of_tensors(), batch_size=SIZE),
    "numpy collate": lambda: DataLoader(
        rows(), batch_size=SIZE, collate_fn=numpy_collate
    ),
    "iterable": Iterable,
    "sized": Sized,
    "of tensors": OfTensors,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_of_another_kind_trains_to_the_same_bits(tmp_path, reference, name):
    assert trained(tmp_path, LOADERS[name]()) == reference


@pytest.mark.slow
def test_workers_from_a_fork_server_train_to_the_same_bits(tmp_path, reference):
    loader = DataLoader(
        dataset_of_tensors(),
        batch_size=SIZE,
        num_workers=1,
        multiprocessing_context="forkserver",
        persistent_workers=True,
    )
    assert trained(tmp_path, loader) == reference


def test_workers_that_fork_are_rejected(tmp_path):
    loader = DataLoader(dataset_of_tensors(), batch_size=SIZE, num_workers=2)
    assert multiprocessing.get_start_method() == "fork"
    with pytest.raises(ValueError, match="forkserver"):
        trained(tmp_path, loader)


@pytest.fixture
def hugging_face():
    datasets = pytest.importorskip("datasets", reason="jaxprob[frameworks]")
    datasets.disable_progress_bars()
    x, y = arrays(ROWS)
    return datasets.Dataset.from_dict({"x": x, "y": y}).with_format("numpy")


def pair(examples):
    stacked = {k: np.stack([e[k] for e in examples]) for k in ("x", "y")}
    return tuple(a.astype(np.float32).reshape(-1, 1) for a in stacked.values())


@pytest.mark.slow
def test_a_hugging_face_data_set_in_a_dataloader(tmp_path, reference, hugging_face):
    loader = DataLoader(hugging_face, batch_size=SIZE, collate_fn=pair)
    assert trained(tmp_path, loader) == reference


@pytest.mark.slow
def test_a_hugging_face_data_set_as_arrays_in_memory(tmp_path, hugging_face):
    columns = hugging_face[:]
    x, y = (columns[k].astype(np.float32).reshape(-1, 1) for k in ("x", "y"))
    ours = ArrayDataModule(train=arrays(ROWS), batch_size=SIZE)
    theirs = ArrayDataModule(train=(x, y), batch_size=SIZE)
    assert trained(tmp_path, theirs) == trained(tmp_path, ours)


class Spoil(pl.Callback):
    """Overwrites each batch that it is shown, after the step on it was handed over."""

    sees_every_batch = False

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        for leaf in jax.tree.leaves(batch):
            if leaf.dtype != bool:
                leaf[...] = np.nan


@pytest.mark.parametrize("steps", [1, 8])
def test_arrays_that_change_after_they_were_handed_over_change_nothing(tmp_path, steps):
    data = ArrayDataModule(train=arrays(ROWS), batch_size=SIZE)
    untouched = trained(tmp_path, data, steps)
    assert trained(tmp_path, data, steps, callbacks=[Spoil()]) == untouched


def generator():
    for start in range(0, ROWS, SIZE):
        yield tuple(a[start : start + SIZE] for a in arrays(ROWS))


@pytest.mark.slow
def test_a_generator_trains_one_epoch_and_says_so_at_the_next(tmp_path):
    once = trained(tmp_path, generator(), max_epochs=1)
    ours = jaxprob.ArrayLoader(arrays(ROWS), batch_size=SIZE, drop_last=True)
    assert once == trained(tmp_path, ours, max_epochs=1)
    with pytest.raises(ValueError, match="used up"):
        trained(tmp_path, generator(), max_epochs=2)


def endless():
    while True:
        yield from generator()


def test_a_generator_without_an_end_trains_for_a_number_of_steps(tmp_path, reference):
    steps = 2 * ROWS // SIZE
    assert trained(tmp_path, endless(), max_epochs=-1, max_steps=steps) == reference


@pytest.mark.slow
@pytest.mark.parametrize(
    "batches",
    [
        lambda: arrays(8)[0],
        lambda: [arrays(8), arrays(8)],
        lambda: [torch.zeros(8, 1)],
        lambda: jnp.zeros((8, 1)),
    ],
    ids=["array", "list of pairs", "tensors", "jax"],
)
def test_batches_that_would_be_taken_for_loaders_are_rejected(tmp_path, batches):
    with pytest.raises(ValueError, match="ArrayDataModule"):
        trained(tmp_path, batches())
