"""Rows of `jaxprob.metrics` and `jaxprob.recalibrate` on fixed arrays."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxprob import metrics, recalibrate


def _arrays():
    rng = np.random.default_rng(8)
    logits = rng.normal(size=(40, 3)).astype(np.float32)
    return {
        "y": rng.normal(size=40).astype(np.float32),
        "mean": rng.normal(size=40).astype(np.float32),
        "std": (0.5 + rng.uniform(size=40)).astype(np.float32),
        "means": rng.normal(size=(40, 5)).astype(np.float32),
        "stds": (0.5 + rng.uniform(size=(40, 5))).astype(np.float32),
        "log_probs": np.asarray(jax.nn.log_softmax(logits)),
        "labels": rng.integers(0, 3, 40).astype(np.int32),
        "points": rng.normal(size=(40, 3)).astype(np.float32),
        "others": (0.3 + rng.normal(size=(40, 3))).astype(np.float32),
        "sampled": rng.dirichlet(np.ones(3), size=(40, 5)).astype(np.float32),
    }


A = _arrays()
KEY = jax.random.key(18)


def regression():
    y, mean, std, means, stds = (A[n] for n in ("y", "mean", "std", "means", "stds"))
    lower, upper = mean - std, mean + std
    return {
        "rmse": metrics.rmse(y, mean),
        "mae": metrics.mae(y, mean),
        "gaussian_nll": metrics.gaussian_nll(y, mean, std),
        "gaussian_mixture_nll": metrics.gaussian_mixture_nll(y, means.T, stds.T),
        "crps_gaussian": metrics.crps_gaussian(y, mean, std),
        "crps_gaussian_mixture": metrics.crps_gaussian_mixture(y, means.T, stds.T),
        "crps_samples": metrics.crps_samples(y, means.T, per_example=True),
        "coverage": metrics.coverage(y, lower, upper),
        "interval_width": metrics.interval_width(lower, upper),
        "interval_score": metrics.interval_score(y, lower, upper, level=0.7),
        "pit_gaussian": metrics.pit_gaussian(y, mean, std),
        "pit_gaussian_mixture": metrics.pit_gaussian_mixture(y, means.T, stds.T),
        "pit_samples": metrics.pit_samples(y, means.T, key=KEY),
        "quantile_calibration_error": metrics.quantile_calibration_error(
            metrics.pit_gaussian(y, mean, std)
        ),
        "mean_and_error": metrics.mean_and_error(jnp.asarray(y)),
        "bootstrap": metrics.bootstrap(
            metrics.rmse, y, mean, key=KEY, num_resamples=50
        ),
    }


def classification():
    labels, log_probs = A["labels"], A["log_probs"]
    probs = np.exp(log_probs)
    other = A["sampled"].mean(1)
    curve = metrics.reliability_curve(labels, probs, num_bins=5)
    return {
        "accuracy": metrics.accuracy(labels, probs),
        "categorical_nll": metrics.categorical_nll(labels, log_probs),
        "brier": metrics.brier(labels, probs, per_example=True),
        "ece": metrics.ece(labels, probs),
        "adaptive_ece": metrics.adaptive_ece(labels, probs),
        "reliability_curve": (curve.confidence, curve.accuracy, curve.count),
        "entropy": metrics.entropy(probs),
        "mutual_information": metrics.mutual_information(
            np.swapaxes(A["sampled"], 0, 1)
        ),
        "max_probability": metrics.max_probability_uncertainty(probs),
        "agreement": metrics.agreement(probs, other),
        "total_variation": metrics.total_variation(probs, other),
        "auroc": metrics.auroc(A["y"], A["y"][::2] + 0.5),
        "fpr_at_tpr": metrics.fpr_at_tpr(A["y"], A["y"][::2] + 0.5),
        "aurc": metrics.aurc(np.abs(A["y"]), A["std"]),
    }


def samples():
    x, y = A["points"], A["others"]
    scores = metrics.precision_recall_density_coverage(x, y)
    return {
        "frechet_distance": metrics.frechet_distance(x, y),
        "mmd2": metrics.mmd2(x, y, bandwidth=metrics.median_bandwidth(x, y)),
        "sliced_wasserstein": metrics.sliced_wasserstein(
            x, y, key=KEY, num_projections=20
        ),
        "wasserstein_1d": metrics.wasserstein_1d(x[:, 0], y[:, 0]),
        "c2st": metrics.c2st(x, y),
        "manifold": (scores.precision, scores.recall, scores.density, scores.coverage),
    }


def recalibrated():
    y, mean, std = A["y"], A["mean"], A["std"]
    labels, log_probs = A["labels"], A["log_probs"]
    probs = np.exp(log_probs)
    lower, upper = mean - std, mean + std
    sets = recalibrate.AdaptiveSets.fit(labels, probs, level=0.8)
    quantiles = recalibrate.ConformalQuantiles.fit(y, lower, upper, level=0.8)
    return {
        "temperature": recalibrate.TemperatureScaling.fit(labels, log_probs)(log_probs),
        "sets": sets(probs),
        "quantiles": quantiles(lower, upper),
        "split": recalibrate.SplitConformal.fit(y, mean, level=0.8)(mean),
    }


ROWS = {
    "metrics: regression": regression,
    "metrics: classification": classification,
    "metrics: samples": samples,
    "recalibrate: all": recalibrated,
}
