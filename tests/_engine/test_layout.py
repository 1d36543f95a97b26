"""Several devices run the step of one, up to the rounding of sums."""

import pickle
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import Layout
from jaxprob.bnn import (
    HMC,
    MAP,
    DeepEnsemble,
    FanInNormal,
    LogJoint,
    NormalLikelihood,
)

from .test_stepper import mlp, noisy_loss


def arrays(rows, dtype: Any = np.float32):
    x = np.random.default_rng(0).normal(size=(rows, 3)).astype(dtype)
    return x, x[:, :1] ** 2


def cast(model, dtype):
    return jax.tree.map(
        lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, model
    )


def gradient_descent():
    return jaxprob.GradientDescent(noisy_loss, optax.adam(1e-2), ema=jaxprob.EMA(0.9))


def ensemble(num=4):
    log_joint = LogJoint(NormalLikelihood(0.3), FanInNormal(), num_data=100)
    return DeepEnsemble(MAP(log_joint, optax.adam(1e-2)), num)


def plain(key):
    return eqx.nn.MLP(3, 1, 8, 1, key=key)


def run(make, layout, dtype=np.float32, **kwargs):
    """Fifty steps: 100 rows in batches of 32, the last of which is masked."""
    model = (mlp if make is gradient_descent else plain)(jax.random.key(0))
    settings: Any = {"num_steps": 50, "batch_size": 32, "steps_per_dispatch": 8}
    return jaxprob.fit(
        make(),
        cast(model, dtype),
        arrays(100, dtype),
        key=jax.random.key(1),
        layout=layout,
        progress=False,
        **settings | kwargs,
    )


def difference(a, b):
    """The largest of all arrays, each relative to its own largest entry."""

    def one(x, y):
        x, y = np.asarray(x), np.asarray(y)
        return np.abs(x - y).max() / max(np.abs(x).max(), 1e-3)

    trees = (eqx.filter(tree, eqx.is_inexact_array) for tree in (a, b))
    return max(jax.tree.leaves(jax.tree.map(one, *trees)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "layout"),
    [
        (gradient_descent, Layout(data=4)),
        (ensemble, Layout(data=2, members=2)),
        (ensemble, Layout(members=4)),
    ],
)
@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-10), (np.float32, 1e-6)])
def test_fifty_steps_on_four_devices_are_those_on_one(make, layout, dtype, bound):
    with jax.enable_x64(dtype is np.float64):
        one, history = run(make, None, dtype)
        many, history_ = run(make, layout, dtype)
    losses = [[entry["loss"] for entry in h] for h in (history, history_)]
    np.testing.assert_allclose(*losses, rtol=bound)
    assert difference(one, many) < bound


def make_stepper(layout, key, **kwargs):
    learner = gradient_descent()
    state = learner.init(mlp(jax.random.key(0)))
    settings: Any = {"steps_per_dispatch": 4} | kwargs
    return jaxprob.Stepper(learner, state, key=key, layout=layout, **settings)


def num_programs(stepper) -> int:
    """How often the program of many steps has been compiled."""
    return stepper._program._many._cache_size()


def rows(num, size=8):
    x, y = arrays(num * size)
    return [(x[i::num], y[i::num]) for i in range(num)]


@pytest.mark.slow
def test_dispatches_steps_and_resumes_are_alike_to_the_bit_on_one_layout(getkey):
    layout, key, data = Layout(data=4), getkey(), rows(12)
    whole = make_stepper(layout, key)
    whole(data)
    assert num_programs(whole) == 1
    assert whole.step == 12
    single = make_stepper(layout, key)
    for batch in data:
        single([batch])
    assert eqx.tree_equal(whole.fetch(), single.fetch())
    first = make_stepper(layout, key)
    first(data[:7])
    second = make_stepper(layout, getkey())
    second.resume(first.fetch(), key=key, step=first.step)
    second(data[7:])
    assert eqx.tree_equal(whole.fetch(), second.fetch())


@pytest.mark.slow
def test_what_lies_where():
    layout = Layout(data=2, members=2)
    learner = ensemble()
    state = learner.init(plain(jax.random.key(0)), key=jax.random.key(1))
    stepper = jaxprob.Stepper(learner, state, key=jax.random.key(2), layout=layout)
    stepper(rows(2))
    for leaf in jax.tree.leaves(eqx.filter(stepper.state, eqx.is_array)):
        assert {s.data.shape[0] for s in leaf.addressable_shards} == {2}
    for leaf in jax.tree.leaves(eqx.filter(stepper.fetch(), eqx.is_array)):
        assert len(leaf.sharding.device_set) == 1
    assert pickle.loads(pickle.dumps(layout)) == layout
    batch = layout.put(rows(1)[0])
    assert {s.data.shape[0] for s in batch[0].addressable_shards} == {4}


@pytest.mark.slow
def test_rows_that_devices_do_not_divide_are_padded_under_the_mask(getkey):
    loader = jaxprob.ArrayLoader(arrays(30), batch_size=10)
    key = getkey()
    one, many = make_stepper(None, key), make_stepper(Layout(data=4), key)
    one(loader)
    many(loader)
    assert one.totals is not None
    assert many.totals is not None
    assert one.totals.means()["loss"] == pytest.approx(many.totals.means()["loss"])
    assert difference(one.fetch(), many.fetch()) < 1e-5


def test_rows_without_a_mask_are_refused_with_the_batch_size_that_works(getkey):
    with pytest.raises(ValueError, match=r"10 rows .* 4 devices: give batch_size=12"):
        make_stepper(Layout(data=4), getkey())(rows(2, size=10))


@pytest.mark.slow
def test_chains_on_devices_of_their_own_draw_what_they_draw_on_one():
    log_joint = LogJoint(NormalLikelihood(0.3), FanInNormal(), num_data=32)
    method = HMC(log_joint, num_leapfrog=4, num_warmup=12, num_draws=8, num_chains=4)
    model, (x, y) = eqx.nn.Linear(3, 1, key=jax.random.key(0)), arrays(32, np.float64)
    draws = []
    with jax.enable_x64(True):
        for layout in (None, Layout(members=4)):
            state = method.init(cast(model, np.float64), key=jax.random.key(1))
            stepper = jaxprob.Stepper(
                method, state, key=jax.random.key(2), layout=layout
            )
            stepper([(x, y)] * method.num_steps)
            draws.append(np.asarray(stepper.fetch().draws))
    assert np.ptp(draws[0], axis=1).min() > 0  # the chains moved
    np.testing.assert_allclose(*draws, rtol=1e-9)


class MeansInEachStep(jaxprob.AbstractLearner, jaxprob.AbstractMembers):
    """The ensemble with means of its metrics in each step."""

    inner: DeepEnsemble
    num_members: int = 4

    def init(self, model, *, key):
        return self.inner.init(model, key=key)

    def update(self, state, batch, *, key):
        return self.inner.update(state, batch, key=key)

    update_members = update

    def members_axis(self, state):
        return self.inner.members_axis(state)

    def evaluate(self, state, batch, *, key):
        return self.inner.evaluate(state, batch, key=key)

    def model(self, state):
        return self.inner.model(state)


@pytest.mark.slow
@pytest.mark.parametrize("apart", [True, False])
def test_members_on_devices_of_their_own_meet_once_in_a_dispatch(apart):
    learner = ensemble() if apart else MeansInEachStep(ensemble())
    state = learner.init(plain(jax.random.key(0)), key=jax.random.key(1))
    key, layout = jax.random.key(2), Layout(members=4)
    stepper = jaxprob.Stepper(
        learner, state, key=key, layout=layout, steps_per_dispatch=4
    )
    program: Any = stepper._program
    many, programs = program._many, []

    def noted(*args):
        programs.append(many.lower(*args).compile().as_text())
        return many(*args)

    program._many = noted
    metrics = stepper(rows(4))
    entry = programs[0].index("\nENTRY")
    meetings = ("all-reduce(", "all-gather(")
    assert any(word in programs[0][entry:] for word in meetings) is apart
    assert any(word in programs[0][:entry] for word in meetings) is not apart
    one = jaxprob.Stepper(learner, state, key=key, steps_per_dispatch=4)
    for name, values in one(rows(4)).items():
        assert values.shape == (4,)
        np.testing.assert_allclose(metrics[name], values, rtol=1e-5)
    assert stepper.totals is not None
    assert one.totals is not None
    assert stepper.totals.means() == pytest.approx(one.totals.means(), rel=1e-5)


class Odd(jaxprob.AbstractLearner, jaxprob.AbstractMembers):
    """A learner of two members with a leaf whose axis is something else."""

    num_members: int = 2

    def init(self, model, *, key=None):
        return {"good": np.zeros((2, 3)), "odd": jax.numpy.zeros(5)}

    def update(self, state, batch, *, key):
        raise NotImplementedError

    evaluate = update_members = update

    def members_axis(self, state):
        return {"good": True, "odd": True}

    def model(self, state):
        return None


@pytest.mark.slow
def test_layouts_that_fit_no_learner_are_refused(getkey):
    with pytest.raises(ValueError, match="GradientDescent has no members"):
        make_stepper(Layout(members=2), getkey())
    with pytest.raises(ValueError, match=r"does not divide the 3 members"):
        run(lambda: ensemble(3), Layout(members=2))
    state = Odd().init(None)
    with pytest.raises(ValueError, match=r"leaf \['odd'\] .* \(5,\)"):
        jaxprob.Stepper(Odd(), state, key=getkey(), layout=Layout(members=2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Layout(data=0), r"Layout\(data=0\): at least 1"),
        (lambda: Layout(data=8).mesh, r"needs 8 devices; JAX sees 4"),
        (
            lambda: Layout(data=2, devices=tuple(jax.devices()[:3])),
            r"grid of 2 devices; devices holds 3",
        ),
    ],
)
def test_layouts_that_fit_no_machine_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
