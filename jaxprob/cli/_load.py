"""A trained run with its model."""

from typing import Any

from ._config import DiffusionConfig, TableConfig
from ._errors import CommandError
from ._run import Run


def table_run(run: Run, command: str) -> tuple[Any, TableConfig, str]:
    """Return the estimator of a run, its configuration and its task."""
    from .._io import load

    if not isinstance(run.config, TableConfig):
        raise CommandError(
            f"{run.folder} is a diffusion model: `{command}` is for tables"
        )
    return load(run.model), run.config, run.record["data"]["task"]


def diffusion_run(run: Run, command: str) -> tuple[Any, Any, DiffusionConfig]:
    """Return the denoiser of a run, its scaler and its configuration."""
    from .._io import load

    if not isinstance(run.config, DiffusionConfig):
        raise CommandError(
            f"{run.folder} is a model of a table: `{command}` is for diffusion models"
        )
    found = load(run.model)
    return found["denoiser"], found["scaler"], run.config
