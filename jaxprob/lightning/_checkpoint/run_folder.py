"""A Trainer that writes its checkpoints and metrics into the folder of a run."""

import logging
import warnings
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from .save_on_signal import SaveOnSignal


def folder_trainer(
    folder: Path,
    checkpoints: Path,
    *,
    max_epochs: int,
    save_every_n_epochs: int,
    log_every_n_steps: int,
    progress: bool,
) -> pl.Trainer:
    """Return a Trainer without Lightning's hints, for a program that has its own words.

    **Arguments:**

    - `folder`: of the run. Metrics are in `logs/metrics.csv`, and those of a run that
        goes on in `logs-2` and so on.
    - `checkpoints`: where checkpoints are saved, regularly and on a signal.
    - `max_epochs`, `log_every_n_steps`: as in `pl.Trainer`.
    - `save_every_n_epochs`: epochs between two checkpoints.
    - `progress`: whether to show a progress bar.
    """
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Data in memory need no worker processes.
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
    # A run that goes on writes beside the checkpoints that it has.
    warnings.filterwarnings("ignore", message=r"Checkpoint directory .* not empty.*")
    saved = ModelCheckpoint(
        dirpath=checkpoints, save_last=True, every_n_epochs=save_every_n_epochs
    )
    return pl.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",  # Lightning's own device; JAX chooses its device itself
        logger=CSVLogger(folder, name="", version=_free_logs(folder)),
        log_every_n_steps=log_every_n_steps,
        callbacks=[saved, SaveOnSignal(checkpoints)],
        enable_progress_bar=progress,
        enable_model_summary=False,
    )


def _free_logs(folder: Path) -> str:
    number = 1 + len(list(folder.glob("logs*")))
    return "logs" if number == 1 else f"logs-{number}"
