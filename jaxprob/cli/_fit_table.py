"""Training of an estimator on a table."""

from typing import Any

from ..estimators import BNNClassifier, BNNRegressor
from ._config import TableConfig
from ._run import MODEL, Run
from ._score_table import print_scores, table_scores, write_scores
from ._tables import inputs, read_table, split, targets


class TableTraining:
    """A table, read and checked, and the estimator that it trains."""

    def __init__(self, config: TableConfig):
        self.config = config
        table = read_table(config.data)
        self.x = inputs(table, config, config.data)
        self.task, self.y = targets(table, config, config.data)
        self.train, self.test = split(len(table), config.test, config.seed)
        self.estimator = estimator_of(config, self.task)
        self.facts = {
            "rows": len(table),
            "held_out": len(self.test),
            "task": self.task,
            "features": list(map(str, self.x.columns)),
        }

    def run(self, run: Run) -> None:
        """Train, save, and score the held-out rows."""
        from .._io import save

        print(
            f"{self.task} of {self.config.target!r} from {self.x.shape[1]} columns: "
            f"{len(self.train)} rows to train on, {len(self.test)} held out"
        )
        fitted = self.estimator.fit(self.x.iloc[self.train], self.y[self.train])
        save(run.folder / MODEL, fitted)
        if len(self.test):
            rows = self.x.iloc[self.test], self.y[self.test]
            scores = table_scores(fitted, self.task, *rows)
            write_scores(run, scores)
            print_scores("held-out rows", scores)


def estimator_of(config: TableConfig, task: str) -> Any:
    """Return the estimator of a configuration, not fitted."""
    settings: dict[str, Any] = {
        "effort": config.effort,
        "hidden": tuple(config.hidden),
        "prior_scale": config.prior_scale,
        "num_steps": config.num_steps,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "random_state": config.seed,
        "verbose": not config.quiet,
    }
    if task == "classification":
        return BNNClassifier(config.method, **settings)
    return BNNRegressor(config.method, noise=config.noise, **settings)
