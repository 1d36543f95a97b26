"""Distance of each method to long NUTS chains on two small networks.

    python -m benchmarks.fidelity [--quick] [--only NAME]

Regression, 30 rows, 25 weights: errors of the predictive mean in predictive standard
deviations where there are data, the ratio of epistemic standard deviations there and
outside, total variation and Wasserstein-2 distances between predictive densities, and
the log-likelihood (nats) and coverage of 90 % intervals on fresh rows.

Classification, 60 rows of three classes, 39 weights: the share of points at which both
say the same class (agreement), the total variation between their probabilities, the
ratio of mutual informations where there are data and outside, and log-likelihood and
expected calibration error on fresh rows.

The first row of each table is the reference, with its largest R-hat and its least
effective sample size over the outputs at all points.
"""

import argparse
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxprob import bnn, metrics

from ._methods import fit, floats, methods, show

STEP = 0.05
LEVELS = (np.arange(50) + 0.5) / 50
FRESH = 2000


def predict(posterior, likelihood, x):
    """All draws of a chain or ensemble, or 2,000 of a density."""
    atoms = posterior.num_atoms
    return bnn.predict(
        posterior,
        likelihood,
        x,
        key=jax.random.key(6),
        num_samples=None if atoms else 2000,
        model_batch_size=500,
    )


def compare(joint, model, data, view, score, num_steps, only, *, key):
    """A row of figures for long NUTS chains and one for each method.

    `view` takes what is needed from a posterior, and `score` compares two such.
    """
    reference = bnn.NUTS(joint, num_warmup=1000, num_draws=1000, num_chains=8)
    posterior, seconds = fit(reference, None, None, model, data, key)
    exact = view(posterior)
    rows = {
        "(NUTS, 8 x 1,000)": score(exact, exact)
        | convergence(exact["predictive"].outputs, num_chains=8)
        | {"seconds": seconds}
    }
    for name, (method, steps, size) in methods(joint, num_steps, 0.1, only).items():
        posterior, seconds = fit(method, steps, size, model, data, jax.random.key(5))
        rows[name] = score(view(posterior), exact) | {"seconds": seconds}
    return {name: floats(row) for name, row in rows.items()}


def convergence(outputs, num_chains):
    """Largest R-hat and least effective sample size over points and outputs."""
    values = np.asarray(outputs)  # rows, draws of all chains, outputs
    values = values.reshape(len(values), num_chains, -1, *values.shape[2:])
    values = np.moveaxis(values, 0, 2)
    return {"rhat": bnn.rhat(values).max(), "ess": bnn.ess(values).min()}


def regression(num_steps, only):
    """Rows of the first table."""
    x_key, noise_key, model_key, ref_key = jax.random.split(jax.random.key(11), 4)
    noise = 0.1

    def truth(x, key):
        return jnp.sin(3.0 * x[:, 0]) + noise * jax.random.normal(key, (len(x),))

    x = jnp.sort(jax.random.uniform(x_key, (30, 1), minval=-1.0, maxval=1.0), 0)
    y = truth(x, noise_key)
    x_new = jax.random.uniform(jax.random.key(12), (FRESH, 1), minval=-1.0, maxval=1.0)
    y_new = truth(x_new, jax.random.key(13))
    model = _double(eqx.nn.MLP(1, "scalar", 8, 1, activation=jnp.tanh, key=model_key))
    likelihood = bnn.NormalLikelihood(noise)
    joint = bnn.LogJoint(likelihood, bnn.FanInNormal(2.0), num_data=30)
    grid = jnp.linspace(-2.0, 2.0, 41)[:, None]
    inside = np.abs(np.asarray(grid[:, 0])) <= 1.0

    def view(posterior):
        predictive = predict(posterior, likelihood, grid)
        points = np.arange(-6.0, 6.0, STEP)
        density = [predictive.log_prob(np.full(len(grid), point)) for point in points]
        fresh = predict(posterior, likelihood, x_new)
        return {
            "predictive": predictive,
            "mean": np.asarray(predictive.mean),
            "std": np.asarray(predictive.std),
            "epistemic": np.sqrt(np.asarray(predictive.epistemic)),
            "p": np.exp(np.stack(density, 1)),
            "q": np.stack([predictive.quantile(float(q)) for q in LEVELS], 1),
            "log_prob": fresh.log_prob(y_new).mean(),
            "coverage": metrics.coverage(y_new, *fresh.interval(0.9)),
        }

    def score(own, exact):
        ratio = own["epistemic"] / exact["epistemic"]
        gap = ((own["mean"] - exact["mean"]) / exact["std"])[inside]
        return {
            "mean_error": np.sqrt(np.mean(gap**2)),
            "sd_inside": np.median(ratio[inside]),
            "sd_outside": np.median(ratio[~inside]),
            "tv": 0.5 * np.mean(np.sum(np.abs(own["p"] - exact["p"]), 1) * STEP),
            "w2": np.mean(np.sqrt(np.mean((own["q"] - exact["q"]) ** 2, 1))),
            "log_prob": own["log_prob"],
            "coverage_90": own["coverage"],
        }

    return compare(joint, model, (x, y), view, score, num_steps, only, key=ref_key)


CENTRES = np.array([[0.0, 1.2], [-1.0, -0.6], [1.0, -0.6]])


def classification(num_steps, only):
    """Rows of the second table: Gaussian classes of standard deviation .6."""
    data_key, fresh_key, model_key, ref_key = jax.random.split(jax.random.key(21), 4)

    def rows(num, key):
        label_key, noise_key = jax.random.split(key)
        labels = jax.random.randint(label_key, (num,), 0, 3)
        noise = 0.6 * jax.random.normal(noise_key, (num, 2))
        return jnp.asarray(CENTRES)[labels] + noise, labels

    data, (x_new, y_new) = rows(60, data_key), rows(FRESH, fresh_key)
    model = _double(eqx.nn.MLP(2, 3, 6, 1, activation=jnp.tanh, key=model_key))
    likelihood = bnn.CategoricalLikelihood()
    joint = bnn.LogJoint(likelihood, bnn.FanInNormal(2.0), num_data=60)
    line = jnp.linspace(-4.0, 4.0, 21)
    grid = jnp.stack(jnp.meshgrid(line, line), -1).reshape(-1, 2)
    inside = np.linalg.norm(np.asarray(grid), axis=1) <= 2.0

    def view(posterior):
        predictive = predict(posterior, likelihood, grid)
        fresh = predict(posterior, likelihood, x_new)
        return {
            "predictive": predictive,
            "probs": np.asarray(predictive.probs),
            "information": np.asarray(predictive.mutual_information),
            "log_prob": fresh.log_prob(y_new).mean(),
            "ece": metrics.ece(y_new, fresh.probs),
        }

    def score(own, exact):
        ratio = own["information"] / exact["information"]
        return {
            "agreement": metrics.agreement(own["probs"], exact["probs"]),
            "tv": metrics.total_variation(own["probs"], exact["probs"]),
            "mi_inside": np.median(ratio[inside]),
            "mi_outside": np.median(ratio[~inside]),
            "log_prob": own["log_prob"],
            "ece": own["ece"],
        }

    return compare(joint, model, data, view, score, num_steps, only, key=ref_key)


def _double(model):
    def double(leaf):
        return leaf.astype(float) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(double, model)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fidelity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a third of the steps")
    parser.add_argument("--only", help="methods whose name begins so, and references")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    only, num_steps = args.only or "", 2000 if args.quick else 6000
    figures = {"regression": regression(num_steps, only)}
    show("Regression, 25 weights, against NUTS", figures["regression"])
    figures["classification"] = classification(num_steps, only)
    show("Classification, 39 weights, against NUTS", figures["classification"])
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
