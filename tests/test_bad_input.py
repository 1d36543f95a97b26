"""What is wrong with the data is said before any training, with row and remedy.

The same table for the plain loop and for Lightning.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import pytorch_lightning as pl

import jaxprob
from jaxprob import bnn, datasets, diffusion
from jaxprob.lightning import ArrayDataModule, BNNModule
from tests.unhooked import unhooked

ROWS = 20
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 3)).astype(np.float32)
Y = X[:, :1].copy()
LABELS = RNG.integers(0, 4, ROWS).astype(np.int32)


def put(array, index, value):
    out = array.copy()
    out[index] = value
    return out


REGRESSION = {
    "NaN in x": (put(X, (4, 1), np.nan), Y, r"data\[0\].*row 4, column 1: nan"),
    "infinity in y": (X, put(Y, 7, np.inf), r"data\[1\].*row 7.*inf"),
    "other lengths": (X, Y[:-1], r"20.*19"),
    "no rows": (X[:0], Y[:0], r"num_data=0"),
    "integers for x": ((10 * X).astype(int), Y, r"x is int64.*x\.astype"),
    "integers for y": (X, LABELS[:, None], r"y is int32.*y\.astype"),
    "y without its axis": (X, Y[:, 0], r"shape \(1,\) and y has shape \(\)"),
}
CLASSIFICATION = {
    "a label too large": (X, put(LABELS, 5, 4), r"y row 5 is 4, outside.*3"),
    "a negative label": (X, put(LABELS, 6, -1), r"y row 6 is -1, outside"),
    "real labels": (X, LABELS.astype(np.float32), r"y is float32.*y\.astype"),
}


def in_a_loop(method, model, x, y):
    jaxprob.fit(method, model, (x, y), key=jax.random.key(0), num_steps=1)


def in_lightning(method, model, x, y):
    trainer = pl.Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(BNNModule(method, model), ArrayDataModule(train=(x, y)))


TRAINING = pytest.mark.parametrize("train", [in_a_loop, in_lightning])


def refused(train, x, y, message, likelihood, num_outputs):
    def start():
        log_joint = bnn.LogJoint(likelihood, bnn.FanInNormal(), num_data=len(x))
        model = eqx.nn.Linear(3, num_outputs, key=jax.random.key(0))
        train(bnn.MeanFieldVI(log_joint, optax.sgd(0.1)), model, x, y)

    with unhooked(), pytest.raises((ValueError, TypeError), match=message):
        start()


@TRAINING
@pytest.mark.parametrize("case", REGRESSION)
def test_regression(case, train):
    x, y, message = REGRESSION[case]
    refused(train, x, y, message, bnn.NormalLikelihood(0.3), 1)


@TRAINING
@pytest.mark.parametrize("case", CLASSIFICATION)
def test_classification(case, train):
    x, y, message = CLASSIFICATION[case]
    refused(train, x, y, message, bnn.CategoricalLikelihood(), 4)


def test_good_data_pass():
    log_joint = bnn.LogJoint(
        bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=ROWS
    )
    method = bnn.MeanFieldVI(log_joint, optax.sgd(0.1))
    method.check(eqx.nn.Linear(3, 1, key=jax.random.key(0)), (X, Y))


def test_indices_into_an_embedding_are_no_mistake():
    class Looked(eqx.Module):
        table: eqx.nn.Embedding

        def __call__(self, i):
            return self.table(i)

    log_joint = bnn.LogJoint(
        bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=ROWS
    )
    model = Looked(eqx.nn.Embedding(4, 1, key=jax.random.key(0)))
    bnn.MeanFieldVI(log_joint, optax.sgd(0.1)).check(model, (LABELS, Y))


def test_a_constant_column():
    with pytest.raises(ValueError, match=r"x column 2 is constant.*constant='keep'"):
        datasets.train_test_split(put(X, (slice(None), 2), 1.0), Y).standardize()


def test_an_image_that_the_patches_do_not_tile():
    with pytest.raises(ValueError, match=r"patch_size=4 does not divide.*height 10"):
        diffusion.kidger_mixer((1, 10, 10), patch_size=4, key=jax.random.key(0))


@pytest.mark.parametrize(
    "read", [lambda root: datasets.uci("yacht", root), datasets.mnist]
)
def test_a_folder_that_is_not_there(read, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"root: there is no .*missing"):
        read(tmp_path / "missing")


IMAGES = RNG.normal(size=(ROWS, 1, 4, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (put(IMAGES, (3, 0, 2, 2), np.nan), r"row 3, column 0, 2, 2: nan"),
        ((IMAGES * 10).astype(np.uint8), r"x_0 is uint8: standardise"),
        (IMAGES[:, 0], r"images of shape \(1, 4, 4\); got \(4, 4\)"),
    ],
)
def test_images(images, message):
    denoiser = diffusion.kidger_mixer(
        (1, 4, 4), patch_size=2, mix_patch_size=4, mix_hidden_size=4, num_blocks=1,
        hidden_size=4, key=jax.random.key(0),
    )  # fmt: skip
    learner = jaxprob.GradientDescent(diffusion.DenoisingLoss(), optax.sgd(0.1))
    with unhooked(), pytest.raises((ValueError, TypeError), match=message):
        jaxprob.fit(learner, denoiser, images, key=jax.random.key(1), num_steps=1)


@pytest.mark.slow
def test_images_far_from_unit_scale_are_told_of():
    denoiser = diffusion.kidger_mixer((1, 4, 4), patch_size=2, key=jax.random.key(0))
    with pytest.warns(UserWarning, match=r"mean 43\.2 and standard deviation 101"):
        diffusion.DenoisingLoss().check(denoiser, jnp.asarray(100 * IMAGES + 50))
