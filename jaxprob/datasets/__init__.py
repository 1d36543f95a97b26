"""Data sets as NumPy arrays. Nothing is downloaded.

Every supervised set is a `Split`: training, test and optional validation rows. Means
and scales are computed from the training rows only, by a `Standardizer`, which also
maps predictions back to original units:

    split = jaxprob.datasets.diabetes()
    data, x_scaler, y_scaler = split.standardize()
    ...                                         # train on data.x_train, data.y_train
    mean = y_scaler.inverse(mean)               # predictions in original units,
    std = y_scaler.inverse_scale(std)           # their scales,
    log_prob = log_prob + y_scaler.log_det      # and their log-densities

- scikit-learn's bundled sets need no folder: `diabetes`, `digits`, `breast_cancer`,
  `iris`, `wine`.
- Sets on disk are read from a folder `root`: `uci`, `mnist`,
  `kmnist_test`, and `read_idx` for any file in MNIST's format.
- Toy sets with known distributions are drawn from a seed: `heteroscedastic`,
  `two_moons`, `gaussian_ring`, `spirals`.
- Trajectories of different lengths become rows by `pad_trajectories`.

Targets of a regression have one column per target, `(rows, 1)`, like the output `(1,)`
of a network: `(rows,)` minus `(rows, 1)` would broadcast to a square. Labels are
`(rows,)` of int32.
"""

from .._exports import public_names as _public_names
from ._standardizer import Standardizer as Standardizer
from ._split import Split as Split, train_test_split as train_test_split
from ._bundled import (
    breast_cancer as breast_cancer,
    diabetes as diabetes,
    digits as digits,
    iris as iris,
    wine as wine,
)
from ._uci import (
    uci as uci,
    uci_num_splits as uci_num_splits,
    uci_sets as uci_sets,
)
from ._idx import CorruptFileError as CorruptFileError, read_idx as read_idx
from ._mnist import kmnist_test as kmnist_test, mnist as mnist
from ._trajectories import pad_trajectories as pad_trajectories
from ._toy import (
    gaussian_ring as gaussian_ring,
    heteroscedastic as heteroscedastic,
    heteroscedastic_truth as heteroscedastic_truth,
    spirals as spirals,
    two_moons as two_moons,
)

__all__ = _public_names(__name__)
