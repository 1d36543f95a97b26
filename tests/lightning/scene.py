"""One small regression that the tests of the bridge share."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytorch_lightning as pl

import jaxprob
from jaxprob.lightning import ArrayDataModule, LearnerModule
from jaxprob.lightning._checkpoint.seal import check_seal


@jaxprob.mean_loss
def noisy_squared_error(model, example, *, key):
    """A loss with noise and dropout: its key matters."""
    x, y = example
    noise_key, dropout_key = jax.random.split(key)
    x = x + 0.05 * jax.random.normal(noise_key, x.shape)
    error = jnp.sum((model(x, key=dropout_key) - y) ** 2)
    return error, {"rmse": jnp.sqrt(error)}


def predicted(trainer, module, data) -> np.ndarray:
    """The predictions of all batches as one array."""
    found: Any = trainer.predict(module, data)
    return np.concatenate(found)


def network(seed=0, width=16):
    first, second = jax.random.split(jax.random.key(seed))
    return eqx.nn.Sequential(
        [
            eqx.nn.Linear(1, width, key=first),
            eqx.nn.Lambda(jnp.tanh),
            eqx.nn.Dropout(0.1),
            eqx.nn.Linear(width, 1, key=second),
        ]
    )


def make_learner(optimizer=None, loss=noisy_squared_error):
    optimizer = optax.adam(1e-2) if optimizer is None else optimizer
    return jaxprob.GradientDescent(loss, optimizer, ema=jaxprob.EMA(0.99))


def make_module(steps_per_dispatch=8, optimizer=None, seed=0, **kwargs):
    return LearnerModule(
        make_learner(optimizer),
        network(),
        seed=seed,
        steps_per_dispatch=steps_per_dispatch,
        **kwargs,
    )


def arrays(rows, seed=0):
    x = np.random.default_rng(seed).uniform(-2, 2, size=(rows, 1)).astype(np.float32)
    return x, np.sin(2 * x).astype(np.float32)


def make_data(rows=100, batch_size=8, **kwargs):
    return ArrayDataModule(
        train=arrays(rows),
        validation=arrays(20, 1),
        test=arrays(20, 2),
        predict=arrays(20, 3)[0],
        batch_size=batch_size,
        **kwargs,
    )


def make_trainer(folder, **kwargs):
    """A Trainer that writes nothing unless asked to."""
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "max_epochs": 2,
    }
    return pl.Trainer(default_root_dir=folder, **{**quiet, **kwargs})


def bits_of(tree):
    """All arrays of a tree, as bytes."""
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_array))
    return [np.asarray(leaf).tobytes() for leaf in leaves]


def bits(module):
    """All arrays of a module's state, as bytes."""
    return bits_of(module.state)


def sealed(path):
    """Whether a file carries our hash; raises where it does not fit."""
    with path.open("rb") as file:
        return check_seal(file, str(path))
