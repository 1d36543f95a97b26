"""Members that train apart are those of one ensemble, bit for bit."""

from concurrent.futures import ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn

RUN = {"num_steps": 5, "batch_size": 4, "steps_per_dispatch": 2}
KEY = 7


@pytest.fixture(scope="module")
def data():
    x = np.linspace(-1, 1, 12, dtype=np.float32)[:, None]
    return x, np.sin(3 * x)


def network():
    # A function that no worker could import.
    return eqx.nn.MLP(1, 1, 4, 1, lambda a: jnp.tanh(a) + a, key=jax.random.key(0))


def ensemble(kind=bnn.MAP):
    prior = bnn.IsotropicNormal(1.0)
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.1), prior, num_data=12)
    return bnn.DeepEnsemble(kind(joint, optax.adam(1e-2)), 3)


def assert_same_bits(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if eqx.is_array(a):
            np.testing.assert_array_equal(a, b)


def together(method, data, **more):
    method = eqx.tree_at(lambda m: m.members, method, "loop")
    run = {"key": jax.random.key(KEY), **RUN, **more}
    return jaxprob.fit(method, network(), data, progress=False, **run)


def apart(method, data, **more):
    run = {"key": jax.random.key(KEY), **RUN, **more}
    return bnn.fit_members(method, network(), data, progress=False, **run)


@pytest.mark.parametrize(
    ("kind", "impl"), [(bnn.MAP, "threefry2x32"), (bnn.MeanFieldVI, "rbg")]
)
def test_threads_train_the_members_of_the_ensemble(kind, impl, data):
    method = ensemble(kind)
    key = jax.random.key(KEY, impl=impl)
    expected, history = together(method, data, validation=data, key=key)
    # One thread: JAX does not write the tests' folder of programs atomically.
    with ThreadPoolExecutor(1) as executor:
        state, found = apart(method, data, validation=data, executor=executor, key=key)
    assert_same_bits(state, expected)
    assert [e["step"] for e in found] == [e["step"] for e in history]
    for name in ("loss", "val_loss"):
        values = [[e[name] for e in each] for each in (found, history)]
        np.testing.assert_allclose(*values, rtol=1e-5)
    posterior = method.posterior(state)
    x = data[0]
    outputs = bnn.predict(
        posterior, method.log_joint.likelihood, x, key=jax.random.key(1)
    )
    assert outputs.mean.shape == (12, 1)
    assert len(np.unique(np.asarray(outputs.epistemic))) > 1


@pytest.mark.slow
def test_processes_train_them_too(data):
    expected, _ = together(ensemble(), data)
    state, _ = apart(ensemble(), data, num_processes=2)
    assert_same_bits(state, expected)


def test_what_a_member_cannot_have_is_named(data):
    with pytest.raises(TypeError, match="ensemble is a MAP: members train apart for"):
        apart(ensemble().method, data)
    with pytest.raises(TypeError, match="layout= is not for members that train apart"):
        apart(ensemble(), data, layout=jaxprob.Layout())
    with (
        pytest.raises(TypeError, match="members of members"),
        ThreadPoolExecutor(1) as e,
    ):
        apart(bnn.DeepEnsemble(ensemble(), 2), data, executor=e)


def test_a_member_that_breaks_is_named(data):
    method = ensemble()
    broken = eqx.tree_at(lambda m: m.method.optimizer, method, optax.sgd(1e38))
    caught = pytest.raises(jaxprob.NonFiniteError)
    with ThreadPoolExecutor(1) as executor, caught as error:
        apart(broken, data, executor=executor)
    assert any("member" in note for note in error.value.__notes__)
