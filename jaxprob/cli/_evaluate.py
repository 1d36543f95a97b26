"""`jaxprob evaluate`: scores of a run on held-out rows, or on a file of new ones."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._arguments import run_parser
from ._config import TableConfig
from ._errors import CommandError
from ._load import diffusion_run, table_run
from ._run import Run

MOST_SAMPLES = 256


def run(words: Sequence[str]) -> int:
    """Print the scores, and keep those of the held-out rows in the run's folder."""
    made = run_parser("evaluate", "Print scores of a run.")
    made.add_argument(
        "data", metavar="DATA", nargs="?", help="new rows; by default those held out"
    )
    made.add_argument("--json", action="store_true", help="print one JSON object")
    given = made.parse_args(words)
    from ._score_table import print_scores, table_scores, write_scores

    found = Run(given.run)
    if isinstance(found.config, TableConfig):
        estimator, _, task = table_run(found, "evaluate")
        rows = held_out_rows(found, given.data)
        scores = table_scores(estimator, task, rows[0], rows[1])
    else:
        scores = diffusion_scores(found, given.data)
    if given.data is None:
        write_scores(found, scores)
    if given.json:
        print(json.dumps(scores))
    else:
        print_scores(given.data or "held-out rows", scores)
    return 0


def held_out_rows(found: Run, data: str | None) -> tuple[Any, np.ndarray, Any, Any]:
    """Return x and y of the rows to score, and x and y of the training rows."""
    from ._tables import inputs, read_table, split, targets

    config = found.config
    assert isinstance(config, TableConfig)
    task = found.record["data"]["task"]
    fixed = type(config)(**{**vars(config), "task": task})
    found.check_data() if data is None else None
    own = read_table(config.data) if data is None else read_table(data)
    place = config.data if data is None else data
    x, (_, y) = inputs(own, fixed, place), targets(own, fixed, place)
    if data is not None:
        return x, y, None, None
    train, test = split(len(own), config.test, config.seed)
    if not len(test):
        raise CommandError(
            "the run held out no rows (test: 0): give a file of new rows"
        )
    return x.iloc[test], y[test], x.iloc[train], y[train]


def diffusion_rows(found: Run, data: str | None) -> tuple[Any, Any, Any]:
    """Return real rows, their classes, and the training rows, all standardised."""
    from ._arrays import read_examples
    from ._tables import split

    _, scaler, config = diffusion_run(found, "evaluate")
    if data is not None:
        examples = read_examples(type(config)(**{**vars(config), "data": data}))
        _check_shape(examples.x, found, data)
        return scaler(examples.x), examples.labels, None
    found.check_data()
    examples = read_examples(config)
    train, test = split(len(examples.x), config.test, config.seed)
    if len(test) < 2:
        raise CommandError("the run held out fewer than 2 examples: give new ones")
    labels = None if examples.labels is None else examples.labels[test]
    return scaler(examples.x[test]), labels, scaler(examples.x[train])


def _check_shape(x: np.ndarray, found: Run, data: str) -> None:
    shape = tuple(found.record["data"]["shape"])
    if x.shape[1:] != shape:
        raise CommandError(
            f"an example of {data} has shape {x.shape[1:]}, and the model was trained "
            f"on {shape}"
        )


def diffusion_scores(found: Run, data: str | None) -> dict[str, float]:
    """Return two-sample figures of as many samples as there are real rows."""
    import jax

    from .. import metrics
    from .._io import load
    from ..diffusion import ExpAB, sample

    denoiser = load(found.model)["denoiser"]
    real, labels, _ = diffusion_rows(found, data)
    count = min(len(real), MOST_SAMPLES)
    real = np.asarray(real[:count], np.float32)
    draws = sample(
        denoiser,
        ExpAB(18),
        key=jax.random.key(found.config.seed),
        num_samples=count,
        shape=real.shape[1:],
        cond=None if labels is None else labels[:count],
    )
    samples, key = np.asarray(draws.x_0), jax.random.key(0)
    bandwidth = metrics.median_bandwidth(real, real)
    scores = {
        "samples, and real rows": float(count),
        "Frechet distance": float(metrics.frechet_distance(samples, real)),
        "sliced Wasserstein": float(metrics.sliced_wasserstein(samples, real, key=key)),
        "MMD^2": float(metrics.mmd2(samples, real, bandwidth=bandwidth)),
    }
    if count > 5:
        found_scores = metrics.precision_recall_density_coverage(samples, real)
        scores |= {k: float(v) for k, v in found_scores._asdict().items()}
    return scores
