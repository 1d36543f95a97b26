"""A check exists on every path of the data, or on none."""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies

import jaxprob
from jaxprob import bnn
from jaxprob._training.data_check import DataCheck, check_arrays_of

NET = eqx.nn.Linear(2, 3, key=jax.random.key(0))


def method(rows):
    joint = bnn.LogJoint(bnn.CategoricalLikelihood(), bnn.FanInNormal(), num_data=rows)
    return bnn.MAP(joint, optax.adam(1e-2))


def cut(data, size):
    rows = len(data[1])
    return [tuple(a[i : i + size] for a in data) for i in range(0, rows, size)]


class Iterable:
    """Batches that can be iterated again, of no known length."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def as_torch(data, size):
    torch = pytest.importorskip("torch")
    tensors = torch.utils.data.TensorDataset(*map(torch.from_numpy, data))
    return torch.utils.data.DataLoader(tensors, batch_size=size)


PATHS = {
    "list": cut,
    "iterable": lambda data, size: Iterable(cut(data, size)),
    "torch": as_torch,
    "masked": lambda data, size: [
        jaxprob.Batch(
            tuple(np.concatenate([a, a[:1], a[:1]]) for a in b), np.arange(n) < n - 2
        )
        for b in cut(data, size)
        for n in [len(b[1]) + 2]
    ],
}


def found(check) -> Any:
    """What a check says: its class and words, or nothing."""
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        try:
            check()
        except (ValueError, TypeError) as error:
            return type(error), str(error)
    return (UserWarning, str(raised[0].message)) if raised else None


def check_arrays(learner, data):
    loader = jaxprob.ArrayLoader(data, batch_size=4)
    check_arrays_of(learner, NET, loader.data, training=True)


def check_batches(learner, batches):
    for _ in DataCheck(learner, NET, training=True).over(batches):
        pass


FAULTS = ("none", "nan", "infinite", "label", "negative", "count", "wide", "huge")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    path=strategies.sampled_from(sorted(PATHS)),
    fault=strategies.sampled_from(FAULTS),
    rows=strategies.integers(4, 30),
    size=strategies.integers(2, 9),
    place=strategies.integers(0, 29),
)
def test_batches_get_the_checks_of_arrays(path, fault, rows, size, place):
    rng = np.random.default_rng(place)
    x = rng.normal(size=(rows, 2))
    y = rng.integers(0, 3, size=rows)
    row = place % rows
    stated = rows + 20 if fault == "count" else rows
    if fault in ("nan", "infinite", "huge"):
        x[row, 1] = {"nan": np.nan, "infinite": np.inf, "huge": 1e39}[fault]
    if fault in ("label", "negative", "wide"):
        y[row] = {"label": 3, "negative": -1, "wide": 2**31}[fault]
    learner = method(stated)
    arrays = found(lambda: check_arrays(learner, (x, y)))
    streamed = found(lambda: check_batches(learner, PATHS[path]((x, y), size)))
    assert (arrays is None) == (fault == "none")
    assert (streamed is None) == (arrays is None)
    if arrays is None or streamed is None:
        return
    assert streamed[0] is arrays[0]
    if fault == "count":
        assert streamed[1] == arrays[1]
    else:
        # The same words, with the number of the batch and the row in it.
        expected = arrays[1].replace(f"row {row}", f"row {row % size}")
        assert streamed[1] == f"batch {row // size}: {expected}"


def test_a_loader_may_drop_its_last_rows():
    data = np.zeros((23, 2), np.float32), np.zeros(23, np.int32)
    whole = cut(data, 5)[:-1]
    assert found(lambda: check_batches(method(23), whole)) is None
    assert "20 rows" in found(lambda: check_batches(method(25), whole))[1]
    assert "20 rows" in found(lambda: check_batches(method(19), whole))[1]


def test_a_batch_of_few_rows_is_warned_of_where_rows_see_each_other():
    norm = eqx.nn.BatchNorm(2, "batch", mode="batch")
    model = bnn.Stateful(norm, eqx.nn.State(norm))
    loss = jaxprob.mean_loss(lambda model, example, *, key: jnp.zeros(()))
    learner = jaxprob.GradientDescent(loss, optax.sgd(1.0))
    check = DataCheck(learner, model, training=True)
    batches = cut((np.zeros((33, 2)), np.zeros(33)), 32)
    check(batches[0])
    with pytest.warns(UserWarning, match="batch 1 has 1 rows after batches of 32"):
        check(batches[1])


@pytest.mark.slow
def test_fit_names_batch_and_row_of_an_iterable(getkey):
    x, y = np.ones((20, 2), np.float32), np.zeros(20, np.int64)
    x[13, 1] = np.nan
    data = as_torch((x, y), 5)
    with pytest.raises(ValueError, match=r"batch 2: data\[0\] .* row 3, column 1: nan"):
        jaxprob.fit(method(20), NET, data, key=getkey(), num_epochs=1, progress=False)
    x[13, 1] = 0.0
    with pytest.warns(UserWarning, match="num_data=2000, and the training set has 20"):
        jaxprob.fit(method(2000), NET, data, key=getkey(), num_steps=6, progress=False)
    # Cut short, an epoch says nothing of the number of rows.
    state, _ = jaxprob.fit(
        method(2000), NET, data, key=getkey(), num_steps=3, progress=False
    )
    y[7] = 3
    with pytest.raises(ValueError, match="batch 1: y row 2 is 3, outside the classes"):
        jaxprob.evaluate(method(20), state, as_torch((x, y), 5), key=getkey())
    with pytest.raises(ValueError, match="y row 7 is 3, outside the classes"):
        jaxprob.evaluate(method(20), state, (x, y), key=getkey())


@pytest.mark.slow
def test_a_posterior_takes_one_batch_and_checks_it(getkey):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 2)).astype(np.float32), rng.integers(0, 3, 20)
    laplace = bnn.Laplace(method(20))
    state = laplace.init(NET)
    expected = laplace.posterior(state, [(x, y)]).curvature
    assert isinstance(expected, bnn.FullCurvature)
    for batches in ((x, y), [x, y], iter([(x, y)]), as_torch((x, y), 20)):
        curvature = laplace.posterior(state, batches).curvature
        assert isinstance(curvature, bnn.FullCurvature)
        assert jnp.array_equal(curvature.matrix, expected.matrix)
    with pytest.warns(UserWarning, match="num_data=200, and the training set has 20"):
        bnn.Laplace(method(200)).posterior(state, (x, y))
    broken = np.where(np.arange(20) == 12, 3, y)
    with pytest.raises(ValueError, match="batch 2: y row 2 is 3, outside"):
        laplace.posterior(state, cut((x, broken), 5))


def test_more_rows_than_integers_of_32_bits_count(getkey):
    joint = bnn.LogJoint(bnn.NormalLikelihood(1.0), bnn.FanInNormal(), 3 * 2**31)
    x = jnp.zeros((4, 2))
    model = eqx.nn.Linear(2, 1, use_bias=False, key=getkey())
    value = joint.log_likelihood(model, (x, jnp.zeros((4, 1))), key=getkey())
    assert float(value) == pytest.approx(-3 * 2**31 * 0.5 * np.log(2 * np.pi), rel=1e-6)
