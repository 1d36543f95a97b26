"""Evidence tunes priors of each layer and the noise; links from logits to classes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob.testing import LinearGaussian


def laplace(joint, structure: Any = "full", **kwargs) -> Any:
    return bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)), structure, **kwargs)


@pytest.fixture
def regression(x64, getkey):
    x = jax.random.normal(getkey(), (40, 2))
    y = jnp.sin(x[:, :1]) + 0.1 * jax.random.normal(getkey(), (40, 1))
    model = eqx.nn.MLP(2, 1, 4, 1, activation=jnp.tanh, key=getkey())
    prior = bnn.per_layer(model, bnn.IsotropicNormal(1.0))
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), prior, num_data=40)
    method = bnn.Laplace(bnn.MAP(joint, optax.adam(3e-2)))
    state, _ = jaxprob.fit(
        method,
        model,
        (np.asarray(x), np.asarray(y)),
        key=getkey(),
        num_steps=300,
        batch_size=40,
        progress=False,
    )
    return method, state, (x, y)


STRUCTURES = ["full", "kronecker", "diagonal", "low_rank"]


@pytest.mark.slow
def test_another_noise_is_another_pass_over_the_data(regression):
    """The evidence under a new noise equals that of a posterior made with it."""
    method, state, batch = regression
    for structure in STRUCTURES:
        own = eqx.tree_at(
            lambda m: m.structure, method, structure, is_leaf=lambda n: n == "full"
        )
        posterior = own.posterior(state, [batch])
        other = eqx.tree_at(
            lambda m: m.method.log_joint.likelihood, own, bnn.NormalLikelihood(0.17)
        ).posterior(state, [batch])
        moved = bnn.with_noise(posterior, 0.17)
        assert np.allclose(
            moved.log_evidence(), other.log_evidence(), rtol=0.0, atol=1e-8
        )
        eye = jnp.eye(17)
        tau = posterior.tau()
        assert np.allclose(
            moved.curvature.covariance(tau, eye), other.curvature.covariance(tau, eye)
        )


@pytest.mark.slow
def test_tuning_ends_where_the_evidence_is_flat_in_every_scale(regression):
    method, state, batch = regression
    posterior = method.posterior(state, [batch])
    tuned: Any = bnn.tune_prior(posterior, noise=True)
    assert tuned.log_evidence() > posterior.log_evidence() + 1.0
    assert set(tuned.prior.priors) == {"layers.0", "layers.1"}
    scales = [p.scale for p in tuned.prior.priors.values()]
    assert abs(scales[0] / scales[1] - 1) > 0.005

    def evidence(logs):
        out = eqx.tree_at(
            lambda q: [p.scale for p in q.prior.priors.values()],
            tuned,
            [jnp.exp(logs[0]), jnp.exp(logs[1])],
        )
        return bnn.with_noise(out, jnp.exp(logs[2])).log_evidence()

    at = jnp.log(jnp.stack([*scales, tuned.likelihood.scale]))
    assert np.allclose(evidence(at), tuned.log_evidence())
    assert np.all(np.abs(jax.grad(evidence)(at)) < 1e-4)


@pytest.mark.slow
def test_training_by_evidence_ends_where_the_exact_evidence_is_highest(x64, getkey):
    """Tuning after the training does not: its mode is that of the first prior."""
    problem = LinearGaussian.random(key=getkey(), num_data=30, dim=3, noise=0.4)
    data = problem.x, problem.y

    def exact(both):
        scale, noise = jnp.exp(both)
        design = problem.design(problem.x)
        covariance = noise**2 * jnp.eye(30) + scale**2 * design @ design.T
        _, log_det = jnp.linalg.slogdet(2 * jnp.pi * covariance)
        return -0.5 * (log_det + problem.y @ jnp.linalg.solve(covariance, problem.y))

    def found(posterior):
        return jnp.log(jnp.stack([posterior.prior.scale, posterior.likelihood.scale]))

    joint = bnn.LogJoint(
        bnn.NormalLikelihood(1.5), bnn.IsotropicNormal(0.1), num_data=30
    )
    method = bnn.Laplace(bnn.MAP(joint, optax.adam(3e-2)))
    posterior, history = bnn.train_by_evidence(
        method, problem.model(key=getkey()), data, key=getkey(), noise=True,
        num_rounds=15, num_steps=500,
    )  # fmt: skip
    assert np.all(np.abs(jax.grad(exact)(found(posterior))) < 1e-3)
    assert np.all(np.linalg.eigvalsh(jax.hessian(exact)(found(posterior))) < 0)
    assert np.isclose(history[-1], exact(found(posterior)), rtol=0.0, atol=1e-5)
    assert history[0] < history[-1] - 1.0
    first, _ = bnn.train_by_evidence(
        method, problem.model(key=getkey()), data, key=getkey(), noise=True,
        num_rounds=1, num_steps=500,
    )  # fmt: skip
    assert np.any(np.abs(jax.grad(exact)(found(first))) > 0.1)


@pytest.mark.slow
def test_the_pass_for_the_evidence_is_in_batches_too(getkey, x64, monkeypatch):
    problem = LinearGaussian.random(key=getkey(), num_data=10, dim=2)
    model, data = problem.model(key=getkey()), (problem.x, problem.y)
    sizes, posterior = [], bnn.Laplace.posterior

    def watched(self, state, batches, **kwargs):
        sizes.append([jaxprob.unpack(batch)[0][0].shape[0] for batch in batches])
        return posterior(self, state, batches, **kwargs)

    monkeypatch.setattr(bnn.Laplace, "posterior", watched)
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.IsotropicNormal(), num_data=10)
    found = []
    for batch_size in (None, 4):
        method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.0)))
        tuned, _ = bnn.train_by_evidence(
            method, model, data, key=jax.random.key(3), num_rounds=1, num_steps=1,
            batch_size=batch_size,
        )  # fmt: skip
        found.append(tuned.log_evidence())
    assert sizes == [[10], [4, 4, 4]]
    assert np.isclose(*found, rtol=0.0, atol=1e-9)


@pytest.mark.slow
def test_what_training_by_evidence_cannot_do_is_rejected(getkey):
    problem = LinearGaussian.random(key=getkey(), num_data=10, dim=2)
    model, data = problem.model(key=getkey()), (problem.x, problem.y)
    with pytest.raises(ValueError, match="num_rounds=0: at least one"):
        bnn.train_by_evidence(
            laplace(problem.log_joint()), model, data, key=getkey(), num_rounds=0
        )
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), num_data=10)
    with pytest.raises(
        FloatingPointError, match="weight is not finite after the training of"
    ):
        bnn.train_by_evidence(
            bnn.Laplace(bnn.MAP(joint, optax.sgd(1e20))), model, data, key=getkey()
        )


def test_each_part_has_a_prior_of_its_own_inside_of_others():
    """An array beside a layer: the pattern of the outer part fits the inner one too."""
    model = {"block": {"gain": jnp.ones(3), "inner": {"weight": jnp.ones((2, 2))}}}
    prior = bnn.per_layer(model, bnn.IsotropicNormal(1.0))
    tuned = eqx.tree_at(lambda p: p.priors["block.inner"].scale, prior, jnp.array(2.0))
    paths = jaxprob.tree.paths(model)
    scales = {path: float(tuned(path, leaf).scale) for path, leaf in paths.items()}
    assert scales == {"block.gain": 1.0, "block.inner.weight": 2.0}


@pytest.mark.slow
def test_noise_of_other_likelihoods_and_of_the_fisher_is_rejected(x64, getkey):
    problem = LinearGaussian.random(key=getkey(), num_data=10, dim=2)
    batch = (problem.x, problem.y)
    method = laplace(problem.log_joint(), kind="fisher")
    posterior = method.posterior(method.init(problem.model(key=getkey())), [batch])
    with pytest.raises(ValueError, match="kind='fisher'"):
        bnn.with_noise(posterior, 0.3)
    joint = bnn.LogJoint(bnn.StudentTLikelihood(0.5), bnn.FanInNormal(), num_data=10)
    method = laplace(joint)
    posterior = method.posterior(method.init(problem.model(key=getkey())), [batch])
    with pytest.raises(ValueError, match="StudentTLikelihood"):
        bnn.tune_prior(posterior, noise=True)


def test_mackays_probit_is_within_its_bound(x64):
    nodes = np.linspace(-8, 8, 4001)
    weights = np.exp(-0.5 * nodes**2)
    weights = weights / weights.sum()
    worst = 0.0
    for mean in np.linspace(-10, 10, 41):
        for variance in (0.01, 0.3, 1.0, 5.0, 20.0, 100.0):
            exact = weights @ (1 / (1 + np.exp(-(mean + variance**0.5 * nodes))))
            ours = bnn.probit(jnp.array([mean]), jnp.array([[variance]]), binary=True)
            worst = max(worst, abs(float(ours[0]) - exact))
    assert 0.005 < worst <= 0.017


def test_the_bridge_inverts_the_laplace_approximation_of_a_dirichlet(x64):
    alpha = np.array([0.7, 2.0, 5.0, 11.0])
    num = len(alpha)
    mean = np.log(alpha) - np.log(alpha).mean()
    inverse = 1 / alpha
    covariance = (
        np.diag(inverse)
        - (inverse[:, None] + inverse[None]) / num
        + inverse.sum() / num**2
    )
    out = bnn.softmax_bridge(jnp.asarray(mean), jnp.asarray(covariance))
    assert np.allclose(out, alpha, rtol=1e-9)
    # What the softmax does not see changes nothing: a shift of all logits.
    out = bnn.softmax_bridge(jnp.asarray(mean + 3.0), jnp.asarray(covariance + 0.8))
    assert np.allclose(out, alpha, rtol=1e-9)


@pytest.mark.parametrize("together", [0.0, 0.3, 7e4])
def test_the_bridge_of_logits_that_do_not_differ_is_finite(together):
    """No uncertainty at all, or none that the softmax sees."""
    mean = jnp.array([2.0, 0.0, -1.0])
    alpha = bnn.softmax_bridge(mean, jnp.full((3, 3), together))
    assert np.all(np.isfinite(alpha))
    assert np.all(np.diff(alpha) < 0)
    assert np.all(alpha > 0)


@pytest.mark.slow
def test_class_probs_are_near_those_of_many_draws(x64, getkey):
    x = jax.random.normal(getkey(), (60, 2))
    for binary in (False, True):
        likelihood = (
            bnn.BernoulliLikelihood() if binary else bnn.CategoricalLikelihood()
        )
        model = eqx.nn.Linear(2, "scalar" if binary else 3, key=getkey())
        model = jax.tree.map(lambda a: 2.0 * a, model)
        y = (x[:, 0] > 0).astype(jnp.int32) + (0 if binary else 1)
        joint = bnn.LogJoint(likelihood, bnn.IsotropicNormal(1.0), num_data=60)
        method = laplace(joint)
        posterior = method.posterior(method.init(model), [(x, y)])
        exact = bnn.predict(
            posterior, likelihood, x[:8], key=getkey(), num_samples=(num := 4000)
        ).probs
        error = 0.5 / np.sqrt(num)
        probit = posterior.class_probs(x[:8])
        assert probit.shape == exact.shape
        assert np.all(np.abs(probit - exact) < 5 * error)
        if not binary:
            bridge = posterior.class_probs(x[:8], link="bridge")
            assert np.allclose(bridge.sum(1), 1.0)
            # Single probabilities are up to .14 off over seeds: a rough approximation.
            assert np.mean(np.abs(bridge - exact)) < 0.06


def exact_line(residual):
    """A thousand rows on a line but for residuals of one size, under noise of one."""
    x = np.linspace(-1.0, 1.0, 1000, dtype=np.float32)[:, None]
    y = x[:, 0] + residual * np.where(np.arange(1000) % 2, 1.0, -1.0).astype("f")
    model = eqx.nn.Linear(1, "scalar", use_bias=False, key=jax.random.key(0))
    model = eqx.tree_at(lambda m: m.weight, model, jnp.ones((1, 1)))
    joint = bnn.LogJoint(
        bnn.NormalLikelihood(1.0), bnn.IsotropicNormal(1.0), num_data=1000
    )
    method = laplace(joint)
    return method.posterior(method.init(model), [(x, y)])


@pytest.mark.parametrize("residual", [1e-3, 1e-4])
def test_noise_far_below_the_first_guess_is_found(residual):
    """In single precision the log-likelihood under the guess does not hold it."""
    tuned = bnn.tune_prior(exact_line(residual), noise=True)
    assert np.isclose(tuned.likelihood.scale, residual, rtol=1e-2)


def test_no_noise_at_all_is_told_of():
    with pytest.raises(FloatingPointError, match="no noise to be found"):
        bnn.tune_prior(exact_line(0.0), noise=True)
