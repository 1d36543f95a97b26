"""`jaxprob predict`: predictions of the rows of a table, with their uncertainty."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ._arguments import level, run_parser
from ._errors import CommandError
from ._load import table_run
from ._run import Run
from ._tables import inputs, read_table, write_table


def run(words: Sequence[str]) -> int:
    """Write a table with one row of predictions for each row of the data."""
    made = run_parser("predict", "Predict the rows of a table.")
    made.add_argument("data", metavar="DATA", help="table, .csv or .parquet")
    made.add_argument(
        "--out", default="predictions.csv", help="table to write, .csv or .parquet"
    )
    made.add_argument(
        "--level", type=level, default=0.9, help="probability of the intervals"
    )
    given = made.parse_args(words)
    if not given.out.lower().endswith((".csv", ".parquet")):
        raise CommandError(f"--out {given.out}: give a .csv or a .parquet file")
    estimator, config, task = table_run(Run(given.run), "predict")
    table = read_table(given.data)
    x = inputs(table, config, given.data)
    write_table(given.out, predictions(estimator, task, x, given.level))
    print(f"{len(x)} predictions: {given.out}")
    return 0


def predictions(estimator: Any, task: str, x: Any, level: float) -> Any:
    """Return the predictions as a table with the rows of x."""
    import pandas

    if task == "classification":
        probs = estimator.predict_proba(x)
        total, epistemic = estimator.predict_entropy(x)
        columns = {
            "predicted": estimator.classes_[probs.argmax(axis=1)],
            **{f"p({k})": probs[:, i] for i, k in enumerate(estimator.classes_)},
            "entropy": total,
            "epistemic": epistemic,
        }
    else:
        mean, std = estimator.predict(x, return_std=True)
        lower, upper = estimator.predict_interval(x, level)
        epistemic, aleatoric = estimator.predict_variances(x)
        columns = {
            "mean": mean,
            "std": std,
            "lower": lower,
            "upper": upper,
            "epistemic_std": np.sqrt(epistemic),
            "aleatoric_std": np.sqrt(aleatoric),
        }
    return pandas.DataFrame(columns)
