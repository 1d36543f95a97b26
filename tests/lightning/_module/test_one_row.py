"""A data set of one row, such as one trajectory, trains in Lightning."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
import pytorch_lightning as pl

from jaxprob import bnn
from jaxprob.lightning import ArrayDataModule, BNNModule


class Line(eqx.Module):
    """A trajectory: y(t) = w t + b at all times of a row."""

    line: eqx.nn.Linear

    def __call__(self, times):
        return jax.vmap(self.line)(times[:, None])


@pytest.mark.slow
def test_lightning_takes_one_row():
    model = Line(eqx.nn.Linear(1, 1, key=jax.random.key(0)))
    times = np.linspace(0.0, 2.0, 9, dtype=np.float32)
    row = times[None], (1.0 + times)[None, :, None]
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.IsotropicNormal(1.0), 1)
    options: Any = {
        "logger": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
    }
    quiet: Any = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_steps=2, **options, **quiet)
    module = BNNModule(bnn.MAP(joint, optax.adam(1e-2)), model)
    trainer.fit(module, ArrayDataModule(train=row, batch_size=1))
    assert module.model.line.weight != model.line.weight
