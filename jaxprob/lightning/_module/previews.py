"""Previews of a denoiser in training, as a grid of images for the loggers."""

import warnings
from typing import Any

import jax
import numpy as np
import pytorch_lightning as pl

from ..._training.loader import ArrayLoader
from .._logging.images import image_grid, log_image
from .._trainer.watchers import PassiveCallback


class Previews(PassiveCallback):
    """Callback that logs a grid of samples at the end of an epoch."""

    def __init__(self):
        self._limits: tuple[float, float] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._limits = extremes(trainer.train_dataloader, pl_module.shape)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        due = (trainer.current_epoch + 1) % pl_module.previews_every_n_epochs == 0
        drawable = len(pl_module.shape) in (2, 3)
        if not due or not drawable or not trainer.loggers:
            return
        try:
            images = pl_module.previews()
        # A network early in training may be too stiff to sample, or not have seen a
        # row whose condition was left out, without which it cannot be guided.
        except (RuntimeError, ValueError) as error:
            warnings.warn(f"no preview of samples: {error}", stacklevel=2)
            return
        grid = preview_grid(images, pl_module.preview_cond, self._limits)
        log_image(trainer, "samples", grid, trainer.global_step)


def extremes(loaders, shape):
    """Return black and white of the training images, if they are in memory."""
    leaves = [
        leaf
        for loader in jax.tree.leaves(loaders)
        if isinstance(loader, ArrayLoader)
        for leaf in jax.tree.leaves(loader.data)
        if np.shape(leaf)[1:] == shape
    ]
    if not leaves:
        return None
    return float(np.min(leaves[0])), float(np.max(leaves[0]))


def preview_grid(images, cond, limits):
    """Lay out samples, with one column for each class of equal number."""
    if limits is None:
        finite = images[np.isfinite(images)]
        if finite.size:  # of which a few lie far out
            low, high = np.quantile(finite, [0.01, 0.99])
            limits = float(low), float(high)
    cond = None if cond is None else jax.tree.leaves(cond)[0]
    if cond is None or np.ndim(cond) != 1 or not np.issubdtype(cond.dtype, np.integer):
        return image_grid(images, limits=limits)
    classes, counts = np.unique(np.asarray(cond), return_counts=True)
    if len(set(counts)) > 1:
        return image_grid(images, limits=limits)
    by_class = np.argsort(cond, kind="stable").reshape(len(classes), -1)
    return image_grid(
        images[by_class.T.ravel()],
        columns=len(classes),
        titles=classes.tolist(),
        limits=limits,
    )
