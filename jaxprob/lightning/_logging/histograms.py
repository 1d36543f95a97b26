"""Histograms of parameters for the loggers that draw them."""

from typing import Any

import jax
import numpy as np
import pytorch_lightning as pl
from jaxtyping import Num
from pytorch_lightning.loggers import WandbLogger

from ... import tree
from ..._types import Where


def log_histogram(
    trainer: pl.Trainer, tag: str, values: Num[np.ndarray, "..."], step: int
) -> None:
    """Log a histogram with every logger that draws them.

    TensorBoard and Weights & Biases draw them. Values that are not finite have no bin
    and are left out.

    **Arguments:**

    - `trainer`: whose loggers.
    - `tag`: name of the histogram.
    - `values`: of any shape.
    - `step`: the loggers' x-coordinate.
    """
    values = np.asarray(values, np.float64).ravel()
    values = values[np.isfinite(values)]
    if not values.size:
        return
    for logger in trainer.loggers:
        experiment: Any = getattr(logger, "experiment", None)
        if isinstance(logger, WandbLogger):
            import wandb  # pyright: ignore[reportMissingImports]

            experiment.log({tag: wandb.Histogram(values), "trainer/global_step": step})
        elif hasattr(experiment, "add_histogram"):
            experiment.add_histogram(tag, values, step)


class ParameterHistograms(pl.Callback):
    """Callback that logs a histogram of each leaf of the model after an epoch.

    ```python
    trainer = pl.Trainer(callbacks=[ParameterHistograms(where="layers.*.weight")])
    ```

    The model is the learner's: the average if there is one, the mean of a posterior.

    **Arguments:**

    - `where`: which leaves (see `jaxprob.tree`); all floating-point arrays by default.
    - `every_n_epochs`: how often.
    """

    def __init__(self, where: Where = True, *, every_n_epochs: int = 1):
        if every_n_epochs < 1:
            raise ValueError(
                f"every_n_epochs={every_n_epochs}: give an integer of at least 1"
            )
        self.where = where
        self.every_n_epochs = every_n_epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if (trainer.current_epoch + 1) % self.every_n_epochs or not trainer.loggers:
            return
        chosen, _ = tree.partition(pl_module.model, self.where)
        for name, leaf in tree.paths(jax.device_get(chosen)).items():
            log_histogram(trainer, f"model/{name}", leaf, trainer.global_step)
