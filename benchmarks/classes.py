"""`BNNClassifier` on scikit-learn's bundled tables, beside scikit-learn's classifiers.

    python -m benchmarks.classes --sets iris wine --splits 10

Each split holds out a fifth of the rows, by class; the splits are those of the seeds 0,
1, .... The figures are means over splits with their standard errors: `nll` is the
negative log-probability of the true class in nats, `ece` the calibration error with 15
bins, `error` the share of wrong classes. `p` is that of a paired t-test of `nll`
against the first of the methods. `--inner` scores on a fifth of the training rows. The
settings of `BNNClassifier` were chosen on sets like `linear` and `nonlinear`, which are
drawn from known distributions and have 2,000 rows to score.
"""

import argparse
import csv
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from jaxprob import datasets, metrics

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

SMALLEST = 1e-12
"""Probabilities below it count as this: forests and boosting give exact zeros."""


def ours(effort: str) -> Callable[[], Any]:
    """Return a constructor of `BNNClassifier` with an effort and no other setting."""

    def make():
        from jaxprob.estimators import BNNClassifier

        return BNNClassifier(effort=effort, random_state=0)

    return make


def logistic() -> Any:
    """Return logistic regression of standardised columns."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def forest() -> Any:
    """Return a random forest."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(500, random_state=0)


def boosting() -> Any:
    """Return gradient boosting by histograms."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=0)


METHODS: dict[str, Callable[[], Any]] = {
    "default": ours("default"),
    "fast": ours("fast"),
    "best": ours("best"),
    "logistic": logistic,
    "forest": forest,
    "boosting": boosting,
}


def bundled(name: str, seed: int) -> Split:
    """Return a split of one of scikit-learn's sets."""
    from sklearn.model_selection import train_test_split

    whole = getattr(datasets, name)(test=0.1)
    x = np.concatenate([whole.x_train, whole.x_test]).astype(np.float64)
    x = x.reshape(len(x), -1)
    y = np.concatenate([whole.y_train, whole.y_test])
    parts: Any = train_test_split(x, y, test_size=0.2, stratify=y, random_state=seed)
    x, x_test, y, y_test = parts
    return x, y, x_test, y_test


def gaussians(seed: int) -> Split:
    """Return three Gaussians of one covariance: the best classifier is linear."""
    rng = np.random.default_rng(seed)
    centres = 0.35 * rng.normal(size=(3, 13))
    y = rng.integers(3, size=2140)
    x = centres[y] + rng.normal(size=(2140, 13)) @ (rng.normal(size=(13, 13)) / 3.6)
    return x[:140], y[:140], x[140:], y[140:]


def clusters(seed: int) -> Split:
    """Return four classes of two clusters each, of which a twentieth is mislabelled."""
    from sklearn.datasets import make_classification

    made: Any = make_classification(
        2600, 12, n_informative=8, n_classes=4, class_sep=1.5, flip_y=0.05,
        random_state=seed,
    )  # fmt: skip
    x, y = made
    return x[:600], y[:600], x[600:], y[600:]


SETS: dict[str, Callable[[int], Split]] = {
    **{
        name: lambda seed, name=name: bundled(name, seed)
        for name in ("iris", "wine", "breast_cancer", "digits")
    },
    "linear": gaussians,
    "nonlinear": clusters,
}


def score(split: Split, method: str, *, inner: bool) -> dict[str, float]:
    """Return the scores of a method on one split."""
    from sklearn.model_selection import train_test_split

    x, y, x_test, y_test = split
    if inner:
        x, x_test, y, y_test = train_test_split(
            x, y, test_size=0.2, stratify=y, random_state=0
        )
    begin = time.perf_counter()
    model = METHODS[method]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probs = model.fit(x, y).predict_proba(x_test)
    seconds = time.perf_counter() - begin
    probs = np.clip(probs, SMALLEST, 1.0)
    labels = np.searchsorted(np.unique(y), y_test)
    nll = -np.log(probs[np.arange(len(labels)), labels]).mean()
    return {
        "nll": float(nll),
        "ece": float(metrics.ece(labels, probs.astype(np.float32))),
        "error": float(np.mean(probs.argmax(1) != labels)),
        "seconds": seconds,
    }


def line(name: str, method: str, found: list[dict[str, float]], first: Any) -> str:
    """Return the row of the table of one method on one set."""
    cells = [f"{name:<15}{method:<10}"]
    for key, digits in (("nll", 3), ("ece", 3), ("error", 4)):
        values = np.asarray([row[key] for row in found])
        mean, error = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
        cells.append(f"{mean:>8.{digits}f} +-{error:>6.{digits}f}")
    one, other = ([row["nll"] for row in rows] for rows in (found, first))
    test: Any = scipy.stats.ttest_rel(one, other) if found is not first else None
    p = np.nan if test is None else test.pvalue
    seconds = np.median([row["seconds"] for row in found])
    return "".join([*cells, f"{p:>9.3f}{seconds:>9.1f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", choices=list(SETS), default=list(SETS)[:4])
    parser.add_argument("--splits", type=int, default=10, help="number of splits, >= 2")
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=METHODS)
    parser.add_argument("--inner", action="store_true", help="score on training rows")
    parser.add_argument("--csv", type=Path, help="file of all scores")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    columns = f"{'nll':>8}{'':>9}{'ece':>8}{'':>9}{'error':>8}{'':>9}"
    print(f"{'set':<15}{'method':<10}{columns}{'p':>9}{'seconds':>9}")
    for name in args.sets:
        splits = [SETS[name](seed) for seed in range(args.splits)]
        first: Any = None
        for method in args.methods:
            found = [score(split, method, inner=args.inner) for split in splits]
            first = found if first is None else first
            rows += [
                {"set": name, "method": method, "split": seed, **row}
                for seed, row in enumerate(found)
            ]
            print(line(name, method, found, first), flush=True)
    if args.csv:
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
