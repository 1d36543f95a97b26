"""Configurations of `fit`: flags, a YAML file, or both."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ._errors import CommandError, nearest

TABLES = (".csv", ".parquet")
ARRAYS = (".npy", ".npz")


@dataclass(frozen=True)
class TableConfig:
    """A Bayesian neural network on a table.

    **Fields:**

    - `data`: table, .csv or .parquet
    - `target`: column to predict
    - `task`: regression or classification; auto reads it off the target
    - `features`: columns to predict from; all others by default
    - `test`: fraction of rows that are held out for scores
    - `method`: auto, chains, ensemble, map, laplace or mean_field_vi
    - `effort`: fast takes seconds, default about a minute, best some minutes
    - `noise`: heteroscedastic, or constant, for regression
    - `hidden`: widths of the hidden layers
    - `prior_scale`: scale of the weights before training
    - `num_steps`: training steps of each network; by the effort by default
    - `batch_size`: rows in a step
    - `learning_rate`: of the optimiser
    - `seed`: of everything random
    - `out`: folder of the run; runs/NAME by default
    - `quiet`: show no progress
    """

    data: str
    target: str
    task: Literal["auto", "regression", "classification"] = "auto"
    features: list[str] | None = None
    test: float = 0.2
    method: str = "auto"
    effort: Literal["fast", "default", "best"] = "default"
    noise: Literal["heteroscedastic", "constant"] = "heteroscedastic"
    hidden: tuple[int, ...] = (16, 16, 16, 16)
    prior_scale: float = 3.0
    num_steps: int | None = None
    batch_size: int = 128
    learning_rate: float = 1e-2
    seed: int = 0
    out: str | None = None
    quiet: bool = False


@dataclass(frozen=True)
class DiffusionConfig:
    """A diffusion model of images or of vectors.

    **Fields:**

    - `data`: .npy or .npz with one example along the first axis, or a folder of images
    - `classes`: whether the sub-folders of images, or `labels` in a .npz, are classes
    - `size`: images of a folder are resized to this height and width
    - `network`: mixer and unet are for images, mlp for vectors
    - `width`: channels, or hidden units, of the network
    - `epochs`: passes over the data
    - `test`: fraction of examples that are held out for scores
    - `batch_size`: examples in a step
    - `learning_rate`: of Adam at the beginning of its cosine schedule
    - `ema`: decay of the average of the weights, which samples are drawn with
    - `save_every`: epochs between two checkpoints
    - `seed`: of everything random
    - `out`: folder of the run; runs/NAME by default
    - `quiet`: show no progress
    """

    data: str
    classes: bool = False
    size: int | None = None
    network: Literal["auto", "mixer", "unet", "mlp"] = "auto"
    width: int = 64
    epochs: int = 200
    test: float = 0.1
    batch_size: int = 64
    learning_rate: float = 2e-3
    ema: float = 0.999
    save_every: int = 10
    seed: int = 0
    out: str | None = None
    quiet: bool = False


Config: TypeAlias = TableConfig | DiffusionConfig


def kind_of(data: str) -> type[Config]:
    """Return the kind of configuration for a file or folder of data."""
    path = Path(data)
    if path.suffix.lower() in TABLES:
        return TableConfig
    if path.suffix.lower() in ARRAYS or path.is_dir():
        return DiffusionConfig
    if not path.exists():
        raise CommandError(f"{data} does not exist: check the path of the data")
    raise CommandError(
        f"{data} is no kind of data that is read: give a table (.csv, .parquet), an "
        "array (.npy, .npz) or a folder of images"
    )


def check_keys(config: Any, kind: type[Config], place: str) -> None:
    """Raise for a key that the configuration does not have, with the nearest one."""
    names = [field.name for field in fields(kind)]
    for key in config:
        if key not in names:
            raise CommandError(
                f"{place} has the key {key!r}, which no {_kind(kind)} has"
                f"{nearest(str(key), names) or '; keys are ' + ', '.join(names)}"
            )


def _kind(kind: type[Config]) -> str:
    return "fit of a table" if kind is TableConfig else "fit of a diffusion model"


def check_values(config: Config) -> Config:
    """Return a configuration whose numbers are in range; raise naming the key."""
    if not 0.0 <= config.test < 1.0:
        raise CommandError(f"test={config.test}: give a fraction from 0 to below 1")
    positive = ["batch_size", "learning_rate"]
    if isinstance(config, DiffusionConfig):
        positive += ["width", "epochs", "save_every"]
        if not 0.0 <= config.ema < 1.0:
            raise CommandError(f"ema={config.ema}: give a decay from 0 to below 1")
    else:
        positive += ["prior_scale"]
        if not config.hidden or min(config.hidden) < 1:
            raise CommandError(f"hidden={list(config.hidden)}: give widths such as 16")
    for name in positive:
        value = vars(config)[name]
        if not value > 0:
            raise CommandError(f"{name}={value}: give a positive number")
    return config
