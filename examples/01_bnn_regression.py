"""A Bayesian neural network for a table, trained in Lightning.

    python examples/01_bnn_regression.py

Ten measurements of 354 patients and the progression of their diabetes a year later
(scikit-learn's set). Prints the test error, log-likelihood and coverage.
"""

import argparse

import equinox as eqx
import jax
import numpy as np
import optax
import pytorch_lightning as pl

from jaxprob import bnn, metrics
from jaxprob.lightning import BNNModule, TabularDataModule


def main(num_epochs: int = 200) -> dict[str, float]:
    # The data are standardised by the training rows; test rows are never looked at.
    data = TabularDataModule("diabetes", batch_size=64)
    split = data.split

    # Prior and likelihood. The noise level is a leaf of the model, and is optimised.
    model = bnn.LearnedNoise(
        eqx.nn.MLP(10, 1, 50, 1, jax.nn.gelu, key=jax.random.key(0)), scale=0.7
    )
    log_joint = bnn.LogJoint(
        bnn.HeteroscedasticNormal(), bnn.FanInNormal(), num_data=len(split.x_train)
    )

    # Inference. Another method is another line:
    #   method = bnn.DeepEnsemble(bnn.AnchoredMAP(log_joint, optax.adam(1e-2)), 20)
    method = bnn.MeanFieldVI(log_joint, optax.adam(5e-3), scale=0.05)
    module = BNNModule(method, model, num_samples=200)
    trainer = pl.Trainer(
        max_epochs=num_epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)

    # The predictive distribution, in the target's own units.
    predictive = module.predictive(split.x_test)
    y_scaler = data.y_scaler
    assert y_scaler is not None  # the target is a number
    mean = y_scaler.inverse(np.asarray(predictive.mean))
    y_test = y_scaler.inverse(split.y_test)
    log_prob = np.asarray(predictive.log_prob(split.y_test)) + y_scaler.log_det
    lower, upper = predictive.interval(0.9)
    figures = {
        "RMSE": float(metrics.rmse(y_test, mean)),
        "log-likelihood": float(log_prob.mean()),
        "coverage of the 90 % interval": float(
            metrics.coverage(split.y_test, lower, upper)
        ),
    }
    for name, value in figures.items():
        print(f"{name}: {value:.3f}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=200)
    main(parser.parse_args().epochs)
