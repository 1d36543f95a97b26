"""Rows of `jaxprob.lightning`: the weights in checkpoints, and what was logged."""

import logging
import tempfile
from pathlib import Path

import jax
import numpy as np
import optax
import pytorch_lightning as pl

import jaxprob
from jaxprob import bnn, diffusion
from jaxprob.lightning import (
    ArrayDataModule,
    BNNModule,
    DiffusionModule,
    LearnerModule,
    export_safetensors,
    import_safetensors,
)

from ._problems import dropped, mlp, regression
from ._training import squared_error


def after(module, data, **settings):
    """Return the weights of the checkpoint after two epochs, and the metrics."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            default_root_dir=folder,
            accelerator="cpu",
            max_epochs=2,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **settings,
        )
        trainer.fit(module, data)
        logged = {n: np.asarray(v) for n, v in trainer.callback_metrics.items()}
        path = Path(folder) / "last.ckpt"
        trainer.save_checkpoint(path)
        given = {}
        if isinstance(module, LearnerModule) and type(module) is LearnerModule:
            given = {"learner": module.learner, "model": module.model}
        model = type(module).load_from_checkpoint(path, **given).model
        weights = Path(folder) / "model.safetensors"
        export_safetensors(module.model, weights)
        exported = import_safetensors(module.model, weights)
    return {"checkpoint": model, "exported": exported, "logged": logged}


def table():
    data = regression()
    return ArrayDataModule(train=data, validation=data, batch_size=3)


def inference():
    """Return the weights and metrics of variational inference."""
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), 8)
    method = bnn.MeanFieldVI(joint, optax.adam(1e-2))
    return after(BNNModule(method, mlp(), num_samples=4, seed=3), table())


def ensemble():
    """Return the weights and metrics of an ensemble."""
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), 8)
    method = bnn.DeepEnsemble(bnn.MAP(joint, optax.adam(1e-2)), 2)
    return after(BNNModule(method, mlp(), seed=3), table())


def learner(**settings):
    """Return the weights and metrics of gradient descent."""
    method = jaxprob.GradientDescent(
        squared_error, optax.adam(1e-2), ema=jaxprob.EMA(0.9)
    )
    return after(LearnerModule(method, dropped(), seed=3), table(), **settings)


def denoiser():
    """Return the weights and metrics of a diffusion model, and its samples."""
    net = diffusion.nn.ResidualMLP(2, width=8, depth=1, key=jax.random.key(31))
    module = DiffusionModule(
        jaxprob.GradientDescent(
            diffusion.DenoisingLoss(), optax.adam(1e-2), ema=jaxprob.EMA(0.9)
        ),
        diffusion.Preconditioned(net, diffusion.VP.linear()),
        shape=(2,),
        sampler=diffusion.Heun(3),
        seed=7,
        num_previews=0,
    )
    x = np.random.default_rng(10).normal(size=(16, 2)).astype(np.float32)
    found = after(module, ArrayDataModule(train=x, validation=x, batch_size=6))
    # Only the network is trained; a schedule's settings are no weights.
    weights = {name: found[name].net for name in ("checkpoint", "exported")}
    return found | weights | {"sample": module.sample(3).x_0}


ROWS = {
    "Lightning: BNNModule": inference,
    "Lightning: BNNModule of an ensemble": ensemble,
    "Lightning: LearnerModule": learner,
    "Lightning: LearnerModule, bf16-mixed": lambda: learner(precision="bf16-mixed"),
    "Lightning: DiffusionModule": denoiser,
}
