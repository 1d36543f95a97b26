"""A run that breaks says at which step and leaf, and keeps the state before it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob._checks import check_labels

ROWS = 6


class Net(eqx.Module):
    """`second` enters through a square root: no gradient where the input is zero."""

    first: eqx.nn.Linear
    second: jax.Array

    def __call__(self, x):
        return self.first(x)[0] + jnp.sqrt(jnp.abs(self.second * x[0]))


def net():
    return Net(eqx.nn.Linear(2, 1, key=jax.random.key(0)), jnp.ones(()))


@jaxprob.mean_loss
def loss(model, example, *, key):
    x, y = example
    return (model(x) + 0.1 * jax.random.normal(key) - y) ** 2


def batches(num, *, zero_at=None, nan_at=None):
    x = np.random.default_rng(0).uniform(1, 2, size=(num, ROWS, 2)).astype(np.float32)
    if zero_at is not None:
        x[zero_at, 2, 0] = 0.0
    y = x[..., 1].copy()
    if nan_at is not None:
        y[nan_at, 3] = np.nan
    return list(zip(x, y, strict=True))


class InOrder:
    """Batches that `fit` takes as they come."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def make_stepper(capacity, **kwargs):
    learner = kwargs.pop("learner", jaxprob.GradientDescent(loss, optax.adam(1e-2)))
    return jaxprob.Stepper(
        learner,
        learner.init(net(), key=jax.random.key(1)),
        key=jax.random.key(2),
        steps_per_dispatch=capacity,
        **kwargs,
    )


def same(one, other):
    return eqx.tree_equal(
        eqx.filter(one, eqx.is_array), eqx.filter(other, eqx.is_array)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capacity", "bad"), [(8, 0), (8, 7), (8, 17), (8, 23), (1, 5), ("auto", 17)]
)
def test_a_gradient_that_is_not_finite_is_named(capacity, bad):
    """The loss of that step is finite: it is the update that breaks the state."""
    stepper = make_stepper(capacity)
    data = batches(24, zero_at=bad)
    for start in range(0, 24, 8):
        stepper(data[start : start + 8])
    with pytest.raises(jaxprob.NonFiniteError, match="not finite at second") as caught:
        stepper.check_state()
    error = caught.value
    assert (error.step, error.leaves) == (bad, ["second"])
    assert np.isfinite(float(str(error).split("its loss is ")[1].split(",")[0]))
    expected = make_stepper(capacity)
    if bad:
        expected(data[:bad])
    assert same(error.state, expected.state)
    assert same(stepper.state, expected.state)
    assert stepper.step == bad


def test_so_is_a_loss(getkey):
    stepper = make_stepper(8)
    stepper(batches(16, nan_at=11))
    with pytest.raises(jaxprob.NonFiniteError) as caught:
        stepper.check_state()
    assert caught.value.step == 11
    assert "its loss is nan" in str(caught.value)
    assert caught.value.leaves == ["first.weight", "first.bias", "second"]


def test_an_update_that_overflows_is_told_from_a_gradient():
    def schedule(count):
        return jnp.where(count == 5, jnp.inf, 1e-3)

    learner = jaxprob.GradientDescent(loss, optax.sgd(schedule))
    stepper = make_stepper(4, learner=learner)
    stepper(batches(12))
    with pytest.raises(jaxprob.NonFiniteError) as caught:
        stepper.check_state()
    assert caught.value.step == 5
    assert "its gradient is finite, and the update left" in str(caught.value)
    assert "model.first.weight" in caught.value.leaves


@pytest.mark.slow
def test_the_state_is_checked_by_itself_in_time():
    """Before the ninth step since the last look is made."""
    stepper = make_stepper(4, check_every=8)
    data = batches(40, zero_at=13)
    for start in range(0, 16, 4):
        stepper(data[start : start + 4])
    with pytest.raises(jaxprob.NonFiniteError) as caught:
        stepper(data[16:20])  # steps 8 to 15 were held
    assert caught.value.step == 13


def test_a_run_goes_on_from_the_last_good_state():
    stepper = make_stepper(8)
    good = batches(24)
    stepper(batches(24, zero_at=10))
    with pytest.raises(jaxprob.NonFiniteError):
        stepper.check_state()
    stepper(good[10:])
    stepper.check_state()
    expected = make_stepper(8)
    expected(good)
    assert same(stepper.state, expected.state)


@pytest.mark.parametrize("check_every", [0, 3, 1024])
def test_checks_change_no_bit(check_every):
    data = batches(24)
    stepper = make_stepper(4, check_every=check_every)
    losses = [stepper(data[i : i + 4])["loss"] for i in range(0, 24, 4)]
    stepper.check_state()
    plain = make_stepper(4, check_every=0)
    plain_losses = [plain(data[i : i + 4])["loss"] for i in range(0, 24, 4)]
    assert same(stepper.state, plain.state)
    assert np.array_equal(np.concatenate(losses), np.concatenate(plain_losses))


def test_a_warning_where_the_run_is_to_go_on():
    stepper = make_stepper(8, fatal=False)
    stepper(batches(16, zero_at=10))
    with pytest.warns(UserWarning, match="step 10 broke the run.*finite at second"):
        stepper.check_state()
    assert stepper.step == 16
    assert np.isnan(stepper.state.model.second)
    stepper.check_state()  # once is enough


def test_a_leaf_that_is_infinite_by_design_is_none_that_broke():
    optimizer = optax.chain(optax.sgd(1e-3), optax.contrib.reduce_on_plateau())
    learner = jaxprob.GradientDescent(loss, optimizer)
    state = learner.init(net())
    assert not all(jnp.isfinite(a).all() for a in jax.tree.leaves(state.opt_state))

    class Told(jaxprob.AbstractLearner):
        inner: jaxprob.GradientDescent

        def init(self, model, *, key):
            return self.inner.init(model)

        def update(self, state, batch, *, key):
            return state, self.inner.evaluate(state, batch, key=key)

        def evaluate(self, state, batch, *, key):
            return self.inner.evaluate(state, batch, key=key)

        def model(self, state):
            return self.inner.model(state)

    stepper = make_stepper(4, learner=Told(learner))
    stepper(batches(8))
    stepper.check_state()
    assert stepper.step == 8


@pytest.mark.slow
@pytest.mark.parametrize("where", ["row", "end"])
def test_fit_names_the_step_and_keeps_the_state(where):
    """An epoch in order, so that rows of a step are known; the last step too."""
    bad = 6 if where == "row" else 11
    data = batches(12, zero_at=bad)
    learner = jaxprob.GradientDescent(loss, optax.adam(1e-2))
    run = {"key": jax.random.key(3), "num_epochs": 1, "progress": False}
    with pytest.raises(jaxprob.NonFiniteError) as caught:
        jaxprob.fit(learner, net(), InOrder(data), **run)
    error = caught.value
    assert (error.step, error.leaves) == (bad, ["second"])
    assert np.isfinite(learner.model(error.state).second)
    before, _ = jaxprob.fit(learner, net(), InOrder(data[:bad]), **run)
    assert same(error.state, before)


@pytest.mark.slow
def test_fit_of_arrays_gathers_the_rows_of_the_bad_batch_again():
    x = np.random.default_rng(1).uniform(1, 2, size=(90, 2)).astype(np.float32)
    x[41, 0] = 0.0
    learner = jaxprob.GradientDescent(loss, optax.adam(1e-2))
    with pytest.raises(jaxprob.NonFiniteError) as caught:
        jaxprob.fit(
            learner, net(), (x, x[:, 1]), key=jax.random.key(0), num_epochs=1,
            batch_size=10, steps_per_dispatch=4, progress=False,
        )  # fmt: skip
    error = caught.value
    assert error.leaves == ["second"]
    assert int(error.state.step) == error.step < 9


def test_a_loss_that_is_infinite_while_the_state_is_not():
    learner = jaxprob.GradientDescent(
        lambda model, batch, *, key: (jnp.sum(model.second) * 0.0 + jnp.inf, {}),
        optax.sgd(0.1),
    )
    with pytest.raises(jaxprob.NonFiniteError, match="and the state is finite") as e:
        jaxprob.fit(
            learner, net(), InOrder(batches(4)), key=jax.random.key(0), num_epochs=1,
            progress=False,
        )  # fmt: skip
    assert same(e.value.state.model, net())


def joint():
    return bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), num_data=ROWS)


SGD = optax.sgd(1e-3)
METHODS = {
    "MAP": (lambda: bnn.MAP(joint(), SGD), "second"),
    "MeanFieldVI": (lambda: bnn.MeanFieldVI(joint(), SGD), "second.mean"),
    "FullRankVI": (lambda: bnn.FullRankVI(joint(), SGD), "params.second"),
    "IVON": (lambda: bnn.IVON(joint(), 1e-3), "second"),
    "DeepEnsemble": (lambda: bnn.DeepEnsemble(bnn.MAP(joint(), SGD), 2), "second"),
    "AnchoredMAP": (lambda: bnn.AnchoredMAP(joint(), SGD), "second"),
    "SWAG": (lambda: bnn.SWAG(bnn.MAP(joint(), SGD), num_warmup=2, thin=1), "second"),
    "Laplace": (lambda: bnn.Laplace(bnn.MAP(joint(), SGD)), "second"),
    "SGLD": (
        lambda: bnn.SGLD(joint(), 1e-5, num_warmup=0, thin=1, num_draws=20),
        "second",
    ),
    "SGHMC": (
        lambda: bnn.SGHMC(joint(), 1e-5, num_warmup=0, thin=1, num_draws=20),
        "second",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_names_the_leaf(name):
    make, leaf = METHODS[name]
    method = make()
    stepper = make_stepper(4, learner=method)
    stepper(batches(8, zero_at=5))
    with pytest.raises(jaxprob.NonFiniteError) as caught:
        stepper.check_state()
    assert caught.value.step == 5
    assert leaf in caught.value.leaves
    assert "first.weight" not in " ".join(caught.value.leaves)


@pytest.mark.slow
@pytest.mark.parametrize("learner", [None, "ensemble"])
def test_on_several_devices(learner):
    layout = jaxprob.Layout(data=2)
    kwargs = {}
    if learner:
        layout = jaxprob.Layout(data=1, members=2)
        kwargs = {"learner": bnn.DeepEnsemble(bnn.MAP(joint(), SGD), 2)}
    stepper = make_stepper(4, layout=layout, **kwargs)
    stepper(batches(12, zero_at=6))
    with pytest.raises(jaxprob.NonFiniteError) as caught:
        stepper.check_state()
    assert (caught.value.step, caught.value.leaves) == (6, ["second"])
    stepper(batches(2))
    stepper.check_state()
    assert stepper.step == 8


class OfClasses(jaxprob.AbstractCheckedLoss):
    """A loss that is NaN for a label outside of three classes, and can tell."""

    def check(self, model, data):
        check_labels("y", np.asarray(data[1]), 3)

    def __call__(self, model, batch, *, key):
        (x, y), mask = jaxprob.unpack(batch)
        logits = jax.vmap(model)(x)
        own = jnp.take_along_axis(logits, y[:, None] % 3, 1)[:, 0]
        own = own * jnp.where(y < 3, 1.0, jnp.nan)
        return -jaxprob.masked_mean(own, mask), {}


def test_rows_of_an_iterable_that_break_a_run_are_named(getkey):
    """A loader's rows are not looked at before; where they break, they are."""
    learner = jaxprob.GradientDescent(OfClasses(), optax.sgd(0.1))
    model = eqx.nn.Linear(2, 3, key=getkey())
    y = np.array([0, 1, 2, 0, 1, 3])
    batches = [(np.ones((3, 2), np.float32), part) for part in (y[:3], y[3:])]
    with pytest.raises(jaxprob.NonFiniteError, match=r"batch: y row 2 is 3, outside"):
        jaxprob.fit(learner, model, batches, key=getkey(), num_epochs=1)
