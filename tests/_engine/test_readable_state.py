"""Whatever happens inside a dispatch, the state is there, and it is that of a step."""

import itertools
import os
import signal
import threading
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob._engine.held_signals import HELD, HeldSignals

ROWS = np.random.default_rng(0).normal(size=(40, 8, 3)).astype(np.float32)


class SensorError(Exception):
    """An error of the user's own."""


def checked(model, batch, *, key):
    x, y = batch
    x = eqx.error_if(x, jnp.abs(x).max() > 50, "a sensor is broken")
    return jnp.mean((jax.vmap(model)(x) - y) ** 2), {}


def observed(callback):
    """A loss that shows its rows to a function of the host, which may raise."""

    def loss(model, batch, *, key):
        x, y = batch
        zero = jax.pure_callback(callback, jax.ShapeDtypeStruct((), x.dtype), x)
        return jnp.mean((jax.vmap(model)(x) - y) ** 2) + zero, {}

    return loss


def complain(x):
    if np.abs(x).max() > 50:
        raise SensorError("a sensor is broken")
    return np.float32(0)


def batches(bad=None):
    rows = ROWS.copy()
    if bad is not None:
        rows[bad, 0] = 100.0
    return [(x, x[:, :1] ** 2) for x in rows]


def mlp():
    return eqx.nn.MLP(3, 1, 8, 1, key=jax.random.key(0))


def gradient_descent(loss, **kwargs):
    return jaxprob.GradientDescent(loss, optax.adam(1e-2), **kwargs)


def make_stepper(learner, capacity=8, **kwargs):
    state = learner.init(mlp(), key=jax.random.key(1))
    return jaxprob.Stepper(
        learner, state, key=jax.random.key(2), steps_per_dispatch=capacity, **kwargs
    )


def same(one, other):
    arrays = (eqx.filter(state, eqx.is_array) for state in (one, other))
    return bool(eqx.tree_equal(*arrays))


def train(stepper, data):
    for start in range(0, len(data), 8):
        stepper(data[start : start + 8])


CASES = {
    "check": (checked, eqx.EquinoxRuntimeError, {}),
    "callback": (observed(complain), SensorError, {}),
    "single steps": (checked, eqx.EquinoxRuntimeError, {"capacity": 1}),
    "copies": (checked, eqx.EquinoxRuntimeError, {"check_every": 4}),
    "no copies": (checked, eqx.EquinoxRuntimeError, {"check_every": 0}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_an_error_in_a_step_leaves_the_state_before_it(name):
    loss, error, kwargs = CASES[name]
    learner = gradient_descent(loss, ema=jaxprob.EMA(0.9))
    stepper, whole = (make_stepper(learner, **kwargs) for _ in range(2))
    with pytest.raises(error, match="a sensor is broken"):
        train(stepper, batches(bad=21))
    assert stepper.step == 21
    whole(batches()[:21])
    assert same(stepper.state, whole.state)
    assert stepper.totals is not None
    assert whole.totals is not None
    assert stepper.totals.means() == whole.totals.means()
    for one in (stepper, whole):
        train(one, batches()[21:])
    assert same(stepper.fetch(), whole.fetch())


@pytest.mark.slow
@pytest.mark.parametrize("members", ["vmap", "loop"])
def test_members_in_turn_and_together(members):
    """Members in turn are programs that consume copies: a member's error loses none."""

    class Checked(eqx.Module):
        inner: eqx.nn.MLP

        def __call__(self, x):
            return self.inner(eqx.error_if(x, jnp.abs(x).max() > 50, "broken"))

    likelihood = bnn.NormalLikelihood(0.5)
    joint = bnn.LogJoint(likelihood, bnn.FanInNormal(), num_data=100)
    method = bnn.MAP(joint, optax.adam(1e-2))
    learner = bnn.DeepEnsemble(method, 2, members=members)
    state = learner.init(Checked(mlp()), key=jax.random.key(1))

    def make():
        return jaxprob.Stepper(
            learner, state, key=jax.random.key(2), steps_per_dispatch=8
        )

    stepper, whole = make(), make()
    with pytest.raises(eqx.EquinoxRuntimeError, match="broken"):
        train(stepper, batches(bad=13))
    assert stepper.step == 13
    whole(batches()[:13])
    assert same(stepper.state, whole.state)


@pytest.mark.slow
def test_rows_that_lie_on_the_device():
    rows = ROWS.reshape(-1, 3).copy()
    rows[170] = 100.0
    data = (rows, rows[:, :1])
    learner = gradient_descent(
        lambda model, batch, *, key: checked(model, jaxprob.unpack(batch)[0], key=key)
    )

    def make():
        loader = jaxprob.ArrayLoader(data, batch_size=8, resident=True)
        return make_stepper(learner), iter(loader)

    def run_out(stepper, rows):
        while True:
            stepper(rows.take(8, stepper.slots))

    stepper, rows = make()
    with pytest.raises(eqx.EquinoxRuntimeError, match="a sensor is broken"):
        run_out(stepper, rows)
    whole, rows = make()
    for num in (8, 8, 5):
        whole(rows.take(num, whole.slots))
    assert stepper.step == 21
    assert same(stepper.state, whole.state)


def test_an_error_of_the_moment_makes_none_of_the_steps_of_its_dispatch():
    calls = itertools.count(1)

    def once(x):
        if next(calls) == 13:
            raise SensorError("not now")
        return np.float32(0)

    learner = gradient_descent(observed(once))
    stepper = make_stepper(learner)
    with pytest.raises(SensorError, match="not now"):
        train(stepper, batches())
    assert stepper.step == 8
    whole = make_stepper(learner)
    whole(batches()[:8])
    assert same(stepper.state, whole.state)


class Memory:
    """A class, for its attributes are no constants of the compiled step."""

    gone = False

    @classmethod
    def use(cls, x):
        """Called by each step. From the first bad row on there is no memory."""
        cls.gone |= bool(np.abs(x).max() > 50)
        if cls.gone:
            raise MemoryError
        return np.float32(0)


@pytest.fixture
def memory():
    Memory.gone = False
    yield Memory
    Memory.gone = False


def test_without_memory_the_steps_before_are_made_again_when_there_is_some(memory):
    learner = gradient_descent(observed(memory.use))
    stepper, whole = make_stepper(learner), make_stepper(learner)
    start = stepper.state
    with pytest.raises(MemoryError):
        train(stepper, batches(bad=21))
    assert stepper.step == 16
    assert not stepper.is_readable()
    copy, step = stepper.last_copy()
    assert step == 0
    assert same(copy, start)
    memory.gone = False
    assert stepper.is_readable()
    train(whole, batches()[:16])
    assert same(stepper.state, whole.state)
    for one in (stepper, whole):
        train(one, batches()[16:])
    assert stepper.step == whole.step == 40
    assert same(stepper.state, whole.state)


def test_fit_without_memory_hands_the_last_copy_over(memory, monkeypatch):
    monkeypatch.setattr(
        "jaxprob._engine.last_good.MAX_BYTES", 1
    )  # a copy for each dispatch
    learner = gradient_descent(observed(memory.use))
    run = {"key": jax.random.key(3), "progress": False, "num_epochs": 1}
    with pytest.raises(MemoryError) as caught:
        jaxprob.fit(learner, mlp(), batches(bad=6), steps_per_dispatch=4, **run)
    memory.gone = False
    state, _ = jaxprob.fit(learner, mlp(), batches()[:4], steps_per_dispatch=4, **run)
    ended: Any = caught.value
    assert ended.step == 4
    assert same(ended.state, state)


def test_a_batch_that_does_not_fit_changes_nothing():
    stepper = make_stepper(gradient_descent(checked))
    stepper(batches()[:8])
    before = stepper.state
    with pytest.raises(TypeError):
        stepper([(np.ones((8, 2), np.float32), np.ones((8, 1), np.float32))])
    assert same(stepper.state, before)
    assert stepper.step == 8
    train(stepper, batches()[8:])
    whole = make_stepper(stepper.learner)
    train(whole, batches())
    assert same(stepper.state, whole.state)


@pytest.mark.parametrize("check_every", [1024, 0])
def test_a_dispatch_that_never_returns_its_result(check_every):
    """As when a handler raises between the return of the call and the assignment."""
    learner = gradient_descent(checked)
    stepper, whole = (make_stepper(learner, check_every=check_every) for _ in range(2))
    train(stepper, batches()[:16])
    program: Any = stepper._program
    many = program.many

    def lost(*args):
        many(*args)
        raise KeyboardInterrupt

    program.many = lost
    try:
        with pytest.raises(KeyboardInterrupt):
            stepper(batches()[16:24])
    finally:
        del stepper._program.many
    train(whole, batches()[:16])
    assert stepper.step == 16
    assert same(stepper.state, whole.state)
    for one in (stepper, whole):
        train(one, batches()[16:])
    assert same(stepper.state, whole.state)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, signal.SIGALRM])
def test_a_handler_is_called_after_the_dispatch(number):
    """The signal comes inside a callback, where XLA would swallow what is raised."""

    class Told(BaseException):
        pass

    def handler(number, frame):
        raise Told

    def interrupt(x):
        if np.abs(x).max() > 50:
            os.kill(os.getpid(), number)
        return np.float32(0)

    before = signal.signal(number, handler)
    try:
        learner = gradient_descent(observed(interrupt))
        stepper = make_stepper(learner)
        with pytest.raises(Told):
            train(stepper, batches(bad=13))
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    assert stepper.step == 16
    assert stepper.totals is not None
    assert np.isfinite(stepper.totals.means()["loss"])


def test_a_second_interrupt_breaks_through_and_others_wait():
    held, calls = HeldSignals(), []

    def interrupt_twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGUSR1, lambda *_: calls.append("usr1"))
    try:
        with held:
            signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGUSR1)
            assert calls == []
            with pytest.raises(KeyboardInterrupt):
                interrupt_twice()
            with held:
                pass
            assert calls == []
        assert calls == ["usr1"]
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_in_a_finalizer_is_not_lost():
    """Python ignores what is raised there."""

    class Sends:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)

    held = HeldSignals()
    held.install()
    try:
        sends = Sends()
        del sends
        with pytest.raises(KeyboardInterrupt), held:
            pass
    finally:
        held.uninstall()


def test_what_is_held_ends_with_the_function_it_is_for():
    held = HeldSignals()

    def run():
        held.hold(run.__code__)
        signal.raise_signal(signal.SIGINT)

    held.install()
    try:
        run()
        with pytest.raises(KeyboardInterrupt):  # the one that waited is not lost
            held.release()
        held.hold(run.__code__)
        with pytest.raises(KeyboardInterrupt):  # for it does not run any more
            signal.raise_signal(signal.SIGINT)
    finally:
        held.uninstall()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_another_thread_reads_while_a_run_goes_on():
    learner = gradient_descent(checked)
    stepper = make_stepper(learner)
    found, errors, ended = [], [], threading.Event()

    def read():
        while not ended.is_set():
            try:
                state = stepper.fetch()
                found.append((int(state.step), state))
                if stepper.totals is not None:
                    stepper.totals.means()
            except BaseException as error:
                errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(10):
        train(stepper, batches())
    ended.set()
    thread.join()
    assert not errors
    whole = make_stepper(learner)
    for _ in range(10):
        for start in range(0, 40, 8):
            for step, state in found:
                if step == whole.step:
                    assert same(state, whole.state)
            whole(batches()[start : start + 8])
    assert {step for step, _ in found} <= set(range(0, 401, 8))


class Feed:
    """Batches that end in an error of the loader's."""

    def __init__(self, error):
        self.error = error

    def __iter__(self):
        yield from batches()[:11]
        raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("no disk")])
def test_fit_hands_the_state_over_with_whatever_ends_it(error):
    learner = gradient_descent(checked)
    run = {"key": jax.random.key(3), "progress": False, "steps_per_dispatch": 4}
    with pytest.raises(type(error)) as caught:
        jaxprob.fit(learner, mlp(), Feed(error), num_epochs=1, **run)
    assert caught.value is error
    state, _ = jaxprob.fit(learner, mlp(), batches()[:8], num_epochs=1, **run)
    assert (error.step, error.history) == (8, [])
    assert same(error.state, state)
    assert HELD._users == 0


def test_fit_raises_the_error_of_the_step_with_the_state_before_it():
    learner = gradient_descent(observed(complain))
    run = {"key": jax.random.key(3), "progress": False, "num_epochs": 1}
    with pytest.raises(SensorError) as caught:
        jaxprob.fit(learner, mlp(), batches(bad=6), steps_per_dispatch=4, **run)
    state, _ = jaxprob.fit(learner, mlp(), batches()[:6], steps_per_dispatch=4, **run)
    ended: Any = caught.value
    assert ended.step == 6
    assert same(ended.state, state)
    assert "error.state" in ended.__notes__[0]
