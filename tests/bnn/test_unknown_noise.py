"""Regression with unknown noise: given the noise all is Gaussian, so one integral."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

from jaxprob import bnn
from jaxprob.testing import LinearGaussian


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
        assert np.all(np.abs(found.mean((0, 1)) - exact) < 4 * error)
    assert np.allclose(noise.mean(), mass @ scale, rtol=0.02)
