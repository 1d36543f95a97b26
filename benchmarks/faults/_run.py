"""The training that is killed and signalled, and the hash of where it ends."""

import hashlib
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

import jaxprob
from jaxprob.lightning import ArrayDataModule, LearnerModule

K = 8  # steps per dispatch


def quiet() -> None:
    """A child's first line: no advice, and programs compiled once for all children."""
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    if folder := os.environ.get("FAULTS_CACHE"):
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def make_module() -> LearnerModule:
    """Shuffling, noise in the loss, Adam and an EMA: all that a resume has to keep."""

    @jaxprob.mean_loss
    def loss(model, example, *, key):
        x, y = example
        x = x + 0.1 * jax.random.normal(key, x.shape)
        return jnp.sum((model(x) - y) ** 2), {}

    learner = jaxprob.GradientDescent(loss, optax.adam(1e-2), ema=jaxprob.EMA(0.99))
    model = eqx.nn.MLP(1, 1, 16, 1, key=jax.random.key(0))
    return LearnerModule(learner, model, steps_per_dispatch=K)


def make_data(**extra: Any) -> ArrayDataModule:
    x = np.random.default_rng(0).normal(size=(200, 1)).astype(np.float32)
    return ArrayDataModule(train=(x, np.sin(x)), batch_size=8, **extra)


def make_trainer(folder: Path, epochs: int, callbacks: list[Any]) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        default_root_dir=folder,
    )


def hash_of(module: LearnerModule) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(eqx.filter(module.state, eqx.is_array)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
