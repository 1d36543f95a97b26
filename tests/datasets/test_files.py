"""Readers of files: the published layouts read right, damaged files named."""

import gzip
import struct

import numpy as np
import pytest

from jaxprob import datasets
from jaxprob.datasets import CorruptFileError, kmnist_test, mnist, read_idx, uci

from ..data_folder import data_folder
from ..unhooked import unhooked

UCI = {
    "bostonHousing": (506, 13),
    "concrete": (1030, 8),
    "energy": (768, 8),
    "power-plant": (9568, 4),
    "wine-quality-red": (1599, 11),
    "yacht": (308, 6),
}
CODES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def _write_idx(path, array, code, *, packed=False):
    header = struct.pack(">HBB", 0, code, array.ndim)
    header += struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(CODES[code]).tobytes()
    path.write_bytes(gzip.compress(content) if packed else content)
    return content


def _write_uci(root, name="toy", rows=20):
    """Target in the first column, and one column of no use, as in two real sets."""
    folder = root / name / "data"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    data = np.round(rng.normal(size=(rows, 5)), 6)
    np.savetxt(folder / "data.txt", data)
    np.savetxt(folder / "index_features.txt", [1, 2, 4], fmt="%d")
    np.savetxt(folder / "index_target.txt", [0], fmt="%d")
    for split in range(3):
        order = rng.permutation(rows)
        # One of the published sets writes its indices as floats.
        np.savetxt(folder / f"index_train_{split}.txt", order[: rows - 2], fmt="%.3e")
        np.savetxt(folder / f"index_test_{split}.txt", order[rows - 2 :], fmt="%d")
    return folder, data


@pytest.mark.parametrize("name", UCI)
def test_every_published_split_regenerates(name):
    root = data_folder("uci")
    rows, columns = UCI[name]
    data = np.loadtxt(root / name / "data" / "data.txt")
    state = np.random.RandomState(1)
    assert datasets.uci_num_splits(name, root) == 20
    for i in range(20):
        order = state.choice(range(rows), rows, replace=False)
        cut = round(0.9 * rows)
        split = uci(name, root, split=i, dtype=np.float64)
        assert split.x_train.shape == (cut, columns)
        for part, index in (("train", order[:cut]), ("test", order[cut:])):
            x, y = getattr(split, f"x_{part}"), getattr(split, f"y_{part}")
            np.testing.assert_array_equal(x, data[index, :columns])
            np.testing.assert_array_equal(y, data[index, -1:])


def test_uci_sets_are_listed():
    assert set(UCI) <= set(datasets.uci_sets(data_folder("uci")))


def test_layout_with_the_target_anywhere_and_unused_columns(tmp_path):
    folder, data = _write_uci(tmp_path)
    assert datasets.uci_sets(tmp_path) == ["toy"]
    assert datasets.uci_num_splits("toy", tmp_path) == 3
    split = uci("toy", str(tmp_path), split=2, dtype=np.float64)
    index = np.loadtxt(folder / "index_train_2.txt").astype(int)
    np.testing.assert_array_equal(split.x_train, data[index][:, [1, 2, 4]])
    np.testing.assert_array_equal(split.y_train, data[index][:, [0]])
    assert uci("toy", tmp_path).x_train.dtype == np.float32


def test_validation_rows_are_training_rows(tmp_path):
    _write_uci(tmp_path)
    whole, cut = uci("toy", tmp_path), uci("toy", tmp_path, val=0.25, seed=1)
    assert cut.x_val is not None
    assert len(cut.x_val) == round(0.25 * 18)
    both = np.concatenate([cut.x_train, cut.x_val])
    np.testing.assert_array_equal(
        both[np.lexsort(both.T)], whole.x_train[np.lexsort(whole.x_train.T)]
    )
    np.testing.assert_array_equal(cut.x_test, whole.x_test)
    other = uci("toy", tmp_path, val=0.25, seed=2)
    assert (other.x_val != cut.x_val).any()


def test_missing_folder_is_named_with_the_remedy(tmp_path):
    missing = tmp_path / "nowhere"
    for read in (lambda: uci("yacht", missing), lambda: datasets.uci_sets(missing)):
        with pytest.raises(FileNotFoundError, match=r"root: there is no .*nowhere"):
            read()
    _write_uci(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"yacht.*It holds toy\."):
        uci("yacht", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"root: .*train-images-idx3-ubyte"):
        mnist(missing)
    with pytest.raises(FileNotFoundError, match=r"root: .*kmnist-test-imgs\.npz"):
        kmnist_test(missing)
    with pytest.raises(FileNotFoundError, match=r"path: there is no .*nowhere"):
        read_idx(missing)


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("index_train_0.txt", "0\n1\n20\n", r"line 3 is 20\.0.*from 0 to 19"),
        ("index_train_0.txt", "0\n0.5\n", r"line 2 is 0\.5"),
        ("index_train_0.txt", "0\n-1\n", r"line 2 is -1"),
        ("index_train_0.txt", "3\n3\n", "twice"),
        ("index_features.txt", "0\n1\n", "both a feature and the target"),
        ("index_features.txt", "1\n5\n", r"line 2 is 5.*from 0 to 4"),
    ],
)
def test_index_files_that_do_not_fit_are_named(tmp_path, file, content, match):
    folder, _ = _write_uci(tmp_path)
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=match):
        uci("toy", tmp_path)


def test_a_test_row_among_the_training_rows_is_named(tmp_path):
    folder, _ = _write_uci(tmp_path)
    row = np.loadtxt(folder / "index_train_1.txt").astype(int)[4]
    (folder / "index_test_1.txt").write_text(f"{row}\n")
    with pytest.raises(ValueError, match=f"row {row} is in both parts of split 1"):
        uci("toy", tmp_path, split=1)
    uci("toy", tmp_path, split=0)


def test_uci_bad_numbers_and_settings(tmp_path):
    folder, data = _write_uci(tmp_path)
    for split in (-1, 3):
        with pytest.raises(ValueError, match=r"splits, 0, \.\.\., 2"):
            uci("toy", tmp_path, split=split)
    with pytest.raises(ValueError, match="val="):
        uci("toy", tmp_path, val=1.0)
    data[3, 2] = np.nan
    np.savetxt(folder / "data.txt", data)
    with pytest.raises(ValueError, match=r"data\.txt holds 1.*row 3, column 2"):
        uci("toy", tmp_path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0, 3)])
def test_idx_round_trip(tmp_path, code, packed, shape):
    array = (7 * np.arange(np.prod(shape)) % 120).reshape(shape).astype(CODES[code])
    path = tmp_path / "numbers"  # whether it is packed is told by content, not name
    _write_idx(path, array, code, packed=packed)
    back = read_idx(path)
    np.testing.assert_array_equal(back, array)
    assert back.dtype == np.dtype(CODES[code]).newbyteorder("=")
    back[...] = 0  # writable: a view of the file's bytes is not


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda c: b"", "0 bytes, fewer than"),
        (lambda c: c[:10], "ends within its header of 16 bytes"),
        (lambda c: c[:-1], r"has 39 bytes.*uint8 \[2, 3, 4\].*40 bytes"),
        (lambda c: c + b"x", "has 41 bytes"),
        (lambda c: b"\x00\x00\x07\x03" + c[4:], "begins with 00 00 07 03"),
        (lambda c: b"\x00\x00\x08\x00" + c[4:], "begins with 00 00 08 00"),
        (lambda c: b"<!DO" + c[4:], "begins with 3c 21 44 4f"),
        (lambda c: gzip.compress(c)[:-9], "cannot be unpacked"),
        (lambda c: gzip.compress(c)[:12] + b"\xff" * 30, "cannot be unpacked"),
    ],
)
def test_damaged_idx_files_are_typed_errors(tmp_path, damage, match):
    path = tmp_path / "images"
    content = _write_idx(path, np.zeros((2, 3, 4)), 0x08)
    path.write_bytes(damage(content))
    with pytest.raises(CorruptFileError, match=match):
        read_idx(path)


def _write_mnist(folder, *, rows=3, packed=False, label=7):
    folder.mkdir(parents=True, exist_ok=True)
    suffix = ".gz" if packed else ""
    for part, value in (("train", 255), ("t10k", 51)):
        images, labels = np.full((rows, 28, 28), value), np.full(rows, label)
        name = f"{part}-images-idx3-ubyte{suffix}"
        _write_idx(folder / name, images, 0x08, packed=packed)
        name = f"{part}-labels-idx1-ubyte{suffix}"
        _write_idx(folder / name, labels, 0x08, packed=packed)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("below", [(), ("raw",), ("MNIST", "raw")])
def test_mnist_is_found_in_its_usual_places(tmp_path, packed, below):
    _write_mnist(tmp_path.joinpath(*below), packed=packed)
    split = mnist(tmp_path)
    np.testing.assert_array_equal(split.x_train, np.ones((3, 28, 28), np.float32))
    np.testing.assert_allclose(split.x_test, 0.2)
    np.testing.assert_array_equal(split.y_test, [7, 7, 7])
    assert split.num_classes == 10


def test_mnist_with_files_that_do_not_match(tmp_path):
    _write_mnist(tmp_path, label=12)
    with pytest.raises(ValueError, match="labels row 0 is 12"):
        mnist(tmp_path)
    _write_mnist(tmp_path)
    _write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(4), 0x08)
    with unhooked(), pytest.raises(ValueError, match="images has 3, labels has 4"):
        mnist(tmp_path)
    _write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros(3), 0x08)
    with unhooked(), pytest.raises(CorruptFileError, match="swapped"):
        mnist(tmp_path)


@pytest.mark.slow
def test_mnist_is_mnist():
    split = mnist(data_folder("MNIST", "raw"))
    assert split.x_train.shape == (60_000, 28, 28)
    assert split.x_test.shape == (10_000, 28, 28)
    np.testing.assert_allclose(split.x_train.mean(dtype=np.float64), 0.1307, atol=5e-5)
    np.testing.assert_allclose(split.x_train.std(dtype=np.float64), 0.3081, atol=5e-5)
    assert split.y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert split.y_test[:5].tolist() == [7, 2, 1, 0, 4]


def test_kmnist_is_kmnist():
    x, labels = kmnist_test(data_folder("kmnist_test"))
    assert x.shape == (10_000, 28, 28)
    assert (x.min(), x.max()) == (0.0, 1.0)
    assert np.bincount(labels).tolist() == [1000] * 10


def test_npz_files_run_no_code(tmp_path):
    np.savez(tmp_path / "kmnist-test-labels.npz", np.zeros(2, np.uint8))
    images = tmp_path / "kmnist-test-imgs.npz"
    np.savez(images, np.array([{}], dtype=object))
    with pytest.raises(
        CorruptFileError, match=r"imgs\.npz is not an npz.*allow_pickle"
    ):
        kmnist_test(tmp_path)
    images.write_bytes(images.read_bytes()[:50])
    with pytest.raises(CorruptFileError, match=r"imgs\.npz"):
        kmnist_test(tmp_path)
    np.savez(images, other=np.zeros((2, 28, 28), np.uint8))
    with pytest.raises(CorruptFileError, match="arr_0"):
        kmnist_test(tmp_path)
    with images.open("wb") as file:
        np.save(file, np.zeros((2, 28, 28), np.uint8))
    with pytest.raises(CorruptFileError, match="as npy files do"):
        kmnist_test(tmp_path)
