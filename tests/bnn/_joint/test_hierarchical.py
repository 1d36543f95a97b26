"""Priors with scales of their own: Student's t in closed form, and its samples."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

from jaxprob import bnn

SHAPE, RATE = 2.5, 0.4


def expected(vectors):
    """Log-density of each row as a multivariate t with 2a degrees of freedom."""
    shape: Any = RATE / SHAPE
    df: Any = 2 * SHAPE
    law = scipy.stats.multivariate_t(np.zeros(vectors.shape[1]), shape, df)
    return np.sum(law.logpdf(vectors))


@pytest.mark.parametrize("groups", ["leaf", "input", "output"])
@pytest.mark.parametrize("shape", [(4, 3), (5,), (4, 3, 2)])
def test_the_density_is_students(x64, groups, shape):
    leaf = jax.random.normal(jax.random.key(0), shape)
    prior = bnn.HierarchicalNormal(groups, SHAPE, RATE)
    value = np.asarray(leaf)
    if groups == "leaf" or len(shape) == 1:
        rows = value.reshape(1, -1)
    elif groups == "input":
        rows = np.moveaxis(value, 1, 0).reshape(shape[1], -1)
    else:
        rows = value.reshape(shape[0], -1)
    found = bnn.log_prior(prior, {"w": leaf})
    np.testing.assert_allclose(found, expected(rows), rtol=1e-12)


@pytest.mark.slow
def test_samples_have_the_density():
    prior = bnn.HierarchicalNormal("input", SHAPE, RATE)
    model = eqx.nn.Linear(3, 4, use_bias=False, key=jax.random.key(0))

    @jax.jit
    def draw(key):
        return bnn.sample_prior(model, prior, key=key).weight

    num = 20_000
    weights = np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(1), num)))
    # Any one entry is Student t.
    law = scipy.stats.t(2 * SHAPE, scale=np.sqrt(RATE / SHAPE))
    assert scipy.stats.kstest(weights[:, 1, 2], law.cdf).pvalue > 1e-6
    # Entries of one input share their scale, those of two inputs do not.
    size = np.log(weights**2)
    same = np.corrcoef(size[:, 0, 0], size[:, 1, 0])[0, 1]
    other = np.corrcoef(size[:, 0, 0], size[:, 0, 1])[0, 1]
    # log w^2 is log z^2, of variance pi^2 / 2, less the log of a gamma variable.
    shared = scipy.special.polygamma(1, SHAPE)
    exact = shared / (shared + np.pi**2 / 2)
    assert abs(same - exact) < 5 / np.sqrt(num)
    assert exact > 10 / np.sqrt(num)
    assert abs(other) < 5 / np.sqrt(num)


@pytest.mark.slow
def test_wide_scales_do_not_overflow():
    """Of these precisions one in 20,000 is below the least number of float32."""
    law = bnn.GroupedStudentT((1, 100_000), 1, 0.1, 0.1)
    drawn = jax.jit(law.sample)(jax.random.key(0))
    precision = scipy.stats.gamma(0.1, scale=10.0)
    assert 100_000 * precision.cdf(1.2e-38) > 5
    assert np.all(np.isfinite(drawn))
    assert np.max(np.abs(drawn)) > 1e19


@pytest.mark.slow
def test_batches_of_values_have_their_own_densities(x64):
    law = bnn.GroupedStudentT((4, 3), 1, SHAPE, RATE)
    values = law.sample(jax.random.key(0), (7,))
    assert values.shape == (7, 4, 3)
    found = law.log_prob(values)
    each = jnp.stack([law.log_prob(value) for value in values])
    np.testing.assert_allclose(found, each, rtol=1e-12)


def test_moments_are_students():
    model = eqx.nn.Linear(3, 4, key=jax.random.key(0))
    prior = bnn.HierarchicalNormal("input", SHAPE, RATE)
    mean = bnn.PriorModels(model, prior).mean()
    assert np.array_equal(mean.weight, np.zeros((4, 3)))
    law = scipy.stats.t(2 * SHAPE, scale=np.sqrt(RATE / SHAPE))
    np.testing.assert_allclose(prior("w", mean.weight).variance, law.var(), rtol=1e-6)
    wild = bnn.HierarchicalNormal("leaf", 0.5, RATE)("w", mean.weight)
    assert np.all(np.isnan(wild.mean))
    assert np.all(np.isinf(wild.variance))


def test_an_input_without_use_is_switched_off():
    """The posterior scale of a column of zeros is small beside that of a large one."""
    prior = bnn.HierarchicalNormal("input", 1.0, 0.1)
    law = prior("w", jnp.zeros((50, 2)))

    def gain(size) -> Any:
        weights = jnp.stack([jnp.zeros(50), jnp.full(50, size)], axis=1)
        return law.log_prob(weights)

    # Beyond the scale of the rate the price of size is logarithmic, not quadratic.
    assert gain(1.0) - gain(2.0) < 50 * np.log(2.0) + 2
    assert gain(1.0) - gain(2.0) < 0.6 * (50 * (2.0**2 - 1.0**2) / 2)


METHODS = {
    "mean field": lambda joint: bnn.MeanFieldVI(joint, optax.sgd(0.0)),
    "sticking": lambda joint: bnn.MeanFieldVI(
        joint, optax.sgd(0.0), stick_the_landing=True
    ),
    "low rank": lambda joint: bnn.LowRankVI(joint, optax.sgd(0.0)),
    "full rank": lambda joint: bnn.FullRankVI(joint, optax.sgd(0.0)),
}


@pytest.mark.slow
@pytest.mark.parametrize("groups", ["leaf", "input", "output"])
@pytest.mark.parametrize("name", METHODS)
def test_variational_methods_take_it_in_every_grouping(groups, name):
    """A narrow q: the divergence is the density at its mean less q's entropy."""
    model = eqx.nn.Linear(3, 4, key=jax.random.key(0))
    prior = bnn.HierarchicalNormal(groups, SHAPE, RATE)
    x = jnp.ones((2, 3))
    joint = bnn.LogJoint(bnn.NormalLikelihood(1.0), prior, num_data=2)
    method = dataclasses.replace(METHODS[name](joint), scale=1e-4, num_samples=64)
    state = method.init(model, key=jax.random.key(1))
    info = eqx.filter_jit(method.evaluate)(
        state, (x, jnp.ones((2, 4))), key=jax.random.key(2)
    )
    scales = np.concatenate([np.full(12, 1e-4 / np.sqrt(3)), np.full(4, 1e-4)])
    entropy = np.sum(0.5 * np.log(2 * np.pi * np.e) + np.log(scales))
    found = info["kl"] - (-entropy - bnn.log_prior(prior, model))
    # The low-rank start adds a hundredth to each variance. Sticking takes log q from
    # the draws: half of a chi-square of 16 degrees of freedom.
    estimated = name in ("sticking", "full rank")
    assert abs(found) < (5 * np.sqrt(16 / 2 / 64) if estimated else 0.1)


@pytest.mark.parametrize(
    ("settings", "match"),
    [({"shape": 0.0}, r"shape=0\.0"), ({"rate": -1.0}, r"rate=-1\.0")],
)
def test_bad_settings_are_named(settings, match):
    with pytest.raises(ValueError, match=match):
        bnn.HierarchicalNormal(**settings)
