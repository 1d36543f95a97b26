"""Running statistics: trained as Equinox trains them, refreshed for each sample."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob.bnn._weights.running_statistics import statistics

from ..modules import ROWS, BatchNormed, batch_normed, make


@pytest.fixture(scope="module")
def joint():
    return bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), num_data=ROWS)


def run(method, model, data, num):
    state = eqx.filter_jit(method.init)(model, key=jax.random.key(7))
    update = eqx.filter_jit(method.update)
    for step in range(num):
        state, _ = update(state, data, key=jax.random.key(step))
    return state


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_training_is_that_of_equinox(joint, mode):
    """The loop of Equinox's own documentation, with the loss of MAP written out."""
    net, state = eqx.nn.make_with_state(BatchNormed)(jax.random.key(0), mode)
    x, y = make("batch norm")[1]
    optimizer = optax.sgd(0.05)
    flags = jaxprob.tree.select(bnn.Stateful(net, state), ("net.first", "net.head"))

    def loss(net, state):
        out, state = jax.vmap(
            net, in_axes=(0, None), out_axes=(0, None), axis_name="batch"
        )(x, state)
        prior = bnn.log_prior(joint.prior, eqx.filter(net, flags.net))
        return 0.5 * jnp.mean((out - y) ** 2) / 0.25 - prior / ROWS, state

    opt_state = optimizer.init(eqx.filter(net, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(net, state, opt_state):
        grads, state = eqx.filter_grad(loss, has_aux=True)(net, state)
        updates, opt_state = optimizer.update(grads, opt_state)
        return eqx.apply_updates(net, updates), state, opt_state

    model = bnn.Stateful(net, state)
    for _ in range(4):
        net, state, opt_state = step(net, state, opt_state)
    trained = run(bnn.MAP(joint, optimizer), model, (x, y), 4).model
    for a, b in zip(
        jax.tree.leaves(eqx.filter((net, state), eqx.is_array)),
        jax.tree.leaves(eqx.filter((trained.net, trained.state), eqx.is_array)),
        strict=True,
    ):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-6)
    assert not np.allclose(trained.state.get(norm_index(net))[0], 0.0)


def norm_index(net):
    norm = net.norm
    return norm.batch_state_index if norm.mode == "batch" else norm.ema_state_index


def test_statistics_are_neither_random_nor_optimised():
    model = batch_normed(jax.random.key(0))
    flags = jaxprob.tree.paths(jaxprob.tree.select(model, True))
    chosen = {path for path, flag in flags.items() if flag}
    layers = {"net.first.weight", "net.first.bias", "net.head.weight", "net.head.bias"}
    assert chosen == layers | {"net.norm.weight", "net.norm.bias"}
    found = set(bnn.random_leaves(bnn.bayesianize(model).tree))
    assert found == layers


@pytest.mark.slow
def test_each_draw_gets_the_statistics_of_its_own_weights(joint):
    model, (x, y) = make("batch norm")
    method = bnn.SGLD(joint, 1e-2, num_warmup=0, thin=1, num_draws=3, num_chains=2)
    state = run(method, model, (x, y), 3)
    with pytest.raises(ValueError, match="belong to no draw: give the training data"):
        method.posterior(state)
    padded = jaxprob.Batch(
        (jnp.concatenate([x[4:], jnp.full((2, 3), 9.0)]), jnp.zeros(4)),
        jnp.array([True, True, False, False]),
    )
    whole = method.posterior(state, [(x, y)])
    parts = method.posterior(state, [(x[:4], y[:4]), padded])
    assert whole.shape == (2, 3)
    seen = []
    for index in range(6):
        drawn = whole.atom(index)
        hidden = np.asarray(jax.vmap(drawn.net.first)(x))
        mean, var = drawn.state.get(drawn.net.norm.batch_state_index)
        assert np.allclose(mean, hidden.mean(0), atol=1e-4)
        assert np.allclose(var, hidden.var(0), rtol=1e-3)
        out = jax.vmap(eqx.nn.inference_mode(drawn))(x)
        normed = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5)
        norm = drawn.net.norm
        normed = np.tanh(normed * np.asarray(norm.weight) + np.asarray(norm.bias))
        head = drawn.net.head
        by_hand = normed @ np.asarray(head.weight[0]) + np.asarray(head.bias)
        assert np.allclose(out, by_hand, atol=1e-4)
        # Of a first normalisation the statistics are exact over any batches.
        other = parts.atom(index)
        mean, var = other.state.get(other.net.norm.batch_state_index)
        assert np.allclose(mean, hidden.mean(0), atol=1e-4)
        assert np.allclose(var, hidden.var(0), rtol=1e-3)
        seen.append(mean)
    assert len(np.unique(np.stack(seen), axis=0)) == 6


@pytest.mark.slow
def test_swag_samples_are_refreshed(joint):
    model, data = make("batch norm")
    method = bnn.SWAG(
        bnn.MAP(joint, optax.sgd(0.05)), num_warmup=0, thin=1, num_samples=4
    )
    state = run(method, model, data, 4)
    with pytest.raises(ValueError, match="belong to no sample"):
        method.posterior(state)
    posterior = method.posterior(state, [data], key=jax.random.key(0))
    assert posterior.num_atoms == 4
    drawn = posterior.atom(2)
    hidden = np.asarray(jax.vmap(drawn.net.first)(data[0]))
    mean = drawn.state.get(drawn.net.norm.batch_state_index)[0]
    assert np.allclose(mean, hidden.mean(0), atol=1e-4)


@pytest.mark.slow
def test_hamiltonian_chains_hold_the_statistics_as_they_are(joint):
    model, data = make("batch norm")
    trained = run(bnn.MAP(joint, optax.sgd(0.05)), model, data, 4).model
    method = bnn.HMC(
        joint,
        num_leapfrog=2,
        num_warmup=0,
        num_draws=2,
        num_chains=2,
        initial="model",
        step_size=0.01,
    )
    posterior = method.posterior(run(method, trained, data, 2))
    drawn = posterior.atom(3)
    index = drawn.net.norm.batch_state_index
    assert np.array_equal(drawn.state.get(index), trained.state.get(index))
    assert not np.array_equal(drawn.net.first.weight, trained.net.first.weight)


@pytest.mark.slow
def test_laplace_goes_on_in_inference_mode_as_its_error_says(joint):
    """The curvature is that of the network with constants in BatchNorm's place."""
    model, (x, y) = make("batch norm")
    first = bnn.Laplace(bnn.MAP(joint, optax.adam(0.02)))
    state = run(first, model, (x, y), 30)
    with pytest.raises(
        ValueError, match=r"from eqx\.nn\.inference_mode\(method\.model\(state\)\)"
    ):
        first.posterior(state, [(x, y)])
    model = eqx.nn.inference_mode(first.model(state))
    held = jax.tree.map(jnp.copy, statistics(model))
    method = bnn.Laplace(bnn.MAP(joint, optax.adam(1e-3)))
    state = run(method, model, (x, y), 30)
    posterior = method.posterior(state, [(x, y)])
    mode = posterior.mean()
    assert eqx.tree_equal(statistics(mode), held)
    assert not np.array_equal(mode.net.first.weight, model.net.first.weight)

    norm = mode.net.norm
    mean, var = mode.state.get(norm.batch_state_index)
    count = mode.state.get(norm.batch_counter).astype(jnp.float32)
    # Equinox divides its averages by the weight that they have gathered so far.
    lost = norm.momentum**count
    mean, var = mean / (1.0 - lost), var / (1.0 - lost)
    vector, unravel = jaxprob.tree.ravel(mode.net, ("first", "head"))

    def output(vector, x):
        net = unravel(vector)
        hidden = (net.first(x) - mean) / jnp.sqrt(var + norm.eps)
        return net.head(jnp.tanh(hidden * norm.weight + norm.bias))

    out = jax.vmap(output, in_axes=(None, 0))(vector, x)
    assert np.allclose(out, jax.vmap(mode)(x), atol=1e-4)
    jacobian = np.asarray(jax.vmap(jax.grad(output), in_axes=(None, 0))(vector, x))
    expected = jacobian.T @ jacobian / 0.5**2
    scale = np.abs(expected).max()
    assert np.allclose(posterior.curvature.matrix, expected, atol=1e-4 * scale)


@pytest.mark.slow
def test_what_cannot_be_is_refused(joint):
    model, (x, _) = make("batch norm")
    with pytest.raises(ValueError, match="has no output for one input: call eqx"):
        model(x[0])
    other = bnn.LogJoint(
        joint.likelihood, joint.prior, ROWS, apply=lambda m, x, key: m(x)
    )
    with pytest.raises(
        ValueError, match="move the code of apply into the model's call"
    ):
        bnn.MAP(other, optax.sgd(0.1)).update(
            bnn.MAP(other, optax.sgd(0.1)).init(model),
            (x, jnp.zeros(ROWS)),
            key=jax.random.key(0),
        )
    plain = bnn.PointPosterior(eqx.nn.Linear(3, 1, key=jax.random.key(0)))
    with pytest.raises(TypeError, match="Linear, which keeps no running statistics"):
        bnn.refresh_statistics(plain, [(x, x)])
    with pytest.raises(ValueError, match="batches is empty"):
        bnn.refresh_statistics(bnn.PointPosterior(model), [])
