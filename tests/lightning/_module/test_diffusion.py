"""DiffusionModule: training, previews in the loggers, sampling by predict."""

from typing import Any

import jax
import numpy as np
import optax
import pytest
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import jaxprob
from jaxprob import datasets, diffusion
from jaxprob.lightning import ArrayDataModule, DiffusionModule, ImageDataModule
from jaxprob.lightning._logging.images import image_grid
from jaxprob.lightning._module.previews import extremes, preview_grid

from ..scene import bits, make_trainer, predicted

SHAPE = (1, 4, 4)


def make_module(**kwargs):
    denoiser = diffusion.kidger_mixer(
        SHAPE,
        patch_size=2,
        hidden_size=8,
        mix_patch_size=8,
        mix_hidden_size=8,
        num_blocks=1,
        predict="edm",
        key=jax.random.key(0),
    )
    learner = jaxprob.GradientDescent(
        diffusion.DenoisingLoss(), optax.adam(1e-3), ema=jaxprob.EMA(0.99)
    )
    return DiffusionModule(learner, denoiser, shape=SHAPE, num_previews=4, **kwargs)


def images(num=32):
    return np.random.default_rng(0).normal(size=(num, *SHAPE)).astype(np.float32)


@pytest.mark.slow
def test_previews_reach_tensorboard_and_do_not_trouble_csv(tmp_path):
    loggers = [TensorBoardLogger(tmp_path, "tb"), CSVLogger(tmp_path, "csv")]
    module = make_module(previews_every_n_epochs=2)
    trainer = make_trainer(tmp_path, max_epochs=4, logger=loggers, log_every_n_steps=1)
    trainer.fit(module, ArrayDataModule(train=images(), batch_size=8))
    events = EventAccumulator(loggers[0].log_dir, size_guidance={"images": 0})
    events.Reload()
    assert [event.step for event in events.Images("samples")] == [8, 16]


@pytest.mark.slow
def test_predict_draws_one_sample_for_each_row_and_trains_nothing(tmp_path):
    module = make_module()
    trainer = make_trainer(tmp_path)
    trainer.fit(module, ArrayDataModule(train=images(), batch_size=8))
    before = bits(module)
    rows = jaxprob.ArrayLoader(np.arange(6), batch_size=4)
    first = predicted(trainer, module, rows)
    again = predicted(trainer, module, rows)
    assert first.shape == (6, *SHAPE)
    assert np.isfinite(first).all()
    assert np.array_equal(first, again)
    assert bits(module) == before


def test_each_loader_of_predict_has_samples_of_its_own(tmp_path):
    module = make_module(sampler=diffusion.ODESampler(2))
    rows = jaxprob.ArrayLoader(np.arange(8), batch_size=4)
    found: Any = make_trainer(tmp_path).predict(module, [rows, rows, rows])
    batches = [batch.tobytes() for loader in found for batch in loader]
    assert len(set(batches)) == 6
    assert batches[1] == np.asarray(module.sample(4, index=1).x_0).tobytes()


def test_a_network_that_is_no_denoiser_is_rejected():
    learner = jaxprob.GradientDescent(diffusion.DenoisingLoss(), optax.adam(1e-3))
    with pytest.raises(TypeError, match="Preconditioned"):
        DiffusionModule(learner, jax.nn.relu, shape=SHAPE)


def test_the_grid_holds_each_image_in_its_place():
    pictures = np.arange(3, dtype=np.float32)[:, None, None, None] * np.ones(
        (1, 1, 2, 2)
    )
    grid = image_grid(pictures.astype(np.float32), pad=1)
    assert grid.shape == (7, 7, 1)
    assert (grid[1:3, 1:3] == 0.0).all()
    assert (grid[1:3, 4:6] == 0.5).all()
    assert (grid[4:6, 1:3] == 1.0).all()
    assert (grid[4:6, 4:6] == 1.0).all()


def test_classes_have_a_column_each_with_their_number_and_black_is_black():
    """Whether the conditions are tiled or repeated; samples beyond the data are cut."""
    classes = np.arange(10)
    for cond in (np.tile(classes, 3), np.repeat(classes, 3)):
        images = np.zeros((30, 1, 8, 8), np.float32) + cond[:, None, None, None]
        images[0, 0, 0, 0] = -100.0
        grid = preview_grid(images, cond, (0.0, 9.0))
        assert grid.shape == (6 + 3 * 9 + 1, 10 * 9 + 1, 1)
        cells = grid[7:].reshape(-1)[: 27 * 91].reshape(27, 91)[4::9, 4::9]
        assert np.allclose(cells, np.tile(classes / 9, (3, 1)), atol=1e-6)
        assert grid[7, 1] == 0.0
    heads = [grid[1:6, 1 + 9 * c : 9 + 9 * c] for c in classes]
    assert len({head.tobytes() for head in heads}) == 10
    assert all((head == 0).any() for head in heads)


def test_the_limits_of_previews_are_those_of_the_training_images():
    images = np.random.default_rng(0).uniform(-3, 7, (6, 1, 8, 8))
    loader = jaxprob.ArrayLoader((images, np.arange(6)), batch_size=2)
    assert extremes(loader, (1, 8, 8)) == (images.min(), images.max())
    assert extremes([loader], (1, 8, 9)) is None


@pytest.mark.parametrize("shape", [(3, 8, 6), (8, 6, 3), (8, 6, 1), (4, 8, 6)])
def test_colour_images_come_with_their_channels_first(shape):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(10, *shape)).astype(np.float32)
    y = np.arange(10) % 3
    split = datasets.Split(x[:7], y[:7], x[7:], y[7:])
    data = ImageDataModule(split, batch_size=7)
    channels = shape[0] if shape[0] in (3, 4) else shape[-1]
    assert data.split.x_train.shape == (7, channels, 8, 6)
    first = x[0] if shape[0] in (3, 4) else np.moveaxis(x[0], -1, 0)
    found = data.split.x_train[0] * x[:7].std() + x[:7].mean()
    assert np.allclose(found, first, atol=1e-5)


def test_images_of_two_channels_are_rejected():
    x = np.random.default_rng(0).uniform(size=(10, 8, 6, 2)).astype(np.float32)
    y = np.arange(10) % 3
    with pytest.raises(ValueError, match=r"shape \(8, 6, 2\).*move its axes"):
        ImageDataModule(datasets.Split(x[:7], y[:7], x[7:], y[7:]))


def test_a_grid_of_points_is_rejected():
    with pytest.raises(ValueError, match=r"\(5, 2\)"):
        image_grid(np.zeros((5, 2), np.float32))


def test_image_data_are_standardised_and_have_a_channel():
    data = ImageDataModule("digits", labels=False, batch_size=64)
    batch = next(iter(data.train_dataloader()))
    x, _ = jaxprob.unpack(batch)
    assert x.shape == (64, 1, 8, 8)
    everything = data.split.x_train
    assert abs(everything.mean()) < 1e-4
    assert abs(everything.std() - 1) < 1e-4


def test_a_table_given_as_images_is_rejected():
    with pytest.raises(ValueError, match="TabularDataModule"):
        ImageDataModule("iris")


def test_previews_samples_and_evaluation_have_keys_of_their_own():
    module = make_module()
    # What `split` gives is what `fold_in` of a small number gives.
    ours = [*jax.random.split(module._engine.keys.draws)]
    loaders = [jax.random.fold_in(module._engine.keys.evaluation, i) for i in range(3)]
    keys = [jax.random.key_data(k).tolist() for k in [*ours, *loaders]]
    assert len({tuple(k) for k in keys}) == 5
