"""Densities of a target given features, against exact mixtures."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from jaxprob import bnn
from jaxprob.diffusion import (
    EDM,
    AbstractDenoiser,
    AbstractEncoder,
    ConditionalDensity,
    ConditionalNetwork,
    FlowTable,
    Units,
    fit_conditional,
)
from jaxprob.diffusion._sbi.observation_scaler import ObservationScaler
from jaxprob.diffusion._sbi.residual import LinearResidual

SPREAD, MEAN, SCALE = 0.3, 5.0, 3.0
WEIGHT, OFFSET, ROOT = 0.7, -0.2, 0.5
SHIFTS = np.array([0.0, 0.4])


class TwoModes(AbstractDenoiser):
    """Modes at shift + cond and shift - cond, of one width."""

    shift: jax.Array
    schedule: EDM = EDM()

    def denoise(self, x, level, cond=None, *, key=None):
        modes = self.shift + cond * jnp.array([-1.0, 1.0], x.dtype)
        variance = SPREAD**2 + level**2
        away = x - modes
        parts = modes + SPREAD**2 / variance * away
        share = jax.nn.softmax(-0.5 * away**2 / variance)
        return jnp.sum(share * parts, keepdims=True)

    def standardised(self):
        return self, Units()


class Itself(AbstractEncoder):
    one: jax.Array
    size: int = eqx.field(default=1, static=True)

    def __call__(self, x):
        return self.one * x

    def summary(self, x):
        return x


def density(*, num_knots=64, num_steps=16, column=False):
    shape = (1,) if column else ()
    scaler = ObservationScaler.fitted(np.array([[-1.0], [1.0]]))
    linear = LinearResidual(
        np.array([[WEIGHT]]), np.array([OFFSET]), np.array([[ROOT]])
    )
    shared = scaler, linear, np.full(shape, MEAN), np.full(shape, SCALE)
    scaler, linear, mean, scale = jax.tree.map(
        lambda a: np.stack([a, a]) if isinstance(a, np.ndarray) else a, shared
    )
    encoders, modes = Itself(jnp.ones(2)), TwoModes(jnp.asarray(SHIFTS))
    return ConditionalDensity(
        ConditionalNetwork(
            scaler, linear, encoders, modes, mean, scale, num_knots, num_steps
        )
    )


def components(x):
    """Means of the four components of y given x, (2 networks, 2 modes); their width."""
    v = SHIFTS[:, None] + x * np.array([-1.0, 1.0])[None]
    return MEAN + SCALE * (WEIGHT * x + OFFSET + ROOT * v), SCALE * ROOT * SPREAD


X = np.array([[0.3], [-1.0], [1.0]])
Y = np.array([4.9, 3.0, 7.2])


def exact_log_prob():
    rows = []
    for x, y in zip(X[:, 0], Y, strict=True):
        means, width = components(x)
        rows.append(np.log(norm.pdf(y, means, width).mean()))
    return np.array(rows)


def exact_quantile(q):
    rows = []
    for x in X[:, 0]:
        means, width = components(x)
        rows.append(
            brentq(lambda y, m=means, w=width: norm.cdf(y, m, w).mean() - q, -20, 30)
        )
    return np.array(rows)


def test_the_density_is_that_of_the_mixture_in_double_precision():
    with jax.enable_x64(True):
        found = density().log_prob(Y, X, rtol=1e-9, atol=1e-9)
        # What is left is the noise of the lowest level, 0.002 of the residual's unit.
        spread = np.hypot(SPREAD, 0.002) / SPREAD
        rows = []
        for x, y in zip(X[:, 0], Y, strict=True):
            means, width = components(x)
            rows.append(np.log(norm.pdf(y, means, spread * width).mean()))
        np.testing.assert_allclose(found, rows, atol=1e-6)


def test_statistics_of_the_predictive_are_those_of_the_mixture():
    p = density(num_knots=128, num_steps=24)
    predictive = bnn.Predictive(p(X), p.likelihood)
    np.testing.assert_allclose(predictive.log_prob(Y), exact_log_prob(), atol=5e-3)
    for q in (0.05, 0.5, 0.8):
        np.testing.assert_allclose(predictive.quantile(q), exact_quantile(q), atol=5e-3)
    np.testing.assert_allclose(predictive.cdf(predictive.quantile(0.3)), 0.3, atol=1e-4)
    lower, upper = predictive.interval(0.9)
    np.testing.assert_allclose(lower, exact_quantile(0.05), atol=5e-3)
    np.testing.assert_allclose(upper, exact_quantile(0.95), atol=5e-3)
    every = [components(x)[0] for x in X[:, 0]]
    width = components(0.0)[1]
    np.testing.assert_allclose(predictive.mean, [m.mean() for m in every], atol=2e-3)
    epistemic = [m.mean(1).var() for m in every]
    np.testing.assert_allclose(predictive.epistemic, epistemic, atol=2e-3)
    aleatoric = [m.var(1).mean() + width**2 for m in every]
    np.testing.assert_allclose(predictive.aleatoric, aleatoric, atol=1e-2)


def test_draws_have_the_moments_of_the_mixture():
    num = 4000
    draws = np.asarray(density().sample(X, key=jax.random.key(0), num_samples=num))
    assert draws.shape == (3, num)
    p = density()
    predictive = bnn.Predictive(p(X), p.likelihood)
    keys = jax.random.split(jax.random.key(1), num)
    tabulated = np.asarray(jax.vmap(lambda k: predictive.sample(key=k))(keys)).T
    for found in (draws, tabulated):
        for row, x in zip(found, X[:, 0], strict=True):
            means, width = components(x)
            std = np.sqrt(means.var() + width**2)
            assert abs(row.mean() - means.mean()) < 4 * std / np.sqrt(num)
            kurtosis = ((row - row.mean()) ** 4).mean()
            assert abs(row.var() - std**2) < 4 * np.sqrt(kurtosis / num)


def test_a_network_is_a_model_of_bnn():
    p = density(num_knots=32, num_steps=8, column=True)
    outputs = p(X)
    arrays, rest = eqx.partition(p.networks, eqx.is_array)
    chain = jax.tree.map(lambda a: a[None], arrays)
    posterior = bnn.DrawsPosterior(chain, rest)
    x = jnp.asarray(X, float)
    found = bnn.predict(posterior, p.likelihood, x, key=jax.random.key(0))
    for a, b in zip(found.outputs, outputs, strict=True):
        assert a.shape == (3, 2, 1, 32)
        np.testing.assert_allclose(a, b, atol=1e-3)
    assert found.mean.shape == (3, 1)


def test_a_table_of_a_normal_distribution_is_exact():
    with jax.enable_x64(True):
        knots = jnp.array([-1.0, 0.5, 4.0])
        z = (knots - 1.0) / 2.0
        p = FlowTable(knots, z, jnp.full(3, -np.log(2.0)))
        y = jnp.linspace(-9.0, 9.0, 41)
        np.testing.assert_allclose(p.log_prob(y), norm.logpdf(y, 1.0, 2.0), atol=1e-12)
        np.testing.assert_allclose(p.cdf(y), norm.cdf(y, 1.0, 2.0), atol=1e-12)
        q = jnp.array([1e-4, 0.3, 0.999])
        np.testing.assert_allclose(p.icdf(q), norm.ppf(q, 1.0, 2.0), atol=1e-10)
        # Five nodes an interval, of which there are two.
        np.testing.assert_allclose([p.mean, p.variance], [1.0, 4.0], atol=1e-5)


def test_a_table_is_a_density_whatever_its_knots():
    with jax.enable_x64(True):
        p = FlowTable(
            jnp.array([-2.0, -1.5, 1.0, 1.1]),
            jnp.array([-1.0, -0.1, 0.1, 2.0]),
            jnp.log(jnp.array([1.0, 1e-3, 0.5, 9.0])),
        )
        y = jnp.linspace(-8.0, 4.0, 240_001)
        density = np.exp(p.log_prob(y))
        step = float(y[1] - y[0])
        assert abs(density.sum() * step - 1.0) < 1e-5
        np.testing.assert_allclose(np.cumsum(density) * step, p.cdf(y), atol=1e-3)
        np.testing.assert_allclose(
            p.icdf(p.cdf(y[:190_000:5000])), y[:190_000:5000], atol=1e-6
        )
        mean = (density * y).sum() * step
        variance = (density * (y - mean) ** 2).sum() * step
        np.testing.assert_allclose([p.mean, p.variance], [mean, variance], rtol=1e-2)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((5, 1)), np.ones(5), "one number"),
        (np.ones((5, 1)), np.arange(4.0), "leading axes"),
        (np.ones((3, 1)), np.array([0.0, np.nan, 1.0]), "row 1"),
        (np.ones((3, 1)), np.zeros((3, 1, 1)), "real numbers"),
    ],
)
def test_bad_targets_are_rejected(x, y, message):
    with pytest.raises(ValueError, match=message):
        fit_conditional(x, y, key=jax.random.key(0))


def test_targets_of_another_shape_are_rejected():
    with pytest.raises(ValueError, match=r"give one of shape \(3,\)"):
        density().log_prob(Y[:, None], X)
    with pytest.raises(ValueError, match="row 2 is not finite"):
        density().log_prob(np.array([0.0, 1.0, np.inf]), X)


@pytest.mark.slow
def test_two_modes_and_two_targets_are_learned():
    """y = +-(x + 1) + noise: the density is bimodal, and known."""
    key = jax.random.key(0)
    rng = np.random.default_rng(0)
    x = rng.uniform(0.0, 1.0, (600, 1))
    sign = rng.choice([-1.0, 1.0], 600)
    y = 1e3 + 10 * sign * (1 + x[:, 0]) + 3 * rng.standard_normal(600)
    settings = {"num_members": 2, "weight_decay": 0.0, "num_steps": 400}
    p, history = fit_conditional(x, y, key=key, progress=False, **settings)
    assert history[-1]["step"] == 400
    predictive = bnn.Predictive(p(x[:50]), p.likelihood)
    means = 10 * (1 + x[:50, 0])[:, None] * np.array([[-1.0, 1.0]]) + 1e3
    true = np.log(norm.pdf(y[:50, None], means, 3.0).mean(1))
    found = np.asarray(predictive.log_prob(y[:50]))
    assert abs((true - found).mean()) < 0.25
    np.testing.assert_allclose(found, p.log_prob(y[:50], x[:50]), atol=0.2)
    pair = np.stack([y, rng.standard_normal(600)], 1)
    settings |= {"num_steps": 20, "num_rounds": 1}
    both, _ = fit_conditional(x, pair, key=key, progress=False, **settings)
    assert both.sample(x[:3], key=key, num_samples=2).shape == (3, 2, 2)
    assert both.log_prob(pair[:3], x[:3]).shape == (3,)
    with pytest.raises(ValueError, match="y has 2 columns"):
        both(x[:3])
