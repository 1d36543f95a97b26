"""Means over an epoch, logged by `self.log` as Lightning's users expect them."""

from collections.abc import Mapping
from typing import Any


def log_means(module: Any, means: Mapping[str, float]) -> None:
    """Log means over an epoch.

    Loggers and callbacks get all of them; the progress bar has room for the losses.

    **Arguments:**

    - `module`: the LightningModule.
    - `means`: numbers by the names under which they are logged.
    """
    if module.trainer.barebones:
        return  # Lightning warns of each thing logged then
    for name, value in means.items():
        shown = "loss" in name
        module.log(name, value, prog_bar=shown, add_dataloader_idx=False)


def log_loader_means(
    module: Any, prefix: str, means: Mapping[int, Mapping[str, float]]
) -> None:
    """Log means over each loader, under Lightning's names where there are several.

    **Arguments:**

    - `module`: the LightningModule.
    - `prefix`: of all names, such as `"val_"`.
    - `means`: numbers by name, for each index of a loader.
    """
    for loader, values in means.items():
        suffix = f"/dataloader_idx_{loader}" if len(means) > 1 else ""
        log_means(module, {f"{prefix}{k}{suffix}": v for k, v in values.items()})
