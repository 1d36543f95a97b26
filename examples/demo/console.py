"""Output of the demo, and the Trainer of all its parts."""

import logging
import warnings
from collections.abc import Iterable, Mapping

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger


def quiet_lightning() -> None:
    """Leaves the progress bars and takes away the advertisements."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Data in memory need no worker processes.
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")


def trainer(folder, max_epochs: int, steps_per_epoch: int) -> pl.Trainer:
    """A Trainer with a progress bar and a CSV log in `folder`."""
    return pl.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",  # Lightning's own device; JAX chooses its device itself
        logger=CSVLogger(folder, name="logs"),
        log_every_n_steps=steps_per_epoch,
        enable_checkpointing=False,
        enable_model_summary=False,
    )


def title(text: str) -> None:
    print(f"\n{text}\n{'=' * len(text)}", flush=True)


def figures(rows: Mapping[str, object]) -> None:
    """Names and values, one line each."""
    width = max(map(len, rows))
    for name, value in rows.items():
        shown = f"{value:.3f}" if isinstance(value, float) else str(value)
        print(f"  {name:<{width}}  {shown}", flush=True)


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Columns aligned under their heads."""
    lines = [list(head)]
    for row in rows:
        lines.append([f"{v:.3f}" if isinstance(v, float) else str(v) for v in row])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        first, *rest = (
            (cell.ljust if i == 0 else cell.rjust)(widths[i])
            for i, cell in enumerate(line)
        )
        print("  " + "  ".join([first, *rest]), flush=True)
