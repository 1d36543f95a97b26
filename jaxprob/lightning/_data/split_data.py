"""The sets of `jaxprob.datasets` as LightningDataModules, standardised."""

from dataclasses import replace
from typing import Any

import numpy as np

from ... import datasets
from ...datasets import Split
from .data import ArrayDataModule

CHANNELS = (1, 3, 4)
_BUNDLED = ("diabetes", "digits", "breast_cancer", "iris", "wine")


class TabularDataModule(ArrayDataModule):
    """Data module of a table, standardised by its training rows.

    ```python
    data = TabularDataModule("diabetes", batch_size=64)
    data = TabularDataModule(jaxprob.datasets.uci("yacht", root=folder, split=3))
    mean = data.y_scaler.inverse(predictive.mean)       # in original units
    ```

    **Arguments:**

    - `split`: from `jaxprob.datasets`, or the name of a set bundled with scikit-learn.
    - `batch_size`, `seed`: as in `ArrayDataModule`.

    **Fields:** `split` (standardised), `x_scaler`, and `y_scaler`, which is `None` for
    labels. The stage of predictions has the inputs of the test rows.
    """

    def __init__(
        self, split: Split | str, *, batch_size: int = 32, seed: int | None = None
    ):
        self.split, self.x_scaler, self.y_scaler = _load(split).standardize()
        stages: Any = _stages(self.split)
        super().__init__(**stages, batch_size=batch_size, seed=seed)


class ImageDataModule(ArrayDataModule):
    """Data module of images, standardised by one mean and scale for all pixels.

    ```python
    data = ImageDataModule("digits", labels=False, batch_size=256)   # for diffusion
    data = ImageDataModule(jaxprob.datasets.mnist(folder))           # for a classifier
    ```

    **Arguments:**

    - `split`: from `jaxprob.datasets`, or the name of a set bundled with scikit-learn.
        Rows are `(height, width)`, `(channels, height, width)` or `(height, width,
        channels)`, with 1, 3 or 4 channels; a batch has the channels first.
    - `labels`: whether a batch is `(x, y)`, or `x` alone.
    - `batch_size`, `seed`: as in `ArrayDataModule`.

    **Fields:** `split` (standardised, with its channel axis), `x_scaler`.
    """

    def __init__(
        self,
        split: Split | str,
        *,
        labels: bool = True,
        batch_size: int = 128,
        seed: int | None = None,
    ):
        standardized, self.x_scaler, _ = _load(split).standardize(shared=True)
        self.split = _with_channels(standardized)
        stages: Any = _stages(self.split)
        if not labels:
            stages = {name: s[0] if s is not None else s for name, s in stages.items()}
        stages["predict"] = self.split.x_test
        super().__init__(**stages, batch_size=batch_size, seed=seed)


def _load(split):
    if isinstance(split, Split):
        return split
    if split not in _BUNDLED:
        raise ValueError(
            f"split={split!r} is none of {', '.join(_BUNDLED)}: for a set on disk give "
            "the result of its reader in jaxprob.datasets"
        )
    return getattr(datasets, split)()


def _stages(split):
    validation = None if split.x_val is None else (split.x_val, split.y_val)
    return {
        "train": (split.x_train, split.y_train),
        "validation": validation,
        "test": (split.x_test, split.y_test),
        "predict": split.x_test,
    }


def _with_channels(split):
    """Move the channels of images first."""
    shape = split.x_train.shape[1:]
    colour = len(shape) == 3 and (shape[0] in CHANNELS or shape[-1] in CHANNELS)
    if len(shape) != 2 and not colour:
        remedy = "use TabularDataModule" if len(shape) == 1 else "move its axes"
        raise ValueError(
            f"{split!r} has rows of shape {shape}: images are (height, width), "
            "(channels, height, width) or (height, width, channels) with "
            f"{' or '.join(map(str, CHANNELS))} channels: {remedy}"
        )
    images = {
        name: _channels_first(getattr(split, name))
        for name in ("x_train", "x_test", "x_val")
        if getattr(split, name) is not None
    }
    return replace(split, **images)


def _channels_first(x):
    if x.ndim == 3:
        return x[:, np.newaxis]
    if x.shape[1] in CHANNELS:
        return x
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))
