"""Real data sets that are bundled with scikit-learn."""

from typing import Any

import numpy as np

from ._seed import Seed
from ._split import Split, train_test_split


def _regression(loader, test: float, val: float, seed: Seed, name: str, **options):
    bunch = loader(**options)
    return train_test_split(
        bunch.data.astype(np.float32),
        bunch.target.astype(np.float32)[:, None],
        test=test,
        val=val,
        seed=seed,
        feature_names=tuple(map(str, bunch.feature_names)),
        target_names=(name,),
        name=name,
    )


def _classification(x, bunch, test: float, val: float, seed: Seed, name: str):
    return train_test_split(
        x.astype(np.float32),
        bunch.target.astype(np.int32),
        test=test,
        val=val,
        seed=seed,
        feature_names=tuple(map(str, bunch.feature_names)),
        target_names=tuple(map(str, bunch.target_names)),
        name=name,
    )


def diabetes(*, test: float = 0.2, val: float = 0.0, seed: Seed = 0) -> Split:
    """Progression of diabetes in 442 patients from 10 measurements, in their units.

    Least Angle Regression (Efron, Hastie, Johnstone, Tibshirani, 2004).

    **Arguments:** `test`, `val`, `seed` as in `train_test_split`.
    """
    from sklearn.datasets import load_diabetes

    # The scaled version is standardised on all rows, including test rows.
    return _regression(load_diabetes, test, val, seed, "diabetes", scaled=False)


def digits(*, test: float = 0.2, val: float = 0.0, seed: Seed = 0) -> Split:
    """1797 handwritten digits, images of 8 x 8 pixels in [0, 1], ten classes.

    The pixels are 17 grey levels divided by 16. For networks with channels add an axis:
    `x[:, None]`.

    **Arguments:** `test`, `val`, `seed` as in `train_test_split`.
    """
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return _classification(bunch.images / 16.0, bunch, test, val, seed, "digits")


def breast_cancer(*, test: float = 0.2, val: float = 0.0, seed: Seed = 0) -> Split:
    """569 breast tumours by 30 measurements, malignant (0) or benign (1).

    **Arguments:** `test`, `val`, `seed` as in `train_test_split`.
    """
    from sklearn.datasets import load_breast_cancer

    bunch: Any = load_breast_cancer()
    return _classification(bunch.data, bunch, test, val, seed, "breast_cancer")


def iris(*, test: float = 0.2, val: float = 0.0, seed: Seed = 0) -> Split:
    """150 irises by 4 measurements, three species.

    **Arguments:** `test`, `val`, `seed` as in `train_test_split`.
    """
    from sklearn.datasets import load_iris

    bunch: Any = load_iris()
    return _classification(bunch.data, bunch, test, val, seed, "iris")


def wine(*, test: float = 0.2, val: float = 0.0, seed: Seed = 0) -> Split:
    """178 wines by 13 measurements, three growers.

    **Arguments:** `test`, `val`, `seed` as in `train_test_split`.
    """
    from sklearn.datasets import load_wine

    bunch: Any = load_wine()
    return _classification(bunch.data, bunch, test, val, seed, "wine")
