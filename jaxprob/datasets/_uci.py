"""The UCI regression benchmark in the layout of its published splits."""

from pathlib import Path

import numpy as np

from .._checks import check_finite
from .._io.paths import local_path
from ._folder import PathLike, existing
from ._seed import Seed, generator
from ._split import Split


def _remedy(root: Path) -> str:
    found = uci_sets(root) if root.is_dir() else []
    listing = f" It holds {', '.join(found)}." if found else ""
    return (
        "root must hold a folder NAME/data with data.txt, index_features.txt, "
        f"index_target.txt and index_train_0.txt, index_test_0.txt, ....{listing}"
    )


def _folder(name: str, root: PathLike) -> Path:
    root = local_path("root", root)
    return existing("root", root / name / "data", _remedy(root))


def uci_sets(root: PathLike) -> list[str]:
    """Return the sorted names of the sets below `root`."""
    root = local_path("root", root)
    existing("root", root, "It is the folder that holds one folder per set.")
    return sorted(path.parent.parent.name for path in root.glob("*/data/data.txt"))


def uci_num_splits(name: str, root: PathLike) -> int:
    """Count the splits of a set, its `index_train_*.txt` files."""
    return len(list(_folder(name, root).glob("index_train_*.txt")))


def _indices(folder: Path, file: str, root: Path, limit: int) -> np.ndarray:
    path = existing("root", folder / file, _remedy(root))
    numbers = np.loadtxt(path, ndmin=1)
    indices = numbers.astype(np.int64)
    if (indices != numbers).any() or (indices < 0).any() or (indices >= limit).any():
        bad = np.flatnonzero((indices != numbers) | (indices < 0) | (indices >= limit))
        raise ValueError(
            f"{path} line {bad[0] + 1} is {numbers[bad[0]]}: give an integer from 0 "
            f"to {limit - 1}. The file may belong to another set"
        )
    if len(np.unique(indices)) != len(indices):
        raise ValueError(f"{path} names a row or column twice")
    return indices


def uci(
    name: str,
    root: PathLike,
    *,
    split: int = 0,
    val: float = 0.0,
    seed: Seed = 0,
    dtype: type[np.floating] = np.float32,
) -> Split:
    """Read one published split of one set, in original units.

    Dropout as a Bayesian Approximation (Gal, Ghahramani, 2016), in whose repository the
    splits are; the sets and the 90 % / 10 % protocol are those of Probabilistic
    Backpropagation (Hernandez-Lobato, Adams, 2015).

    ```python
    data, x_scaler, y_scaler = uci("yacht", root, split=3).standardize(constant="keep")
    ```

    `"keep"` is for constant columns, of which naval-propulsion-plant has two.

    **Arguments:**

    - `name`: the folder of the set, such as `"yacht"` or `"bostonHousing"`.
    - `root`: the folder that holds it. The files read are `root/name/data/*.txt`.
    - `split`: number of the published split.
    - `val`: fraction of the **training** rows that become validation rows, at random.
    - `seed`: seed of that choice.
    - `dtype`: dtype of the arrays.

    **Raises:** `FileNotFoundError` for a missing folder or file; `ValueError` for a
    split that does not exist, index files that do not match the data, test rows among
    the training rows, or data that are not finite.
    """
    root = local_path("root", root)
    folder = _folder(name, root)
    num_splits = uci_num_splits(name, root)
    if not 0 <= split < num_splits:
        raise ValueError(
            f"split={split}: give one of {name}'s splits, 0, ..., {num_splits - 1}"
        )
    if not 0.0 <= val < 1.0:
        raise ValueError(f"val={val}: give a fraction of the training rows below 1")
    data = np.loadtxt(
        existing("root", folder / "data.txt", _remedy(root)), ndmin=2, dtype=np.float64
    )
    check_finite(str(folder / "data.txt"), data)
    rows, columns = data.shape
    # The target is not always the last column, and some columns are unused.
    features = _indices(folder, "index_features.txt", root, columns)
    target = _indices(folder, "index_target.txt", root, columns)
    if np.isin(target, features).any():
        raise ValueError(f"{folder}: column {target} is both a feature and the target")
    train = _indices(folder, f"index_train_{split}.txt", root, rows)
    test = _indices(folder, f"index_test_{split}.txt", root, rows)
    if np.isin(test, train).any():
        both = int(test[np.isin(test, train)][0])
        raise ValueError(f"{folder}: row {both} is in both parts of split {split}")
    num_val = max(1, round(val * len(train))) if val else 0
    if num_val >= len(train):
        raise ValueError(f"val={val} leaves no training row of {len(train)}")
    if num_val:
        train = generator(seed).permutation(train)
    held_out, train = np.split(train, [num_val])
    x, y = data[:, features].astype(dtype), data[:, target].astype(dtype)
    return Split(
        x_train=x[train],
        y_train=y[train],
        x_test=x[test],
        y_test=y[test],
        x_val=x[held_out] if num_val else None,
        y_val=y[held_out] if num_val else None,
        feature_names=tuple(f"column {i}" for i in features),
        target_names=tuple(f"column {i}" for i in target),
        name=f"{name}/{split}",
    )
