"""Resident memory over 100,000 tiny training steps through Lightning.

    python -m benchmarks.memory [--quick]

With TensorBoard, a progress bar and checkpoints on, logging every 50 steps. Memory is
read at the end of each epoch; the drift is what it grew by after the first fifth, in
which programs are compiled and buffers find their size.
"""

import argparse
import logging
import tempfile

import psutil

from ._bridge_problems import PROBLEMS
from ._timing import report

TINY = PROBLEMS["tiny"]
STEPS = TINY.steps


def resident_mb() -> float:
    return psutil.Process().memory_info().rss / 1e6


def run(epochs: int) -> list[float]:
    """Resident megabytes at the end of each epoch of 1,000 steps."""
    import pytorch_lightning as pl
    from pytorch_lightning.loggers import TensorBoardLogger

    from jaxprob.lightning import ArrayDataModule, LearnerModule

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    readings = []

    class Read(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            readings.append(resident_mb())

    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            default_root_dir=folder,
            logger=TensorBoardLogger(folder),
            callbacks=[Read()],
        )
        trainer.fit(
            LearnerModule(TINY.learner(), TINY.model()),
            ArrayDataModule(TINY.data(), batch_size=TINY.batch),
        )
    return readings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20,000 steps")
    epochs = 20 if parser.parse_args().quick else 100
    readings = run(epochs)
    settled = readings[epochs // 5]
    drift = readings[-1] - settled
    rows = [("steps", "resident MB")]
    rows += [
        (f"{(i + 1) * STEPS:,}", f"{readings[i]:.1f}")
        for i in range(epochs // 5, epochs, max(1, epochs // 10))
    ]
    figures = {"steps": epochs * STEPS, "drift_mb": round(drift, 2)}
    report("Resident memory while training", rows, figures)


if __name__ == "__main__":
    main()
