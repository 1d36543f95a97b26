"""Regression with unknown noise: given the noise all is Gaussian, so one integral."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats

from jaxprob import bnn
from jaxprob.testing import LinearGaussian, UnknownNoise


@pytest.mark.slow
def test_weights_and_noise_have_their_marginal_posteriors(x64):
    """NUTS against a grid over the raw scale with the exact evidence at each point."""
    problem = LinearGaussian.random(key=jax.random.key(2), num_data=15, dim=2)
    x, y = problem.x, problem.y
    raw = np.linspace(-6.0, 6.0, 2001)
    scale = 1e-4 + np.log1p(np.exp(raw))

    def given(scale):
        own = [LinearGaussian(x, y, float(s), 1.0) for s in scale]
        return (
            np.array([float(p.log_evidence) for p in own]),
            np.stack([np.asarray(p.mean) for p in own]),
            np.stack([np.diag(p.covariance) for p in own]),
        )

    keep = slice(600, 1600, 4)  # raw in [-2.4, 3.6], where the mass is
    raw, scale = raw[keep], scale[keep]
    log_evidence, means, variances = given(scale)
    log_mass = log_evidence + scipy.stats.norm.logpdf(raw)
    mass = np.exp(log_mass - log_mass.max())
    assert max(mass[0], mass[-1]) < 1e-6
    mass /= mass.sum()
    mean = mass @ means
    variance = mass @ (variances + means**2) - mean**2
    model = bnn.LearnedNoise(problem.model(key=jax.random.key(0)), scale=0.5)
    joint = bnn.LogJoint(bnn.HeteroscedasticNormal(), dist.Normal(0.0, 1.0), 15)
    method = bnn.NUTS(joint, num_warmup=300, num_draws=1500, random=True)
    posterior = bnn.run_chains(
        method, model, (x, y), key=jax.random.key(1), progress=False
    )
    inner = posterior.draws.model
    draws = np.concatenate([inner.weight[:, :, 0], inner.bias], axis=-1)
    noise = 1e-4 + np.log1p(np.exp(np.asarray(posterior.draws.raw_scale)))
    for found, exact in (
        (draws, mean),
        ((draws - mean) ** 2, variance),
        (noise[..., None], np.array([mass @ scale])),
        (np.log(noise)[..., None], np.array([mass @ np.log(scale)])),
    ):
        error = found.std((0, 1)) / np.sqrt(bnn.ess(found))
        assert np.all(np.abs(found.mean((0, 1)) - exact) < 5 * error)


@pytest.fixture
def conjugate(x64):
    make = jax.jit(lambda key: UnknownNoise.random(key=key, num_data=10))
    return make(jax.random.key(3))


X_NEW = np.array([[0.0, 0.0], [1.0, -1.0], [3.0, 2.0]])


@pytest.mark.slow
def test_the_student_t_is_the_integral_over_the_noise(conjugate):
    """Given the noise all is a `LinearGaussian`; the rest is a sum over a fine grid."""
    log_s = np.linspace(-3.0, 3.0, 241)
    step = log_s[1] - log_s[0]
    law = dist.Gamma(conjugate.shape, conjugate.rate)
    x, y = conjugate.x, conjugate.y
    problems = [LinearGaussian(x, y, s, s) for s in np.exp(log_s).tolist()]
    log_mass = np.array([float(p.log_evidence) for p in problems])
    # The density of log s: that of the precision times its derivative.
    log_mass += np.asarray(law.log_prob(np.exp(-2 * log_s))) - 2 * log_s + np.log(2)
    total = scipy.special.logsumexp(log_mass) + np.log(step)
    assert abs(conjugate.log_evidence - total) < 1e-8
    mass = np.exp(log_mass + np.log(step) - total)
    assert max(mass[0], mass[-1]) < 1e-12
    moments = [p.predictive(jnp.asarray(X_NEW)) for p in problems]
    mean, variance = (np.asarray(a) for a in zip(*moments, strict=True))
    exact = conjugate.predictive(jnp.asarray(X_NEW))
    for z in (-4.0, -1.0, 0.0, 2.5):
        y = np.asarray(exact.mean + z * exact.scale)
        parts = scipy.stats.norm.pdf(y, mean, np.sqrt(variance))
        assert np.all(np.abs(np.log(mass @ parts) - exact.log_prob(y)) < 1e-6)
    weights = np.stack([p.mean for p in problems])
    spread = np.stack([np.diag(p.covariance) for p in problems])
    centre = mass @ weights
    assert np.all(np.abs(centre - conjugate.mean) < 1e-8)
    second = mass @ (spread + weights**2) - centre**2
    assert np.all(np.abs(second - np.diag(conjugate.covariance)) < 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("make", [bnn.NUTS, bnn.HMC])
def test_chains_predict_the_student_t(conjugate, make):
    """A density within 5 s.e., which a Gaussian of the same moments misses by 8."""
    joint = conjugate.log_joint()
    posterior = bnn.run_chains(
        make(joint, num_warmup=300, num_draws=3000),
        conjugate.model(key=jax.random.key(0)),
        (conjugate.x, conjugate.y),
        key=jax.random.key(1),
        progress=False,
    )
    draws = jax.vmap(jax.vmap(conjugate.vector))(posterior.draws)
    sd = np.sqrt(np.diag(conjugate.covariance))
    centred = (np.asarray(draws) - np.asarray(conjugate.mean)) / sd
    for found, exact in ((centred, 0.0), (centred**2, 1.0)):
        error = found.std((0, 1)) / np.sqrt(bnn.ess(found))
        assert np.all(np.abs(found.mean((0, 1)) - exact) < 5 * error)
    precision = np.exp(np.asarray(posterior.draws.log_precision))[..., None]
    error = precision.std() / np.sqrt(bnn.ess(precision))
    assert np.all(np.abs(precision.mean() - conjugate.noise.mean) < 5 * error)
    exact = conjugate.predictive(jnp.asarray(X_NEW))
    predictive = bnn.predict(
        posterior, joint.likelihood, X_NEW, key=jax.random.key(2), model_batch_size=1000
    )
    loc, scale = (np.asarray(a).reshape(3, 4, 3000) for a in predictive.outputs)
    gaussian = dist.Normal(exact.mean, jnp.sqrt(exact.variance))
    missed = []
    for z in (-2.0, -1.0, 0.0, 1.0, 2.0):
        y = exact.mean + z * exact.scale
        parts = scipy.stats.norm.pdf(np.asarray(y)[:, None, None], loc, scale)
        parts = np.moveaxis(parts, 0, -1)
        log_prob = predictive.log_prob(y)
        assert np.allclose(np.log(parts.mean((0, 1))), log_prob, rtol=0.0, atol=1e-10)
        error = parts.std((0, 1)) / np.sqrt(bnn.ess(parts)) / np.exp(log_prob)
        assert np.all(np.abs(log_prob - exact.log_prob(y)) < 5 * error)
        missed.append(np.abs(gaussian.log_prob(y) - exact.log_prob(y)) / error)
    assert np.max(missed) > 8
    # That of the mixture; its fourth moment may be infinite, so that a comparison with
    # the exact variance has no standard error. `log_prob` is bounded, and was compared.
    mixture = np.mean(scale**2, (1, 2)) + np.var(loc, (1, 2))
    assert np.allclose(predictive.variance, mixture, rtol=1e-10)
