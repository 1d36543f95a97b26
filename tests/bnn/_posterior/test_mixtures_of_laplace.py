"""Posteriors that are linearised, as parts of others: each round a mode of its own."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxprob import bnn

NUM = 2000


@pytest.fixture
def scene(x64):
    """Two networks that are no optimum of anything: each has a mode to be round."""
    x = jax.random.normal(jax.random.key(0), (12, 1))
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=12)
    method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.0)))
    models = [
        eqx.nn.MLP(1, "scalar", 4, 1, activation=jnp.tanh, key=jax.random.key(i))
        for i in (1, 2)
    ]
    posteriors = [
        method.posterior(method.init(m), [(x, jnp.sin(3.0 * x[:, 0]))]) for m in models
    ]
    return joint, models, posteriors, x[:5]


def predict(posterior, joint, x, **kwargs):
    return bnn.predict(
        posterior,
        joint.likelihood,
        x,
        key=jax.random.key(7),
        num_samples=NUM,
        model_batch_size=NUM,
        **kwargs,
    )


def assert_moments(predictive, mean, variance, fourth):
    """Of outputs with these central moments, in 5 standard errors."""
    outputs = np.asarray(predictive.outputs)
    assert np.all(np.abs(outputs.mean(1) - mean) < 5 * np.sqrt(variance / NUM))
    error = np.sqrt((fourth - variance**2) / NUM)
    assert np.all(np.abs(outputs.var(1) - variance) < 5 * error)


def ensemble(posteriors):
    stack = jax.tree.map(
        lambda *a: jnp.stack(a) if eqx.is_array(a[0]) else a[0], *posteriors
    )
    return bnn.EnsemblePosterior(stack, len(posteriors))


@pytest.mark.slow
@pytest.mark.parametrize("mixed", [bnn.Mixture, ensemble])
def test_a_mixture_linearises_each_component_round_its_own_mode(mixed, scene):
    joint, _, posteriors, x = scene
    mixture = mixed(posteriors)
    assert mixture.linearized
    each = [q.output_distribution(x) for q in posteriors]
    means = np.stack([np.asarray(mean)[:, 0] for mean, _ in each])
    spreads = np.stack([np.asarray(cov)[:, 0, 0] for _, cov in each])
    mean = means.mean(0)
    away = means - mean
    variance = (spreads + away**2).mean(0)
    fourth = (3 * spreads**2 + 6 * spreads * away**2 + away**4).mean(0)
    assert_moments(predict(mixture, joint, x), mean, variance, fourth)
    # Sampled weights in the networks themselves are something else.
    plain = predict(mixture, joint, x, linearized=False)
    error = np.sqrt(plain.epistemic / NUM)
    assert np.any(np.abs(plain.mean - mean) > 8 * error)


@pytest.mark.slow
def test_a_component_that_is_not_linearised_is_the_network_itself(scene):
    joint, models, posteriors, x = scene
    point = bnn.PointPosterior(models[1])
    predictive = predict(bnn.Mixture([posteriors[0], point]), joint, x)
    outputs = np.asarray(predictive.outputs)
    there = np.isclose(outputs, np.asarray(jax.vmap(models[1])(x))[:, None], atol=1e-12)
    assert np.all(there == there[:1])
    assert abs(there[0].mean() - 0.5) < 5 * np.sqrt(0.25 / NUM)
    mean, covariance = posteriors[0].output_distribution(x)
    own = outputs[:, ~there[0]]
    spread = np.asarray(covariance)[:, 0, 0]
    assert np.all(np.abs(own.mean(1) - mean[:, 0]) < 5 * np.sqrt(spread / own.shape[1]))
    assert np.all(np.abs(own.var(1) / spread - 1) < 5 * np.sqrt(2 / own.shape[1]))
    # Unless it is asked for, round the mean of each component.
    wide = bnn.Mixture([bnn.bayesianize(m, scale=0.5) for m in models])
    found = predict(wide, joint, x, linearized=True)
    drawn, centre = wide.linearisation_point(
        key=jax.random.split(jax.random.fold_in(jax.random.key(7), 3))[0]
    )
    number = [np.array_equal(centre.layers[0].bias, m.layers[0].bias) for m in models]
    assert sum(number) == 1
    params, rest = eqx.partition(centre, eqx.is_inexact_array)
    delta = jax.tree.map(jnp.subtract, eqx.filter(drawn, eqx.is_inexact_array), params)
    out, tangent = jax.jvp(
        lambda p: jax.vmap(eqx.combine(p, rest))(x), (params,), (delta,)
    )
    assert np.allclose(found.outputs[:, 3], out + tangent, rtol=0.0, atol=1e-12)


@pytest.mark.slow
def test_blocks_linearise_in_the_leaves_of_laplace_alone(scene):
    """The first layer varies as it is, the last is round its mode: for a network that
    is linear in its last layer the two agree, draw by draw.
    """
    joint, models, _, x = scene
    joint = bnn.LogJoint(joint.likelihood, joint.prior, num_data=len(x))
    still = bnn.MAP(joint, optax.sgd(0.0))
    method = bnn.Blocks(
        still,
        {
            "layers.0": bnn.MeanFieldVI(joint, optax.sgd(0.0), scale=0.5),
            "layers.1": bnn.Laplace(still),
        },
        num_steps=1,
    )
    data = (x, jnp.sin(x[:, 0]))
    state = method.init(models[0], key=jax.random.key(3))
    posterior = method.posterior(state, [data], key=jax.random.key(4))
    assert posterior.linearized
    found = predict(posterior, joint, x).outputs
    plain = predict(posterior, joint, x, linearized=False).outputs
    assert np.allclose(found, plain, rtol=0.0, atol=1e-10)
    other = bnn.Blocks(
        still,
        {
            "layers.1": bnn.MeanFieldVI(joint, optax.sgd(0.0), scale=0.5),
            "layers.0": bnn.Laplace(still),
        },
        num_steps=1,
    )
    posterior = other.posterior(state, [data], key=jax.random.key(4))
    found = predict(posterior, joint, x).outputs
    plain = predict(posterior, joint, x, linearized=False).outputs
    # The first layer is not linear in its weights.
    assert np.any(np.abs(found - plain) > 1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["full", "kronecker", "low_rank", "diagonal"])
def test_what_all_draws_share_is_computed_once(scene, structure, monkeypatch):
    """One decomposition for a prediction in many chunks, with the same draws."""
    joint, models, _, x = scene
    joint = bnn.LogJoint(joint.likelihood, joint.prior, num_data=len(x))
    method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.0)), structure)
    posterior = method.posterior(method.init(models[0]), [(x, x[:, 0])])
    kind = type(posterior.curvature)
    calls, plain = [], kind.root

    def counted(self, tau):
        jax.debug.callback(lambda: calls.append(1))
        return plain(self, tau)

    monkeypatch.setattr(kind, "root", counted)
    jax.clear_caches()
    eqx.clear_caches()
    predictive = bnn.predict(
        posterior, joint.likelihood, x, key=jax.random.key(5), num_samples=6,
        batch_size=2, model_batch_size=2,
    )  # fmt: skip
    outputs = np.asarray(predictive.outputs)
    jax.effects_barrier()
    assert len(calls) == 1
    calls.clear()
    mean, covariance = posterior.output_distribution(x)
    jax.effects_barrier()
    assert len(calls) == 1
    monkeypatch.undo()
    key = jax.random.split(jax.random.fold_in(jax.random.key(5), 4))[0]
    delta = jax.tree.map(
        jnp.subtract,
        eqx.filter(posterior.sample(key=key), eqx.is_inexact_array),
        posterior.params,
    )
    _, tangent = jax.jvp(
        lambda p: jax.vmap(eqx.combine(p, posterior.rest))(x),
        (posterior.params,),
        (delta,),
    )
    assert np.allclose(outputs[:, 4] - mean[:, 0], tangent, rtol=0.0, atol=1e-10)
    assert covariance.shape == (5, 1, 1)
