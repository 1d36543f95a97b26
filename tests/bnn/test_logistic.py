"""Logistic regression: the quadrature itself, and methods against it."""

import jax
import numpy as np
import optax
import pytest
import scipy.integrate

from jaxprob import bnn
from jaxprob.testing import LogisticRegression


@pytest.mark.slow
def test_the_quadrature_is_an_adaptive_integral(x64):
    """One weight and a bias, by SciPy's double integral over the density itself."""
    problem = LogisticRegression.random(key=jax.random.key(0), num_data=12, dim=1)
    x, signs = np.asarray(problem.x[:, 0]), 2.0 * np.asarray(problem.y) - 1.0

    def density(b, a):
        logits = signs * (a * x + b)
        prior = np.exp(-0.5 * (a**2 + b**2)) / (2 * np.pi)
        return prior * np.prod(1 / (1 + np.exp(-logits)))

    def integral(weight):
        return scipy.integrate.dblquad(
            lambda b, a: weight(a, b) * density(b, a), -7, 7, -7, 7, epsabs=1e-12
        )[0]

    evidence = integral(lambda a, b: 1.0)
    assert np.isclose(problem.log_evidence, np.log(evidence), rtol=0.0, atol=1e-8)
    mean = integral(lambda a, b: a) / evidence
    assert np.isclose(problem.mean[0], mean, rtol=0.0, atol=1e-7)
    cross = integral(lambda a, b: a * b) / evidence - mean * problem.mean[1]
    assert np.isclose(problem.covariance[0, 1], cross, rtol=0.0, atol=1e-7)


@pytest.mark.slow
def test_more_nodes_change_nothing():
    make = LogisticRegression.random
    coarse = make(key=jax.random.key(8), nodes=16)
    fine = make(key=jax.random.key(8), nodes=24)
    assert np.allclose(coarse.mean, fine.mean, rtol=0.0, atol=1e-5)
    assert np.allclose(coarse.covariance, fine.covariance, rtol=0.0, atol=1e-5)
    assert abs(coarse.log_evidence - fine.log_evidence) < 1e-6


@pytest.mark.slow
def test_nuts_and_full_rank_agree_and_mean_field_is_too_narrow(x64):
    """Row by row: exact, the best Gaussian, and the precisions' own variances."""
    problem = LogisticRegression.random(key=jax.random.key(8), num_data=40, dim=3)
    joint, data = problem.log_joint(), (problem.x, problem.y)
    model = problem.model(key=jax.random.key(0))
    sd = np.sqrt(np.diag(problem.covariance))
    posterior = bnn.run_chains(
        bnn.NUTS(joint, num_warmup=300, num_draws=1500), model, data,
        key=jax.random.key(1), progress=False,
    )  # fmt: skip
    draws = np.concatenate(
        [posterior.draws.weight[:, :, 0], posterior.draws.bias], axis=-1
    )
    centred = (draws - problem.mean) / sd
    assert np.all(np.abs(centred.mean((0, 1))) < 5 / np.sqrt(bnn.ess(centred)))
    squares = centred**2
    error = squares.std((0, 1)) / np.sqrt(bnn.ess(squares))
    assert np.all(np.abs(squares.mean((0, 1)) - 1) < 5 * error)
    schedule = optax.adam(optax.cosine_decay_schedule(0.05, 3000))
    found = {}
    for name, method in (
        ("full", bnn.FullRankVI(joint, schedule, num_samples=8)),
        ("field", bnn.MeanFieldVI(joint, schedule, num_samples=8)),
    ):
        step = jax.jit(lambda s, k, m=method: m.update(s, data, key=k)[0])
        state = method.init(model, key=jax.random.key(2))
        for k in range(3000):
            state = step(state, jax.random.key(k))
        q = method.posterior(state)
        draw = jax.jit(jax.vmap(lambda k, q=q: problem.vector(q.sample(key=k))))
        found[name] = np.asarray(draw(jax.random.split(jax.random.key(3), 20_000)))
    assert np.all(np.abs((found["full"].mean(0) - problem.mean) / sd) < 0.05)
    # The posterior is no Gaussian: the best one is a few hundredths narrower or wider.
    assert np.all(np.abs(found["full"].std(0) / sd - 1) < 0.1)
    narrow = 1 / (np.sqrt(np.diag(np.linalg.inv(problem.covariance))) * sd)
    assert np.all(np.abs(found["field"].std(0) / sd - narrow) < 0.1)
