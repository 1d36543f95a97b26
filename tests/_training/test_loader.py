import itertools

import numpy as np
import pytest

import jaxprob

N = 10


@pytest.fixture
def arrays():
    x = np.arange(2.0 * N, dtype=np.float32).reshape(N, 2)
    return x, np.arange(N)


def rows_seen(loader):
    seen = []
    for batch in loader:
        (_, y), mask = jaxprob.unpack(batch)
        seen += list(np.asarray(y)[np.asarray(mask)])
    return seen


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10, 64])
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_row_counts_once_and_every_batch_has_one_shape(
    arrays, batch_size, shuffle
):
    loader = jaxprob.ArrayLoader(arrays, batch_size=batch_size, shuffle=shuffle)
    batches = list(loader)
    assert len(batches) == len(loader)
    assert len({batch.data[0].shape for batch in batches}) == 1
    assert sorted(rows_seen(loader)) == list(range(N))


def test_dropping_the_last_batch_gives_plain_data(arrays):
    loader = jaxprob.ArrayLoader(arrays, batch_size=4, drop_last=True)
    x, y = next(iter(loader))
    assert x.shape == (4, 2)
    assert y.shape == (4,)
    assert len(loader) == len(list(loader)) == 2


def test_the_order_is_a_function_of_seed_and_epoch(arrays):
    def order(seed, epoch):
        loader = jaxprob.ArrayLoader(arrays, batch_size=3, shuffle=True, seed=seed)
        loader.set_epoch(epoch)
        return rows_seen(loader)

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4])
def test_resuming_in_the_middle_of_an_epoch_loses_and_repeats_nothing(arrays, stop):
    def make():
        return jaxprob.ArrayLoader(arrays, batch_size=3, shuffle=True, seed=5)

    first = make()
    first.set_epoch(2)
    whole = [batch.data[1] for batch in first]
    first = make()
    first.set_epoch(2)
    before = [batch.data[1] for batch in itertools.islice(first, stop)]
    after = [batch.data[1] for batch in make().batches(2, stop)]
    assert np.array_equal(np.concatenate(before + after), np.concatenate(whole))


def test_an_iteration_that_is_broken_off_does_not_shift_the_next(arrays):
    loader = jaxprob.ArrayLoader(arrays, batch_size=3)
    first = next(iter(loader)).data[1]
    assert np.array_equal(next(iter(loader)).data[1], first)
    assert rows_seen(loader) == list(range(N))


def test_batches_alias_nothing(arrays):
    loader = jaxprob.ArrayLoader(arrays, batch_size=N)
    batch = next(iter(loader))
    batch.data[0][:] = -1
    assert np.array_equal(next(iter(loader)).data[0], arrays[0])


@pytest.mark.parametrize("size", range(2, N))
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_padded_batch_holds_different_rows_of_the_set(arrays, size, shuffle):
    """Where rows see each other, copies of one row are a batch without spread."""
    batches = list(jaxprob.ArrayLoader(arrays, batch_size=size, shuffle=shuffle))
    for batch in batches:
        assert batch.filled
        assert len(set(batch.data[1])) == size
        assert set(batch.data[1]) <= set(range(N))
    counted = np.concatenate([b.data[1][b.mask] for b in batches])
    assert sorted(counted) == list(range(N))
    assert not batches[-1].mask[N - size * (len(batches) - 1) :].any()


def nan_at(row, column):
    x = np.zeros((N, 2), np.float32)
    x[row, column] = np.nan
    return x


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ((nan_at(7, 1), np.zeros(N)), ValueError, r"data\[0\].*row 7, column 1: nan"),
        ({"x": np.full(N, np.inf)}, ValueError, r"data\['x'\].*10 non-finite.*row 0"),
        ((np.zeros(3), np.zeros(4)), ValueError, "differ in length"),
        ((np.zeros((0, 2)),), ValueError, "empty"),
        ((np.array([[1], [1, 2]], dtype=object),), TypeError, "rectangular"),
    ],
)
def test_bad_data_is_refused_before_any_batch(data, error, message):
    with pytest.raises(error, match=message):
        jaxprob.ArrayLoader(data, batch_size=2)


def test_a_batch_size_of_zero_is_refused(arrays):
    with pytest.raises(ValueError, match="batch_size=0"):
        jaxprob.ArrayLoader(arrays, batch_size=0)
