"""See the package's docstring; `python -m benchmarks.uci --help` lists the options."""

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.stats

from jaxprob import bnn
from jaxprob.datasets import uci_num_splits, uci_sets
from jaxprob.metrics import mean_and_error

from ._methods import DEFAULT, METHODS
from ._published import LOG_LIKELIHOOD, PROTOCOLS, RMSE, SETS
from ._scores import Results, score
from ._task import Task, load
from ._trees import boosted_trees

TREES = "trees"


def run(task: Task, method: str, *, key, quick: bool) -> list[dict[str, float]]:
    """Scores of each split."""
    if method == TREES:
        rows = []
        for index, units in enumerate(task.units):
            mean, std = boosted_trees(task, index)
            law: Any = scipy.stats.norm(mean, std)
            y = task.y_test[index]
            ends = law.interval(0.9)
            rows.append(score(law.logpdf(y), mean, y, ends, units))
        return rows
    fit_key, predict_key = jax.random.split(key)
    with warnings.catch_warnings():
        # A divergence or two in some hundred transitions: the scores judge.
        warnings.filterwarnings("ignore", message="transitions diverged")
        posteriors, likelihood = METHODS[method](task, key=fit_key, quick=quick)
    rows = []
    for index, (posterior, units) in enumerate(
        zip(posteriors, task.units, strict=True)
    ):
        predictive = bnn.predict(
            posterior, likelihood, task.x_test[index], key=predict_key
        )
        y = task.y_test[index]
        log_prob, ends = predictive.log_prob(y), predictive.interval(0.9)
        rows.append(score(log_prob, predictive.mean, y, ends, units))
    return rows


def table(results: Results, sets, metric: str, published) -> str:
    """Our rows above the published ones."""
    methods = sorted({m for name in sets for m in results.table.get(name, {})})
    width = 34
    lines = ["".join([f"{metric:<{width}}", *(f"{name[:13]:>16}" for name in sets)])]
    for method in methods:
        cells = []
        for name in sets:
            values = results.values(name, method, metric)
            cell = "-"
            if len(values) > 1:
                mean, error = mean_and_error(np.asarray(values))
                cell = f"{mean:.3f} +- {error:.3f}"
            elif values:
                cell = f"{values[0]:.3f} (1)"
            cells.append(f"{cell:>16}")
        lines.append("".join([f"ours: {method:<{width - 6}}", *cells]))
    for label, (protocol, figures) in published.items():
        by_set = dict(zip(SETS, figures, strict=True))
        cells = [by_set.get(name) for name in sets]
        shown = ("-" if cell is None else f"{cell:g}" for cell in cells)
        lines.append(
            "".join(
                [f"{f'{label} [{protocol}]':<{width}}", *(f"{s:>16}" for s in shown)]
            )
        )
    return "\n".join(lines)


def numbers(text: str) -> list[int]:
    """`0-4,7` as a list."""
    out = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        out += range(int(first), int(last or first) + 1)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.uci")
    parser.add_argument("--data", required=True, help="folder with NAME/data/data.txt")
    parser.add_argument(
        "--method", nargs="+", default=[DEFAULT], choices=[*METHODS, TREES]
    )
    parser.add_argument("--sets", nargs="+", help="default: all in the folder")
    parser.add_argument("--splits", type=numbers, help="such as 0-4,7; default: all")
    parser.add_argument("--results", type=Path, help="JSON file to go on with")
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="others' too")
    parser.add_argument("--group", type=int, default=10, help="splits in one program")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="half of all steps")
    arguments = parser.parse_args()

    results = Results(arguments.results)
    for path in arguments.merge:
        results.merge(path)
    sets = arguments.sets or uci_sets(arguments.data)
    for name in sets:
        splits = arguments.splits or list(range(uci_num_splits(name, arguments.data)))
        for method in arguments.method:
            todo = results.missing(name, method, splits)
            for first in range(0, len(todo), arguments.group):
                part = todo[first : first + arguments.group]
                start = time.perf_counter()
                rows = run(
                    load(name, arguments.data, part),
                    method,
                    key=jax.random.key(arguments.seed),
                    quick=arguments.quick,
                )
                seconds = time.perf_counter() - start
                for number, scores in zip(part, rows, strict=True):
                    scores["seconds"] = seconds / len(part)
                    results.add(name, method, number, scores)
                results.save()
                print(f"{name}, {method}: {len(part)} splits in {seconds:.0f} s")
    for metric, published in (("log_likelihood", LOG_LIKELIHOOD), ("rmse", RMSE)):
        print()
        print(table(results, sets, metric, published))
    print()
    print("Mean and standard error over splits, original units. Published rows:")
    for protocol, meaning in PROTOCOLS.items():
        print(f"  [{protocol}] {meaning}")


if __name__ == "__main__":
    main()
