"""Estimators on tables in the UCI layout, beside scikit-learn's.

    python -m benchmarks.tables --data PATH --sets airfoil --splits 0 1

Each row is the mean over splits. Scores are in units of the training target's standard
deviation: `nll` is the negative log-likelihood of a Gaussian of the predictive's mean
and variance, `cover` the share of test rows inside the central 90 % interval. The
predictive of a forest is a Gaussian with the deviation of its out-of-bag residuals;
that of boosting has the deviation of the residuals on a fifth of the training rows,
which its trees do not see. `--inner` scores on a fifth of the training rows instead of
the test rows: settings are chosen by that.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxprob.datasets import uci, uci_num_splits, uci_sets

Moments = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Mean, standard deviation, and both ends of the central 90 % interval."""

_NORMAL_95 = 1.6448536269514722


def ours(effort: str) -> Callable[..., Moments]:
    """Return `BNNRegressor` with an effort and no other setting."""

    def run(x, y, x_test):
        from jaxprob.estimators import BNNRegressor

        model = BNNRegressor(effort=effort, random_state=0).fit(x, y)
        mean, std = model.predict(x_test, return_std=True)
        return mean, std, *model.predict_interval(x_test, 0.9)

    return run


def forest(x, y, x_test) -> Moments:
    """Return the predictions of a random forest."""
    from sklearn.ensemble import RandomForestRegressor

    model = RandomForestRegressor(500, oob_score=True, random_state=0).fit(x, y)
    std = np.std(y - model.oob_prediction_)
    return _gaussian(model.predict(x_test), std)


def boosting(x, y, x_test) -> Moments:
    """Return the predictions of gradient boosting by histograms."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    held_out = np.random.default_rng(0).permutation(len(y)) < len(y) // 5
    model = HistGradientBoostingRegressor(random_state=0)
    model.fit(x[~held_out], y[~held_out])
    std = np.sqrt(np.mean((y[held_out] - model.predict(x[held_out])) ** 2))
    return _gaussian(model.fit(x, y).predict(x_test), std)


def process(x, y, x_test) -> Moments:
    """Return the predictions of a Gaussian process with a length for each column."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    lengths: Any = np.ones(x.shape[1])
    kernel = ConstantKernel() * RBF(lengths) + WhiteKernel()
    model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    model.fit(scaler.transform(x), y)
    mean, std = model.predict(scaler.transform(x_test), return_std=True)
    return _gaussian(mean, std)


METHODS: dict[str, Callable[..., Moments]] = {
    "fast": ours("fast"),
    "default": ours("default"),
    "best": ours("best"),
    "forest": forest,
    "boosting": boosting,
    "process": process,
}


def _gaussian(mean, std):
    std = np.broadcast_to(std, mean.shape)
    return mean, std, mean - _NORMAL_95 * std, mean + _NORMAL_95 * std


def score(
    name: str, method: str, split: int, root: str, *, inner: bool
) -> dict[str, float]:
    """Return the scores of a method on one split of a set."""
    part = uci(name, root, split=split)
    x, y = part.x_train.astype(np.float64), part.y_train.astype(np.float64).ravel()
    x_test, y_test = part.x_test.astype(np.float64), part.y_test.ravel()
    if inner:
        order = np.random.default_rng(0).permutation(len(y))
        first, rest = order[: len(y) // 5], order[len(y) // 5 :]
        x, y, x_test, y_test = x[rest], y[rest], x[first], y[first]
    begin = time.perf_counter()
    mean, std, lower, upper = METHODS[method](x, y, x_test)
    unit = y.std()
    z = (y_test - mean) / std
    nll = 0.5 * z**2 + np.log(std / unit) + 0.5 * np.log(2.0 * np.pi)
    return {
        "nll": float(nll.mean()),
        "rmse": float(np.sqrt(np.mean((y_test - mean) ** 2)) / unit),
        "cover": float(np.mean((lower <= y_test) & (y_test <= upper))),
        "width": float(np.mean(upper - lower) / unit),
        "seconds": time.perf_counter() - begin,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of the sets")
    parser.add_argument("--sets", nargs="*", help="all by default")
    parser.add_argument("--splits", nargs="*", type=int, help="all by default")
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=METHODS)
    parser.add_argument("--inner", action="store_true", help="score on training rows")
    parser.add_argument("--csv", type=Path, help="file of all scores")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(f"{'set':<18}{'method':<10}{'nll':>8}{'rmse':>8}{'cover':>8}{'seconds':>9}")
    for name in args.sets or uci_sets(args.data):
        splits = args.splits or range(uci_num_splits(name, args.data))
        for method in args.methods:
            found = [
                score(name, method, split, args.data, inner=args.inner)
                for split in splits
            ]
            rows += [
                {"set": name, "method": method, "split": split, **row}
                for split, row in zip(splits, found, strict=True)
            ]
            mean = {
                key: float(np.mean([row[key] for row in found])) for key in found[0]
            }
            print(
                f"{name:<18}{method:<10}{mean['nll']:>8.3f}{mean['rmse']:>8.3f}"
                f"{mean['cover']:>8.3f}{mean['seconds']:>9.1f}",
                flush=True,
            )
    if args.csv:
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
