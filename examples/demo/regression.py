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
    assert y_scaler is not None  # the target is a number
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

    Long Hamiltonian chains are the judge. Microcanonical chains from the members of an
    ensemble are what `BNNRegressor` does. A mean-field Gaussian over one hidden layer
    cannot say "I know both sides and not the middle" (On the Expressiveness of
    Approximate Inference in Bayesian Neural Networks, Foong et al., 2020).
    """
    gap = (0.45, 0.7)
    data = TabularDataModule(
        datasets.heteroscedastic(gap=gap, num_val=0), batch_size=50
    )
    model = eqx.nn.MLP(1, 2, 50, 1, jax.nn.tanh, key=jax.random.key(1))
    prior = bnn.PriorByPath(
        {"layers.0": bnn.IsotropicNormal(6.0), "*": bnn.FanInNormal(2.0)}
    )
    log_joint = bnn.LogJoint(
        bnn.HeteroscedasticNormal(), prior, num_data=len(data.split.x_train)
    )
    schedule = decay(data, epochs, 2e-2)
    optimizer = optax.adam(schedule)
    ensemble = bnn.DeepEnsemble(bnn.MAP(log_joint, optimizer), 8)
    settings = {"epochs": epochs, "schedule": schedule}
    starts = train(ensemble, model, data, out, **settings).posterior()
    steps = 5 * epochs
    judge = bnn.HMC(
        log_joint,
        num_leapfrog=80,
        num_warmup=max(100, steps // 8),
        num_draws=max(4, steps // 8),
        num_chains=8,
        initial=starts,
        step_size=0.01,
    )
    chains = bnn.MCLMC(
        log_joint,
        num_warmup=max(20, steps),
        num_draws=50,
        thin=max(1, steps // 30),
        num_chains=8,
        initial=starts,
        energy_variance=0.01,
        initial_energy_variance=0.1,
        diagonal=False,
    )
    mean_field = bnn.MeanFieldVI(log_joint, optimizer, scale=0.02)
    rows = data.split.x_train, data.split.y_train

    def run(method):
        return bnn.run_chains(
            method,
            model,
            rows,
            key=jax.random.key(2),
            progress=False,
            check_mixing=False,
        )

    posteriors = {
        "Hamiltonian chains, the judge": run(judge),
        "microcanonical chains from an ensemble": run(chains),
        "mean-field VI, which underfits": train(
            mean_field, model, data, out, **settings
        ).posterior(),
    }
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.2), sharey=True)
    lines = [
        (name, *draw_band(posterior, data, gap, name, ax))
        for ax, (name, posterior) in zip(axes, posteriors.items(), strict=True)
    ]
    print("  The curve with a gap, epistemic standard deviation:")
    table(("", "where data are", "in the gap"), lines)
    figure.tight_layout()
    figure.savefig(out / "regression_band.png", dpi=110)
    plt.close(figure)


def draw_band(posterior, data, gap, name, ax) -> tuple[float, float]:
    """Draw the predictive band; return epistemic std beside and inside the gap."""
    x = np.linspace(-0.2, 1.2, 281, dtype=np.float32)[:, None]
    predictive = bnn.predict(
        posterior,
        bnn.HeteroscedasticNormal(),
        data.x_scaler(x),
        key=jax.random.key(3),
    )
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
