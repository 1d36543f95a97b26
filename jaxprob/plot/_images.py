"""Grids of images: samples beside real images."""

import numpy as np
from jaxtyping import ArrayLike
from matplotlib.figure import Figure


def _tile(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return one large image with white lines between the small ones."""
    height, width, channels = images.shape[1:]
    sheet = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1, channels))
    for i, image in enumerate(images[: rows * columns]):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        sheet[top : top + height, left : left + width] = image
    return sheet


def _limits(reference: ArrayLike) -> tuple[float, float]:
    """Return the values of black and white: 0 and 1, or the extremes if beyond them."""
    array = np.asarray(reference, float)
    low, high = float(array.min()), float(array.max())
    if low >= 0.0 and high <= 1.0:
        return 0.0, 1.0
    return (low, high) if high > low else (low, low + 1.0)


def _images(name: str, images: ArrayLike) -> np.ndarray:
    """Return finite images of shape (images, height, width, 1 or 3)."""
    array = np.asarray(images, float)
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or array.shape[1] not in (1, 3) or len(array) == 0:
        raise ValueError(
            f"{name} has shape {np.shape(images)}: give (images, height, width) "
            "or (images, channels, height, width) with 1 or 3 channels"
        )
    broken = ~np.isfinite(array).all((1, 2, 3))
    if broken.any():
        raise ValueError(
            f"{name}[{int(np.argmax(broken))}] has NaN or infinite values: "
            f"{int(broken.sum())} of {len(array)} images do. Give finite images"
        )
    return array.transpose(0, 2, 3, 1)


def sample_grid(
    samples: ArrayLike,
    *,
    real: ArrayLike | None = None,
    columns: int = 10,
    max_rows: int = 10,
    limits: tuple[float, float] | None = None,
    titles: tuple[str, str] = ("samples", "real"),
) -> Figure:
    """Draw images in a grid, and beside it a grid of as many real images.

    **Arguments:**

    - `samples`, `real`: shape `(images, height, width)` or `(images, channels,
        height, width)`, with 1 or 3 channels.
    - `columns`, `max_rows`: size of each grid; further images are left out.
    - `limits`: values of black and of white; values beyond are clipped. By default 0
        and 1 for images between them, else the smallest and the largest value (of
        `real` if it is given, so that both grids have the same scale).
    - `titles`: titles of the grids.

    **Returns:** the figure.

    **Raises:** `ValueError` for other shapes and for images that are not finite.
    """
    grids = [_images("samples", samples)]
    if real is not None:
        grids.append(_images("real", real)[: len(grids[0])])
    low, high = _limits(grids[-1]) if limits is None else limits
    grids = [np.clip((grid - low) / (high - low), 0.0, 1.0) for grid in grids]
    columns = min(columns, len(grids[0]))
    rows = min(max_rows, -(-len(grids[0]) // columns))
    height, width = grids[0].shape[1:3]
    inches = 4.2
    size = (inches * len(grids), inches * rows * height / (columns * width) + 0.35)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    figure.get_layout_engine().set(wspace=0.04)  # pyright: ignore
    for i, (grid, title) in enumerate(zip(grids, titles, strict=False)):
        ax = figure.add_subplot(1, len(grids), i + 1)
        sheet = _tile(grid, rows, columns)
        if sheet.shape[2] == 1:
            ax.imshow(
                sheet[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest"
            )
        else:
            ax.imshow(sheet, interpolation="nearest")
        ax.set_title(title)
        ax.set_axis_off()
    return figure
