"""The average of denoisers is a denoiser, and members are trained as if alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob.diffusion import (
    EDM,
    Averaged,
    DenoisingLoss,
    ExpAB,
    MemberLosses,
    Preconditioned,
    nn,
    sample,
)
from jaxprob.testing import (
    GaussianMixture,
    GaussianMixtureDenoiser,
    check_denoiser,
)


def member(key, scale=2.0):
    net = nn.ResidualMLP(2, width=16, depth=1, cond_dim=3, key=key)
    last = jax.tree.map(lambda a: 0.1 + a, net.last)
    net = eqx.tree_at(lambda net: net.last, net, last)
    return Preconditioned(net, EDM(), sigma_data=(scale, 1.0), mean_data=(1.0, 0.0))


def three():
    return [member(key) for key in jax.random.split(jax.random.key(0), 3)]


X, COND = jnp.array([0.5, -1.0]), jnp.ones(3)


def test_the_answer_is_the_mean_of_the_answers():
    members = three()
    found = Averaged.of(members).denoise(X, 0.7, COND)
    exact = sum(m.denoise(X, 0.7, COND) for m in members) / 3.0
    np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_stacked_members_may_have_conditions_of_their_own():
    members = three()
    averaged = Averaged(Averaged.of(members).members, own_conditions=True)
    conds = jnp.arange(9, dtype=jnp.float32).reshape(3, 3)
    exact = [m.denoise(X, 0.7, c) for m, c in zip(members, conds, strict=True)]
    np.testing.assert_allclose(
        averaged.denoise(X, 0.7, conds), np.mean(exact, axis=0), rtol=1e-6
    )


def test_the_average_of_one_exact_denoiser_is_exact():
    mixture = GaussianMixture(
        jnp.array([0.4, 0.6]),
        jnp.array([[1.0, 0.0], [-1.0, 0.5]]),
        jnp.broadcast_to(0.05 * jnp.eye(2), (2, 2, 2)),
    )
    exact = GaussianMixtureDenoiser(mixture, EDM())
    averaged = Averaged.of([exact, exact])
    check_denoiser(averaged, X, key=jax.random.key(1))
    settings = {"key": jax.random.key(2), "num_samples": 5, "shape": (2,)}
    np.testing.assert_allclose(
        sample(averaged, ExpAB(10), **settings).x_0,
        sample(exact, ExpAB(10), **settings).x_0,
        rtol=1e-5,
        atol=1e-5,
    )


def test_units_are_those_of_the_members():
    unit, units = Averaged.of(three()).standardised()
    assert units.scale == (2.0, 1.0)
    level = jnp.asarray(0.7)
    direct = Averaged.of(three()).denoise(X, level, COND)
    through = units.to_data(unit.denoise(units.to_unit(jnp.asarray(X)), level, COND))
    np.testing.assert_allclose(through, direct, rtol=1e-5)


def test_members_are_trained_as_they_would_be_alone():
    members = three()
    loss = DenoisingLoss()
    batch = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    data = (batch, np.ones((8, 3), np.float32))
    key = jax.random.key(3)
    learner = jaxprob.GradientDescent(MemberLosses(loss), optax.sgd(0.1))
    state = learner.init(Averaged.of(members), key=key)
    state, _ = learner.update(state, data, key=key)
    trained = learner.model(state).members.net.first.weight
    for i, (one, own) in enumerate(zip(members, jax.random.split(key, 3), strict=True)):
        grads = eqx.filter_grad(lambda m, own=own: loss(m, data, key=own)[0])(one)
        exact = one.net.first.weight - 0.1 * grads.net.first.weight
        np.testing.assert_allclose(trained[i], exact, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("denoisers", "message"),
    [
        ([], "at least one"),
        ([member(jax.random.key(0)), member(jax.random.key(0), 3.0)], "structure"),
    ],
)
def test_denoisers_that_differ_are_rejected(denoisers, message):
    with pytest.raises(ValueError, match=message):
        Averaged.of(denoisers)
