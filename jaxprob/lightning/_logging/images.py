"""Images for the loggers that take them."""

import math
from collections.abc import Sequence

import numpy as np
import pytorch_lightning as pl
from jaxtyping import Float

from .digits import DIGIT_HEIGHT, draw_number


def image_grid(
    images: Float[np.ndarray, "num *shape"],
    *,
    pad: int = 1,
    columns: int | None = None,
    titles: Sequence[int] | None = None,
    limits: tuple[float, float] | None = None,
) -> Float[np.ndarray, "height width channels"]:
    """Lay images side by side.

    **Arguments:**

    - `images`: channels first, `(num, channels, height, width)` with 1 or 3 channels,
        or `(num, height, width)`. Values that are not finite are drawn black.
    - `pad`: white pixels between them.
    - `columns`: of the grid; a near-square by default.
    - `titles`: a whole number for each column, written above it.
    - `limits`: values of black and of white, to which others are clipped. By default
        the smallest and the largest value.

    **Returns:** one image in [0, 1], channels last.
    """
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images have shape {images.shape}: a grid is drawn of (num, height, "
            "width) or (num, channels, height, width) with 1 or 3 channels"
        )
    if limits is None:
        finite = images[np.isfinite(images)]
        limits = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    low, high = limits
    scaled = (images - low) / max(high - low, np.finfo(images.dtype).tiny)
    scaled = np.where(np.isfinite(scaled), scaled, 0.0).clip(0.0, 1.0)
    num, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(num)) if columns is None else columns
    rows = math.ceil(num / columns)
    head = 0 if titles is None else DIGIT_HEIGHT + pad
    height, width = height + pad, width + pad
    shape = (head + rows * height + pad, columns * width + pad, channels)
    grid = np.ones(shape, np.float32)
    for column, title in enumerate(() if titles is None else titles):
        left = column * width + pad
        draw_number(grid[pad:head, left : left + width - pad], int(title))
    for i, image in enumerate(scaled.astype(np.float32)):
        top, left = head + (i // columns) * height + pad, (i % columns) * width + pad
        cell = grid[top : top + height - pad, left : left + width - pad]
        cell[:] = image.transpose(1, 2, 0)
    return grid


def log_image(
    trainer: pl.Trainer,
    tag: str,
    image: Float[np.ndarray, "height width channels"],
    step: int,
) -> None:
    """Log an image with every logger that takes images."""
    for logger in trainer.loggers:
        log = getattr(logger, "log_image", None)  # Weights & Biases
        add = getattr(getattr(logger, "experiment", None), "add_image", None)
        if log is not None:
            log(tag, [image], step=step)
        elif add is not None:  # TensorBoard
            add(tag, image, step, dataformats="HWC")
