"""MNIST, and KMNIST as data that are out of its distribution."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from .._checks import check_labels, check_same_length
from .._io.paths import local_path
from ._folder import PathLike, existing
from ._idx import CorruptFileError, read_idx
from ._split import Split

Images = tuple[Float[np.ndarray, "rows 28 28"], Int[np.ndarray, " rows"]]


def _pair(images: np.ndarray, labels: np.ndarray, what: str) -> Images:
    if images.ndim != 3 or labels.ndim != 1:
        raise CorruptFileError(
            f"{what}: images have shape {images.shape} and labels {labels.shape}, "
            "where (rows, height, width) and (rows,) are needed. Are the files swapped?"
        )
    check_same_length(images=images, labels=labels)
    check_labels("labels", labels, 10)
    return images.astype(np.float32) / np.float32(255), labels.astype(np.int32)


def _idx_file(root: Path, stem: str) -> Path:
    folders = (root, root / "raw", root / "MNIST" / "raw")
    # Both spellings are in use.
    names = (stem, stem.replace("-idx", ".idx"))
    for folder in folders:
        for name in names:
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    return path
    raise FileNotFoundError(
        f"root: there is no {stem} and no {stem}.gz in "
        f"{', '.join(map(str, folders))}. Put the four files of MNIST into one of "
        "them; torchvision.datasets.MNIST(root, download=True) does this"
    )


def mnist(root: PathLike) -> Split:
    """Read MNIST in its standard split: 60,000 and 10,000 images of 28 x 28 in [0, 1].

    It reads any set in MNIST's four files, such as Fashion-MNIST and KMNIST. The
    training images of MNIST have mean 0.1307 and standard deviation 0.3081; see
    `Split.standardize(shared=True)`.

    **Arguments:**

    - `root`: the folder with the four IDX files, gzipped or not, or torchvision's
        folder above it.

    **Raises:** `FileNotFoundError`; `CorruptFileError` for damaged files.
    """
    root = local_path("root", root)
    parts = {}
    for part, stem in (("train", "train"), ("test", "t10k")):
        parts[f"x_{part}"], parts[f"y_{part}"] = _pair(
            read_idx(_idx_file(root, f"{stem}-images-idx3-ubyte")),
            read_idx(_idx_file(root, f"{stem}-labels-idx1-ubyte")),
            f"{root}, {part}",
        )
    return Split(**parts, target_names=tuple("0123456789"), name="mnist")


def _npz(path: Path) -> np.ndarray:
    existing("root", path, "It must hold kmnist-test-imgs.npz, kmnist-test-labels.npz.")
    try:
        # Reading pickled objects would run code. The file is opened here, because
        # np.load does not close a damaged archive.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise KeyError("arr_0: it holds a single array, as npy files do")
            return archive["arr_0"]
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        KeyError,
        ValueError,
    ) as error:
        raise CorruptFileError(
            f"{path} is not an npz file with one plain array arr_0 ({error}). Download "
            "it again"
        ) from error


def kmnist_test(root: PathLike) -> Images:
    """Read the 10,000 test images of KMNIST, 28 x 28 in [0, 1], with their labels.

    Deep Learning for Classical Japanese Literature (Clanuwat, Bober-Irizar, Kitamoto,
    Lamb, Yamamoto, Ha, 2018). The format is that of MNIST; a classifier of digits
    should be uncertain of these images.

    **Arguments:**

    - `root`: the folder with `kmnist-test-imgs.npz` and `kmnist-test-labels.npz`.

    **Raises:** `FileNotFoundError`; `CorruptFileError` for damaged files.
    """
    root = local_path("root", root)
    return _pair(
        _npz(root / "kmnist-test-imgs.npz"),
        _npz(root / "kmnist-test-labels.npz"),
        str(root),
    )
