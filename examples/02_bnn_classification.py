"""A Bayesian classifier that says when it does not know.

    python examples/02_bnn_classification.py

Handwritten digits of 8 x 8 pixels (scikit-learn's set). Prints accuracy, NLL and
calibration, and how well the entropy tells digits from digits that were turned.
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytorch_lightning as pl

from jaxprob import bnn, datasets, metrics
from jaxprob.lightning import BNNModule, ImageDataModule


def main(num_epochs: int = 100) -> dict[str, float]:
    data = ImageDataModule(datasets.digits(val=0.15), batch_size=128)
    split = data.split
    assert split.x_val is not None
    assert split.y_val is not None

    # Any Equinox module will do; none of its layers knows that it is Bayesian.
    mlp = eqx.nn.MLP(64, 10, 64, 1, jax.nn.gelu, key=jax.random.key(0))
    model = eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), mlp])
    log_joint = bnn.LogJoint(
        bnn.CategoricalLikelihood(), bnn.FanInNormal(5.0), num_data=len(split.x_train)
    )
    method = bnn.MeanFieldVI(log_joint, optax.adam(1e-2), scale=0.05, estimator="local")
    module = BNNModule(method, model, num_samples=100)
    trainer = pl.Trainer(
        max_epochs=num_epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)

    predictive = module.predictive(split.x_test)
    # A mean-field posterior is underconfident: held-out rows say by how much.
    held_out = module.predictive(split.x_val)
    calibrated = bnn.calibrate(predictive, held_out, split.y_val)
    turned = module.predictive(np.rot90(split.x_test, axes=(2, 3)).copy())
    figures = {
        "accuracy": float(metrics.accuracy(split.y_test, predictive.probs)),
        "NLL": -float(np.mean(predictive.log_prob(split.y_test))),
        "NLL, calibrated": -float(np.mean(calibrated.log_prob(split.y_test))),
        "ECE": float(metrics.ece(split.y_test, predictive.probs)),
        "ECE, calibrated": float(metrics.ece(split.y_test, calibrated.probs)),
        "AUROC of the entropy against turned digits": float(
            metrics.auroc(np.asarray(predictive.entropy), np.asarray(turned.entropy))
        ),
    }
    for name, value in figures.items():
        print(f"{name}: {value:.3f}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=100)
    main(parser.parse_args().epochs)
