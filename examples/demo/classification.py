"""A Bayesian classifier of digits that knows what is no digit."""

import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxprob import bnn, metrics, plot
from jaxprob.lightning import BNNModule, ImageDataModule

from .console import figures, trainer


def network(key) -> eqx.nn.Sequential:
    mlp = eqx.nn.MLP(64, 10, 64, 1, jax.nn.gelu, key=key)
    return eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), mlp])


def run(out: pathlib.Path, *, quick: bool) -> None:
    epochs = 2 if quick else 150
    data = ImageDataModule("digits", batch_size=128)
    split = data.split
    log_joint = bnn.LogJoint(
        bnn.CategoricalLikelihood(), bnn.FanInNormal(5.0), num_data=len(split.x_train)
    )
    steps = epochs * -(-len(split.x_train) // data.batch_size)
    schedule = optax.cosine_decay_schedule(1e-2, steps)
    method = bnn.MeanFieldVI(
        log_joint, optax.adam(schedule), scale=0.05, estimator="local"
    )
    module = BNNModule(
        method, network(jax.random.key(0)), num_samples=100, lr_schedule=schedule
    )
    trainer(out, epochs, steps // epochs).fit(module, data)

    predictive = module.predictive(split.x_test)
    probs = np.asarray(predictive.probs)
    curve = metrics.reliability_curve(split.y_test, probs)
    inside = np.asarray(predictive.entropy)
    figures(
        {
            "rows (train, test)": f"{len(split.x_train)}, {len(split.x_test)}",
            "accuracy": f"{float(metrics.accuracy(split.y_test, probs)):.1%}",
            "NLL (nats per row)": float(
                metrics.categorical_nll(split.y_test, np.log(probs))
            ),
            "ECE": float(metrics.ece(split.y_test, probs)),
            **{
                f"AUROC of the entropy, digits against {name}": float(
                    metrics.auroc(inside, np.asarray(module.predictive(x).entropy))
                )
                for name, x in outsiders(split.x_test).items()
            },
        }
    )
    axes = plot.reliability_diagram(curve, title="Digits: confidence and accuracy")
    axes.figure.savefig(out / "classification_reliability.png", dpi=120)
    plt.close(axes.figure)


def outsiders(x: np.ndarray) -> dict[str, np.ndarray]:
    """Images that are no upright digits, with the digits' own grey levels."""
    rng = np.random.default_rng(0)
    return {
        "shuffled pixels": rng.permuted(x.reshape(len(x), -1), axis=1).reshape(x.shape),
        "Gaussian noise": rng.normal(size=x.shape).astype(np.float32),
        "digits turned by 90 degrees": np.rot90(x, axes=(2, 3)).copy(),
    }
