"""Mean-field variational inference on a table, and on a curve with a gap."""

import pathlib

import equinox as eqx
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.linear_model import RidgeCV

from jaxprob import bnn, datasets, metrics, plot
from jaxprob.lightning import BNNModule, TabularDataModule

from .console import figures, table, trainer

LEVELS = (0.5, 0.9, 0.95)


def train(method, model, data, out, *, epochs, schedule) -> BNNModule:
    steps_per_epoch = -(-len(data.split.x_train) // data.batch_size)
    module = BNNModule(method, model, num_samples=200, lr_schedule=schedule)
    trainer(out, epochs, steps_per_epoch).fit(module, data)
    return module


def decay(data, epochs: int, learning_rate: float):
    steps_per_epoch = -(-len(data.split.x_train) // data.batch_size)
    return optax.cosine_decay_schedule(learning_rate, epochs * steps_per_epoch)


def run(out: pathlib.Path, *, quick: bool) -> None:
    diabetes(out, epochs=2 if quick else 400)
    curve(out, epochs=2 if quick else 500)


def diabetes(out: pathlib.Path, *, epochs: int) -> None:
    data = TabularDataModule("diabetes", batch_size=64)
    split, y_scaler = data.split, data.y_scaler
    y_test = y_scaler.inverse(split.y_test)
    net = eqx.nn.MLP(10, 1, 50, 1, jax.nn.gelu, key=jax.random.key(0))
    model = bnn.LearnedNoise(net, scale=0.7)
    log_joint = bnn.LogJoint(
        bnn.HeteroscedasticNormal(), bnn.FanInNormal(), num_data=len(split.x_train)
    )
    schedule = decay(data, epochs, 1e-2)
    method = bnn.MeanFieldVI(log_joint, optax.adam(schedule), num_samples=2, scale=0.05)
    module = train(method, model, data, out, epochs=epochs, schedule=schedule)

    predictive = module.predictive(split.x_test)
    mean = y_scaler.inverse(np.asarray(predictive.mean))
    log_prob = np.asarray(predictive.log_prob(split.y_test)) + y_scaler.log_det
    ridge = RidgeCV(np.logspace(-3, 3, 30)).fit(split.x_train, split.y_train[:, 0])
    baseline = y_scaler.inverse(ridge.predict(split.x_test)[:, None])
    rows = {
        "rows (train, test)": f"{len(split.x_train)}, {len(split.x_test)}",
        "test RMSE": float(metrics.rmse(y_test, mean)),
        "test RMSE of ridge regression": float(metrics.rmse(y_test, baseline)),
        "test log-likelihood (nats per row)": float(log_prob.mean()),
    }
    for level in LEVELS:
        lower, upper = predictive.interval(level)
        covered = float(metrics.coverage(split.y_test, lower, upper))
        rows[f"coverage of the {level:.0%} interval"] = f"{covered:.1%}"
    figures(rows)

    # Each measurement is pushed on in its own direction, in standard deviations.
    print("  Uncertainty (standard deviations, in the target's units):")
    lines = []
    for push in (0, 2, 4, 8):
        x = split.x_test + np.float32(push) * np.sign(split.x_test)
        away = module.predictive(x)
        scale = float(y_scaler.inverse_scale(np.ones((1, 1), np.float32))[0, 0])
        epistemic, aleatoric = (
            scale * float(np.sqrt(np.mean(part)))
            for part in (away.epistemic, away.aleatoric)
        )
        where = f"pushed out by {push}" if push else "test rows"
        lines.append((where, round(epistemic, 1), round(aleatoric, 1)))
    table(("", "epistemic", "aleatoric"), [(w, f"{e}", f"{a}") for w, e, a in lines])


def curve(out: pathlib.Path, *, epochs: int) -> None:
    """Noise that depends on x, and no data in a gap: the band has to open there.

    A mean-field Gaussian over one hidden layer cannot say "I know both sides and not
    the middle" (On the Expressiveness of Approximate Inference in Bayesian Neural
    Networks, Foong et al., 2020). Another method is another line.
    """
    gap = (0.45, 0.7)
    data = TabularDataModule(
        datasets.heteroscedastic(gap=gap, num_val=0), batch_size=50
    )
    model = eqx.nn.MLP(1, 2, 50, 1, jax.nn.tanh, key=jax.random.key(1))
    prior = bnn.PriorByPath(
        {"layers.0": bnn.IsotropicNormal(3.0), "*": bnn.FanInNormal()}
    )
    log_joint = bnn.LogJoint(
        bnn.HeteroscedasticNormal(), prior, num_data=len(data.split.x_train)
    )
    schedule = decay(data, epochs, 2e-2)
    optimizer = optax.adam(schedule)
    methods = {
        "mean-field VI": bnn.MeanFieldVI(log_joint, optimizer, scale=0.02),
        "anchored ensemble of 20": bnn.DeepEnsemble(
            bnn.AnchoredMAP(log_joint, optimizer),
            20,
            make=lambda key: bnn.sample_prior(model, prior, key=key),
        ),
    }
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.2), sharey=True)
    lines = []
    for ax, (name, method) in zip(axes, methods.items(), strict=True):
        module = train(method, model, data, out, epochs=epochs, schedule=schedule)
        lines.append((name, *draw_band(module, data, gap, name, ax)))
    print("  The curve with a gap, epistemic standard deviation:")
    table(("", "where data are", "in the gap"), lines)
    figure.tight_layout()
    figure.savefig(out / "regression_band.png", dpi=110)
    plt.close(figure)


def draw_band(module, data, gap, name, ax) -> tuple[float, float]:
    """Draw the predictive band; return epistemic std beside and inside the gap."""
    x = np.linspace(-0.2, 1.2, 281, dtype=np.float32)[:, None]
    predictive = module.predictive(data.x_scaler(x))
    mean = data.y_scaler.inverse(np.asarray(predictive.mean))
    std, epistemic = (
        data.y_scaler.inverse_scale(np.sqrt(np.asarray(part)))
        for part in (predictive.variance, predictive.epistemic)
    )
    split = data.split
    points = data.x_scaler.inverse(split.x_train), data.y_scaler.inverse(split.y_train)
    plot.predictive_band(
        x[:, 0],
        mean[:, 0],
        std[:, 0],
        epistemic=epistemic[:, 0] ** 2,
        data=(points[0][:, 0], points[1][:, 0]),
        title=name,
        ax=ax,
    )
    inside = (x > gap[0]) & (x < gap[1])
    beside = (x >= 0) & (x <= 1) & ~inside
    return float(epistemic[beside].mean()), float(epistemic[inside].mean())
