"""A Bayesian classifier of digits that knows what is no digit."""

import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxprob import bnn, datasets, metrics, plot
from jaxprob.lightning import BNNModule, ImageDataModule

from .console import figures, trainer


def network(key) -> eqx.nn.Sequential:
    mlp = eqx.nn.MLP(64, 10, 64, 1, jax.nn.gelu, key=key)
    return eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), mlp])


def run(out: pathlib.Path, *, quick: bool) -> None:
    epochs = 2 if quick else 150
    data = ImageDataModule(datasets.digits(val=0.15), batch_size=128)
    split = data.split
    assert split.x_val is not None
    assert split.y_val is not None
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

    trained = module.predictive(split.x_test)
    # A mean-field posterior is underconfident: held-out rows say by how much.
    held_out = module.predictive(split.x_val)
    calibrated = bnn.calibrate(trained, held_out, split.y_val)
    figures(
        {
            "rows (train, held out, test)": ", ".join(
                str(len(x)) for x in (split.x_train, split.x_val, split.x_test)
            ),
            "accuracy": f"{float(metrics.accuracy(split.y_test, trained.probs)):.1%}",
            **scores(trained, split.y_test, "as trained"),
            **scores(calibrated, split.y_test, "calibrated"),
            **{
                f"AUROC of the entropy, digits against {name}": float(
                    metrics.auroc(trained.entropy, module.predictive(x).entropy)
                )
                for name, x in outsiders(split.x_test).items()
            },
        }
    )
    figure, axes = plt.subplots(1, 2, figsize=(11, 5.2), sharey=True)
    for ax, predictive, title in zip(
        axes, (trained, calibrated), ("as trained", "calibrated"), strict=True
    ):
        curve = metrics.reliability_curve(split.y_test, predictive.probs)
        plot.reliability_diagram(curve, title=f"Digits, {title}", ax=ax)
    figure.tight_layout()
    figure.savefig(out / "classification_reliability.png", dpi=120)
    plt.close(figure)


def scores(predictive, y: np.ndarray, name: str) -> dict[str, float]:
    return {
        f"NLL, {name} (nats per row)": -float(jnp.mean(predictive.log_prob(y))),
        f"ECE, {name}": float(metrics.ece(y, predictive.probs)),
    }


def outsiders(x: np.ndarray) -> dict[str, np.ndarray]:
    """Images that are no upright digits, with the digits' own grey levels."""
    rng = np.random.default_rng(0)
    return {
        "shuffled pixels": rng.permuted(x.reshape(len(x), -1), axis=1).reshape(x.shape),
        "Gaussian noise": rng.normal(size=x.shape).astype(np.float32),
        "digits turned by 90 degrees": np.rot90(x, axes=(2, 3)).copy(),
    }
