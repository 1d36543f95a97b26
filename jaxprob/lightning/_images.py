"""Pictures for whichever logger is there."""

import math

import numpy as np
import pytorch_lightning as pl
from jaxtyping import Float


def image_grid(
    images: Float[np.ndarray, "num *shape"], *, pad: int = 1
) -> Float[np.ndarray, "height width channels"]:
    """Images side by side in a near-square, each scaled by the range of all.

    **Arguments:**

    - `images`: channels first, `(num, channels, height, width)` with 1 or 3 channels,
        or `(num, height, width)`. What is not finite is drawn black.
    - `pad`: black pixels between them.

    **Returns:** one image in [0, 1], channels last.
    """
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images have shape {images.shape}: a grid is drawn of (num, height, "
            "width) or (num, channels, height, width) with 1 or 3 channels"
        )
    finite = images[np.isfinite(images)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    scaled = (images - low) / max(high - low, np.finfo(images.dtype).tiny)
    scaled = np.where(np.isfinite(scaled), scaled, 0.0).astype(np.float32)
    num, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(num))
    rows = math.ceil(num / columns)
    height, width = height + pad, width + pad
    grid = np.zeros((rows * height + pad, columns * width + pad, channels), np.float32)
    for i, image in enumerate(scaled):
        top, left = (i // columns) * height + pad, (i % columns) * width + pad
        cell = grid[top : top + height - pad, left : left + width - pad]
        cell[:] = image.transpose(1, 2, 0)
    return grid


def log_image(
    trainer: pl.Trainer,
    tag: str,
    image: Float[np.ndarray, "height width channels"],
    step: int,
) -> None:
    """Gives an image to every logger that takes images; the others do without."""
    for logger in trainer.loggers:
        log = getattr(logger, "log_image", None)  # Weights & Biases
        add = getattr(getattr(logger, "experiment", None), "add_image", None)
        if log is not None:
            log(tag, [image], step=step)
        elif add is not None:  # TensorBoard
            add(tag, image, step, dataformats="HWC")
