"""A Bayesian curve, with its bands before and after training.

    python examples/11_bands.py

Noise that grows with x, and no data in a gap. The network gives a mean and a scale for
each x, and has a posterior over its weights: the inner band is what more data would
narrow, the rest is noise. Prints how well both are found; writes `runs/bands.png`.
"""

import argparse
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytorch_lightning as pl

from jaxprob import bnn, datasets, metrics, plot
from jaxprob.lightning import BNNModule, TabularDataModule


def draw(module, data, title, ax):
    """Mean, total band and epistemic band along x, in the units of the data."""
    x = np.linspace(-0.2, 1.2, 201, dtype=np.float32)[:, None]
    predictive = module.predictive(data.x_scaler(x))
    scale = data.y_scaler.inverse_scale
    split = data.split
    plot.predictive_band(
        x,
        data.y_scaler.inverse(np.asarray(predictive.mean)),
        scale(np.sqrt(np.asarray(predictive.variance))),
        epistemic=scale(np.sqrt(np.asarray(predictive.epistemic))) ** 2,
        data=(
            data.x_scaler.inverse(split.x_train),
            data.y_scaler.inverse(split.y_train),
        ),
        title=title,
        ax=ax,
    )


def judge(module, data):
    """Coverage of test rows, and the noise found beside the noise there is."""
    split = data.split
    predictive = module.predictive(split.x_test)
    lower, upper = predictive.interval(0.95)
    found = data.y_scaler.inverse_scale(np.sqrt(np.asarray(predictive.aleatoric)))
    _, noise = datasets.heteroscedastic_truth(data.x_scaler.inverse(split.x_test))
    return {
        "coverage of the 95 % interval": float(
            metrics.coverage(split.y_test, lower, upper)
        ),
        "log-likelihood": float(np.mean(predictive.log_prob(split.y_test))),
        "error of the noise's scale": float(np.sqrt(np.mean((found - noise) ** 2))),
    }


def main(num_epochs: int = 400) -> dict[str, float]:
    data = TabularDataModule(datasets.heteroscedastic(num_test=2000), batch_size=50)
    num_data = len(data.split.x_train)
    # Two outputs: the mean, and the scale before its softplus.
    model = eqx.nn.MLP(1, 2, 50, 1, jnp.tanh, key=jax.random.key(0))
    prior = bnn.PriorByPath(
        {"layers.0": bnn.IsotropicNormal(3.0), "*": bnn.FanInNormal()}
    )
    joint = bnn.LogJoint(bnn.HeteroscedasticNormal(), prior, num_data=num_data)
    steps = num_epochs * -(-num_data // data.batch_size)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-2, steps))
    # Twenty draws from the prior, each drawn to the data and back to where it began.
    method = bnn.DeepEnsemble(
        bnn.AnchoredMAP(joint, optimizer),
        num_members=20,
        make=lambda key: bnn.sample_prior(model, prior, key=key),
    )
    module = BNNModule(method, model)

    figure, axes = plt.subplots(1, 2, figsize=(12, 4.2), sharey=True)
    draw(module, data, "before", axes[0])
    figures = {f"before: {k}": v for k, v in judge(module, data).items()}
    options = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    pl.Trainer(max_epochs=num_epochs, **options).fit(module, data)
    draw(module, data, "after", axes[1])
    figures |= {f"after: {k}": v for k, v in judge(module, data).items()}

    for name, value in figures.items():
        print(f"{name}: {value:.3f}")
    path = pathlib.Path("runs/bands.png")
    path.parent.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"bands: {path}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=400)
    main(parser.parse_args().epochs)
