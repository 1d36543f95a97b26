"""Transforms of the target, noise models, and intervals that are calibrated."""

import equinox as eqx
import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from jaxtyping import Array, Float

from jaxprob import bnn
from jaxprob.datasets import Standardizer
from jaxprob.estimators._compiled import Fitted
from jaxprob.estimators._conformal import Conformal
from jaxprob.estimators._noise import noise_of
from jaxprob.estimators._target import TargetMap
from jaxprob.estimators._target_predictive import TargetPredictive

TRANSFORMS = [
    "none",
    "standardise",
    "log",
    ("log", -2.0),
    ("logit", -1.0, 1e3),
    "power",
]


class Constant(eqx.Module):
    """Outputs that do not depend on x."""

    outputs: Float[Array, "..."]

    def __call__(self, x):
        return self.outputs


def skewed(rows=200):
    rng = np.random.default_rng(0)
    return np.asarray([0.0, 3.0]) + np.exp(1.3 * rng.normal(size=(rows, 2)))


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_transforms_are_inverted_and_have_their_slope(transform):
    y = skewed()
    target = TargetMap.fit(transform, y)
    z = target(y)
    np.testing.assert_allclose(target.inverse(z), y, rtol=1e-9)
    step = 1e-5 * y
    slope = (target(y + step) - target(y - step)) / (2.0 * step)
    np.testing.assert_allclose(target.log_slope(y), np.log(slope), atol=1e-6)
    if transform != "none":
        np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-9)
        np.testing.assert_allclose(z.std(0), 1.0)


def test_a_power_finds_the_logarithm_and_the_identity():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(4000, 1))
    assert abs(TargetMap.fit("power", normal).exponents[0] - 1.0) < 0.1
    # exp(z) - 1 of the standardised column is near exponent 0.
    assert TargetMap.fit("power", np.exp(normal)).exponents[0] < 0.1
    assert TargetMap.fit("power", -np.exp(normal)).exponents[0] > 1.9


@pytest.mark.parametrize(
    ("transform", "y", "match"),
    [
        ("log", [1.0, 0.0], r"row 1 of y .*values above 0.*target='power'"),
        (("logit", 0.0, 2.0), [1.0, 2.0], r"row 1 of y .*inside \(0, 2\)"),
        ("cube", [1.0, 2.0], "target='cube': give one of"),
        (("log", 1.0, 2.0), [1.0, 2.0], "give one of"),
        (("logit", 2.0, 1.0), [1.0, 2.0], "first edge is below the second"),
    ],
)
def test_bad_transforms_are_named(transform, y, match):
    with pytest.raises(ValueError, match=match):
        TargetMap.fit(transform, np.asarray(y)[:, None])


@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
def test_counts_that_are_none_are_named(name):
    with pytest.raises(ValueError, match=r"row 2 of y is \[1.5\]"):
        noise_of(name, np.asarray([[1.0], [2.0], [1.5]]))


def fitted(outputs, likelihood):
    """A posterior over functions that do not depend on x: one for each output."""
    model = Constant(jax.numpy.asarray(outputs, np.float32))
    posterior = bnn.DrawsPosterior(jax.tree.map(lambda a: a[None], model), model)
    scaler = Standardizer(np.zeros(1), np.ones(1))
    return Fitted(posterior, likelihood, scaler, jax.random.key(0), None)


@pytest.fixture(scope="module")
def log_normal():
    """Two Gaussians of log y, in a table of 5 rows, and the map."""
    raw = np.log(np.expm1(np.asarray([0.3, 0.5])))
    mixture = fitted(
        np.stack([[0.2, 0.8], raw], axis=1), bnn.HeteroscedasticNormal(0.0)
    )
    target = TargetMap(
        "log", 0.0, np.inf, Standardizer(np.zeros(1), np.ones(1)), np.ones(1),
        Standardizer(np.asarray([1.0]), np.asarray([2.0])),
    )  # fmt: skip
    return mixture, target


def test_between_whole_numbers_a_count_has_no_density_and_the_last_probability():
    rate = 3.0
    mixture = fitted(np.log([[rate]]), lambda f: dist.Poisson(jax.numpy.exp(f)))
    found = TargetPredictive(
        mixture,
        np.zeros((4, 1)),
        TargetMap.fit("none", np.ones((2, 1))),
        None,
        is_single=True,
        is_discrete=True,
    )
    y = np.asarray([2.0, 2.5, -0.5, -1.0])
    exact = float(dist.Poisson(rate).log_prob(2))
    np.testing.assert_allclose(found.log_prob(y)[:2], [exact, -np.inf], rtol=1e-5)
    assert (found.log_prob(y)[2:] == -np.inf).all()
    low = 8.5 * np.exp(-rate)
    np.testing.assert_allclose(found.cdf(y), [low, low, 0.0, 0.0], atol=1e-5)


def test_statistics_of_log_normals_are_exact(log_normal):
    """Of log y = 1 + 2 z; numpyro's LogNormal gives density and moments."""
    mixture, target = log_normal
    x = np.zeros((5, 1))
    found = TargetPredictive(
        mixture, x, target, None, is_single=True, is_discrete=False
    )
    parts = [
        dist.LogNormal(1.0 + 2.0 * m, 2.0 * s) for m, s in ((0.2, 0.3), (0.8, 0.5))
    ]
    means = np.asarray([p.mean for p in parts])
    np.testing.assert_allclose(found.mean, means.mean(), rtol=1e-5)
    np.testing.assert_allclose(found.epistemic, means.var(), rtol=1e-5)
    noise = np.mean([p.variance for p in parts])
    np.testing.assert_allclose(found.aleatoric, noise, rtol=1e-4)
    y = np.asarray([0.5, 1.0, 3.0, 20.0, 0.0])
    density = np.mean([np.exp(p.log_prob(y[:4])) for p in parts], axis=0)
    np.testing.assert_allclose(found.log_prob(y)[:4], np.log(density), rtol=1e-4)
    assert found.log_prob(y)[4] == -np.inf
    lower, upper = found.interval(0.8)
    np.testing.assert_allclose(found.cdf(lower), 0.1, atol=1e-5)
    np.testing.assert_allclose(found.cdf(upper), 0.9, atol=1e-5)
    np.testing.assert_allclose(found.quantile(0.1), lower)
    below = found.cdf(np.asarray([-1.0, 0.0, -np.inf, np.inf, 1e-30]))
    np.testing.assert_array_equal(below, [0.0, 0.0, 0.0, 1.0, 0.0])
    draws = np.stack(
        [found.sample(key=k) for k in jax.random.split(jax.random.key(0), 40)]
    )
    assert (draws > 0.0).all()
    z = (np.log(draws) - 1.0) / 2.0
    spread = np.sqrt(0.3**2 + np.mean([0.3**2, 0.5**2]))
    assert abs(z.mean() - 0.5) < 5 * spread / np.sqrt(40)
    with pytest.raises(ValueError, match=r"y has shape \(5, 1\)"):
        found.log_prob(y[:, None])


def test_calibrated_intervals_cover_what_they_promise():
    """A predictive N(0, 1) of targets N(0, 3^2), and one of t with heavy tails."""
    raw = float(np.log(np.expm1(1.0)))
    gaussian = fitted([[0.0, raw]], bnn.HeteroscedasticNormal(0.0))
    rng = np.random.default_rng(0)
    identity = TargetMap.fit("none", np.zeros((2, 1)))

    def coverage(z, new, level):
        x = np.zeros((len(z), 1))
        conformal = Conformal.fit(gaussian, x, z[:, None], False)
        predictive = TargetPredictive(
            gaussian, np.zeros((1, 1)), identity, conformal,
            is_single=True, is_discrete=False,
        )  # fmt: skip
        lower, upper = predictive.interval(level)
        return np.mean((lower <= new) & (new <= upper)), lower, upper

    z, new = 3.0 * rng.normal(size=(2, 400))
    inside, lower, upper = coverage(z, new, 0.9)
    # Two sets of 400 rows: five standard errors.
    assert abs(inside - 0.9) < 5 * np.sqrt(2 * 0.09 / 400)
    np.testing.assert_allclose(upper, 3.0 * 1.645, rtol=0.2)
    np.testing.assert_allclose(lower, -upper, rtol=1e-3)
    # Half of the targets are where the distribution function is 0 or 1 in float32.
    inside, *_ = coverage(50.0 * z, 50.0 * new, 0.9)
    assert abs(inside - 0.9) < 5 * np.sqrt(2 * 0.09 / 400)
    with pytest.warns(UserWarning, match="the 4 rows that calibrate= holds out"):
        inside, lower, upper = coverage(z[:4], new, 0.9)
    assert inside == 1.0
    assert np.isinf([lower, upper]).all()
