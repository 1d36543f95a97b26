"""Arrays and folders of images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ._config import DiffusionConfig
from ._errors import CommandError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples for a diffusion model.

    **Fields:**

    - `x`: images (channels, height, width) with values of 0 to 1, or vectors.
    - `labels`: their classes, or `None`.
    - `names`: of the classes.
    """

    x: Float[np.ndarray, "rows ..."]
    labels: Int[np.ndarray, " rows"] | None
    names: tuple[str, ...]

    @property
    def is_image(self) -> bool:
        """True for images."""
        return self.x.ndim == 4


def read_examples(config: DiffusionConfig) -> Examples:
    """Return the examples of an array file or of a folder of images.

    **Raises:** `CommandError` for another file, or for examples of a wrong shape.
    """
    path = Path(config.data)
    if path.is_dir():
        return _folder(path, config)
    if config.size is not None:
        raise CommandError("size is for a folder of images: arrays are not resized")
    x, labels, names = _file(path, config)
    return Examples(_shaped(x, config.data), labels, names)


def _file(path: Path, config: DiffusionConfig) -> tuple[Any, Any, tuple[str, ...]]:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CommandError(f"{path} is no array of numbers: {error}") from None
    if isinstance(loaded, np.ndarray):
        if config.classes:
            raise CommandError(
                "classes: true needs labels: give a .npz with the arrays x and labels"
            )
        return loaded, None, ()
    with loaded:
        if "x" not in loaded:
            known = ", ".join(loaded.files) or "none"
            raise CommandError(f"{path} has no array 'x'; its arrays are {known}")
        if not config.classes:
            return loaded["x"], None, ()
        if "labels" not in loaded:
            raise CommandError(f"classes: true, and {path} has no array 'labels'")
        names, labels = np.unique(loaded["labels"], return_inverse=True)
        x = loaded["x"]
    if len(labels) != len(x):
        raise CommandError(f"{path} has {len(x)} examples and {len(labels)} labels")
    return x, labels.astype(np.int32), tuple(map(str, names))


def _shaped(x: np.ndarray, place: str) -> Float[np.ndarray, "rows ..."]:
    if x.dtype.kind not in "iufb":
        raise CommandError(f"{place} holds {x.dtype}: give an array of numbers")
    scale = 255.0 if x.dtype == np.uint8 else 1.0
    x = np.asarray(x, np.float32) / scale
    if not np.isfinite(x).all():
        row = int(np.argwhere(~np.isfinite(x))[0, 0])
        raise CommandError(f"{place} has NaN or infinite values, first in row {row}")
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    if x.ndim == 2 or (x.ndim == 4 and x.shape[1] in (1, 3)):
        if len(x) < 4:
            raise CommandError(f"{place} has {len(x)} examples: give at least 4")
        return x
    raise CommandError(
        f"{place} has shape {x.shape}: give (rows, columns), (rows, height, width), or "
        "images with 1 or 3 channels, first or last"
    )


def _folder(path: Path, config: DiffusionConfig) -> Examples:
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGES)
    if not files:
        raise CommandError(f"{path} holds no images ({', '.join(IMAGES)})")
    arrays = [_image(file, config.size) for file in files]
    channels = max(array.shape[0] for array in arrays)
    for file, array in zip(files, arrays, strict=True):
        if array.shape[1:] != arrays[0].shape[1:]:
            raise CommandError(
                f"{file} is {array.shape[1]} x {array.shape[2]} and {files[0]} "
                f"{arrays[0].shape[1]} x {arrays[0].shape[2]}: give --size, to which "
                "all are resized"
            )
    x = np.stack([np.broadcast_to(a, (channels, *a.shape[1:])) for a in arrays])
    if not config.classes:
        return Examples(_shaped(x, str(path)), None, ())
    parents = [file.parent for file in files]
    if path in parents:
        raise CommandError(
            f"classes: true, and {files[parents.index(path)]} is in no sub-folder: "
            "put the images of each class into one"
        )
    names, labels = np.unique([str(p.relative_to(path)) for p in parents],
                              return_inverse=True)  # fmt: skip
    return Examples(
        _shaped(x, str(path)), labels.astype(np.int32), tuple(map(str, names))
    )


def _image(file: Path, size: int | None) -> np.ndarray:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise CommandError(
            'images are read by pillow: pip install "jaxprob[command]"'
        ) from None
    try:
        with Image.open(file) as opened:
            grey = opened.mode in ("1", "L", "I;16", "LA")
            image = opened.convert("L" if grey else "RGB")
    except UnidentifiedImageError:
        raise CommandError(f"{file} is no image: remove it from the folder") from None
    if size is not None:
        image = image.resize((size, size))
    array = np.asarray(image, np.uint8)
    return array[None] if grey else array.transpose(2, 0, 1)
