"""Posteriors of simulators against reference posteriors, in the published layout.

    python -m benchmarks.sbi --data PATH --tasks two_moons --simulations 10000

A folder of a task has `observation_1/`, ... with `observation.csv`,
`true_parameters.csv` and `reference_posterior_samples.csv.bz2`. Each row has the mean
over observations of the two-sample test (`c2st`, 0.5 is perfect) by the classifier of
the literature (`jaxprob.metrics.c2st(..., classifier="perceptron", seed=1)`), of the
log-density of the true parameters, and the share of draws outside of the prior's
support; then, over new simulations, the p-value of `tarp`, the least one of the ranks
over parameters, times their number, and the coverage of central 90 % intervals; and
seconds of training, with compilation, and of 10,000 draws, the median over observations
and so without it. Every task has the default settings.
"""

import argparse
import bz2
import csv
import time
from pathlib import Path

import jax
import numpy as np

from jaxprob.diffusion import fit_posterior, simulate
from jaxprob.metrics import c2st, posterior_ranks, rank_p_values, tarp

from .sbi_tasks import tasks

_COLUMNS = ("c2st", "log_prob", "outside", "tarp", "ranks", "cover", "fit", "draws")


def read(path: Path) -> np.ndarray:
    """Return the rows of a published file, which may be compressed."""
    opened = bz2.open if path.suffix == ".bz2" else open
    with opened(path, "rt") as file:
        return np.array(list(csv.reader(file))[1:], dtype=np.float32)


def run(name: str, folder: Path, num_simulations: int, observations: list[int]):
    """Return the figures of one task."""
    prior, simulator = tasks()[name]
    keys = jax.random.split(jax.random.key(0), 5)
    settings = {"num_simulations": num_simulations, "progress": False}
    sims = simulate(prior, simulator, key=keys[0], **settings)
    begin = time.perf_counter()
    posterior, history = fit_posterior(prior, sims, key=keys[1], progress=False)
    seconds = time.perf_counter() - begin
    print(f"  held-out losses {[round(h['val_loss'], 4) for h in history]}", flush=True)

    rows = []
    for i in observations:
        at = folder / name / f"observation_{i}"
        x, truth = read(at / "observation.csv")[0], read(at / "true_parameters.csv")
        begin = time.perf_counter()
        draws = posterior.sample(
            x, key=jax.random.fold_in(keys[2], i), num_samples=10_000
        )
        draws = np.asarray(jax.block_until_ready(draws))
        taken = time.perf_counter() - begin
        reference = read(at / "reference_posterior_samples.csv.bz2")
        score = c2st(reference, draws, classifier="perceptron", seed=1)
        nats = float(posterior.log_prob(truth, x)[0])
        outside = 1.0 - float(np.mean(posterior.space.contains(draws)))
        rows.append([score, nats, outside, taken])
        print(f"  observation {i}: c2st {score:.3f}, log_prob {nats:.2f}", flush=True)
    score, nats, outside, _ = np.mean(rows, axis=0)
    taken = np.median([row[-1] for row in rows])  # the first one compiles

    settings["num_simulations"] = 300
    new = simulate(prior, simulator, key=keys[3], **settings)
    draws = posterior.sample_each(new.x, key=keys[4], num_samples=99)
    draws = np.moveaxis(np.asarray(draws), 1, 0)
    ranks = posterior_ranks(new.theta, draws)
    least = min(rank_p_values(column, 99)[1] for column in ranks.T)
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    cover = np.mean((low <= new.theta) & (new.theta <= high))
    p_values = tarp(new.theta, draws).p_value, min(1.0, least * ranks.shape[1])
    return score, nats, outside, *p_values, cover, seconds, taken


def main():
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=["two_moons", "slcp"])
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--observations", nargs="+", type=int, default=range(1, 11))
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    table = []
    for name in args.tasks:
        print(name, flush=True)
        found = run(name, args.data, args.simulations, list(args.observations))
        table.append((name, args.simulations, *(float(f"{v:.4g}") for v in found)))
    columns = ("task", "simulations", *_COLUMNS)
    print("  ".join(columns))
    for row in table:
        print("  ".join(map(str, row)))
    if args.csv:
        with args.csv.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *table])


if __name__ == "__main__":
    main()
