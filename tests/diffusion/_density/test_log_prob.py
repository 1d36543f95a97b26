"""Densities against the exact ones of mixtures, and everything they are made of."""

import math
from typing import Any

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob.diffusion import (
    EDM,
    VP,
    ExactTrace,
    Hutchinson,
    HutchPP,
    LogLevelGrid,
    ODESampler,
    bits_per_dim,
    decode,
    dequantise,
    encode,
    interpolate,
    log_prob,
    sample,
)
from jaxprob.testing import GaussianMixture, GaussianMixtureDenoiser, eight_gaussians

from ..cases import SCHEDULES

LOW, HIGH = 0.01, 40.0


def exact_log_prob(denoiser, x, level):
    """Log-density of the data with noise of that level."""
    mixture = denoiser.mixture.noised(jnp.asarray(1.0), jnp.asarray(level))
    return mixture.log_prob(x)


def points(denoiser, key, num):
    keys = jax.random.split(key, num)
    mixture = denoiser.mixture.noised(jnp.asarray(1.0), jnp.asarray(LOW))
    return jax.vmap(lambda key: mixture.sample(key=key))(keys)


def errors(denoiser, x, **settings):
    def one(x):
        out = log_prob(
            denoiser,
            x,
            level_min=LOW,
            level_max=HIGH,
            prior=lambda end: exact_log_prob(denoiser, end, HIGH),
            **settings,
        )
        return out.value - exact_log_prob(denoiser, x, LOW)

    return jax.jit(jax.vmap(one))(x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vp_linear", "ve", "sub_vp", "edm", "rectified"])
def test_log_prob_is_exact_for_a_mixture(name, x64, getkey):
    denoiser = GaussianMixtureDenoiser(eight_gaussians(), SCHEDULES[name]())
    x = points(denoiser, getkey(), 16)
    error = errors(denoiser, x, solver=dfx.Dopri8(), rtol=1e-9, atol=1e-9)
    assert jnp.max(jnp.abs(error)) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vp_linear", "edm"])
def test_log_prob_in_float32(name, getkey):
    denoiser = GaussianMixtureDenoiser(eight_gaussians(), SCHEDULES[name]())
    error = errors(denoiser, points(denoiser, getkey(), 16))
    assert error.dtype == jnp.float32
    assert jnp.max(jnp.abs(error)) < 2e-3


@pytest.mark.slow
def test_the_mismatch_of_another_prior_bounds_what_it_costs(x64, getkey):
    """N(0, s^2) in place of N(m, s^2 + c): the errors are known."""
    c, high, shift = 0.25, 2.0, 0.4
    mean = jnp.full((1, 2), shift)
    mixture = GaussianMixture(jnp.ones(1), mean, c * jnp.eye(2)[None])
    denoiser = GaussianMixtureDenoiser(mixture, EDM(high, t_min=0.002))
    x = jax.vmap(lambda key: mixture.sample(key=key))(jax.random.split(getkey(), 4000))
    s = high * c**0.5

    def usual(end):
        return jnp.sum(jax.scipy.stats.norm.logpdf(end, 0.0, s))

    def one(x):
        out = log_prob(denoiser, x, prior=usual, rtol=1e-6, atol=1e-6)
        own = log_prob(denoiser, x, rtol=1e-6, atol=1e-6)
        exact = exact_log_prob(denoiser, x, 0.002 * c**0.5)
        return exact - out.value, out.prior_mismatch, exact - own.value

    gaps, mismatch, own = jax.jit(jax.vmap(one))(x)
    # The Gaussian of the denoiser is exact, up to the solver.
    assert jnp.max(jnp.abs(own)) < 1e-5
    ratio = (s**2 + c) / s**2
    divergence = ratio - 1.0 - math.log(ratio) + (shift / s) ** 2
    assert abs(jnp.mean(gaps) - divergence) < 5.0 * jnp.std(gaps) / 4000**0.5
    bound = jnp.sqrt(jnp.mean(mismatch**2))
    assert divergence < bound**2 / 2.0 < 2.0 * divergence
    assert jnp.std(gaps) < bound < 2.0 * jnp.std(gaps)


@pytest.mark.slow
def test_the_density_integrates_to_one():
    denoiser = GaussianMixtureDenoiser(eight_gaussians(0.25), VP.linear())
    axis = np.linspace(-3.0, 3.0, 101, dtype=np.float32)
    grid = jnp.asarray(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2))
    value = jax.jit(jax.vmap(lambda x: log_prob(denoiser, x, level_min=LOW).value))(
        grid
    )
    total = float(jnp.sum(jnp.exp(value))) * (axis[1] - axis[0]) ** 2
    assert abs(total - 1.0) < 1e-3


@pytest.mark.slow
def test_samples_have_the_density(getkey):
    """The divergence of the samples' law from the truth is near 0 and not negative."""
    denoiser = GaussianMixtureDenoiser(eight_gaussians(), VP.linear())
    x = sample(
        denoiser,
        ODESampler(LogLevelGrid(32, level_min=LOW), adaptive=True),
        key=getkey(),
        num_samples=512,
        shape=(2,),
    ).x_0
    model = jax.jit(jax.vmap(lambda x: log_prob(denoiser, x, level_min=LOW).value))(x)
    true = jax.vmap(lambda x: exact_log_prob(denoiser, x, LOW))(x)
    divergence, error = jnp.mean(model - true), jnp.std(model - true) / 512**0.5
    assert -5.0 * error - 1e-3 < divergence < 5.0 * error + 1e-3


@pytest.mark.slow
def test_probes_are_unbiased_with_the_known_variance(x64, getkey):
    a = jax.random.normal(getkey(), (6, 6))
    a = a + a.T
    num = 20_000
    off = 2.0 * (jnp.sum(a**2) - jnp.sum(jnp.diag(a) ** 2))
    for trace, variance in (
        (Hutchinson(num), off),
        (Hutchinson(num, gaussian=True), 2.0 * jnp.sum(a**2)),
    ):
        values = trace(lambda v: a @ v, 6, jnp.float64, key=getkey())
        assert abs(jnp.mean(values) - jnp.trace(a)) < 5.0 * (variance / num) ** 0.5
        # The variance of a sample variance is at most a few times this.
        assert abs(jnp.var(values) / variance - 1.0) < 5.0 * (8.0 / num) ** 0.5
    exact = ExactTrace()(lambda v: a @ v, 6, jnp.float64, key=None)
    assert jnp.allclose(exact, jnp.trace(a))


@pytest.mark.slow
def test_hutchpp_is_exact_for_low_rank_and_unbiased_otherwise(x64, getkey):
    b = jax.random.normal(getkey(), (6, 2))
    low = b @ b.T
    values = HutchPP(2, 5)(lambda v: low @ v, 6, jnp.float64, key=getkey())
    assert jnp.allclose(values, jnp.trace(low))
    full = low + 0.3 * jnp.diag(jnp.arange(6.0)) + 0.1
    keys = jax.random.split(getkey(), 4000)
    trace = HutchPP(2, 1)
    values = jax.vmap(
        lambda key: trace(lambda v: full @ v, 6, jnp.float64, key=key)[0]
    )(keys)
    error = jnp.std(values) / 4000**0.5
    assert abs(jnp.mean(values) - jnp.trace(full)) < 5.0 * error
    plain = Hutchinson(4000)(lambda v: full @ v, 6, jnp.float64, key=getkey())
    assert jnp.std(values) < 0.5 * jnp.std(plain)


@pytest.mark.slow
@pytest.mark.parametrize("trace", [Hutchinson(64), HutchPP(1, 64)])
def test_the_error_bar_of_the_trace_is_honest(trace, x64, getkey):
    denoiser = GaussianMixtureDenoiser(eight_gaussians(0.3), VP.linear())
    x = points(denoiser, getkey(), 32)
    keys = jax.random.split(getkey(), 32)
    settings: Any = {"rtol": 1e-4, "atol": 1e-4, "level_min": LOW}

    def one(x, key):
        random = log_prob(denoiser, x, trace=trace, key=key, **settings)
        exact = log_prob(denoiser, x, **settings)
        return (random.value - exact.value) / (random.trace_error + 1e-3)

    z = jax.jit(jax.vmap(one))(x, keys)
    # Student t of 63 degrees of freedom: beyond 6 once in ten million.
    assert jnp.max(jnp.abs(z)) < 6.0
    assert jnp.sqrt(jnp.mean(z**2)) < 1.0 + 5.0 / np.sqrt(2.0 * len(z))


@pytest.mark.slow
def test_the_solver_error_is_of_the_right_size(x64, getkey):
    denoiser = GaussianMixtureDenoiser(eight_gaussians(), VP.linear())
    x = points(denoiser, getkey(), 16)

    def one(x):
        out = log_prob(
            denoiser,
            x,
            level_min=LOW,
            level_max=HIGH,
            rtol=1e-4,
            atol=1e-4,
            prior=lambda end: exact_log_prob(denoiser, end, HIGH),
            estimate_error=True,
        )
        return out.value - exact_log_prob(denoiser, x, LOW), out.solver_error

    true, estimated = jax.jit(jax.vmap(one))(x)
    # Ten times the tolerance is an upper bound for most points, and not a wild one.
    assert jnp.mean(jnp.abs(true) < estimated) > 0.8
    assert jnp.median(estimated) < 100.0 * jnp.median(jnp.abs(true))


@pytest.mark.slow
def test_encode_and_decode_are_inverse(x64, getkey):
    denoiser = GaussianMixtureDenoiser(eight_gaussians(0.2), VP.linear())
    sampler = ODESampler(solver=dfx.Dopri8(), rtol=1e-9, atol=1e-9)
    x = points(denoiser, getkey(), 8)

    @jax.jit
    @jax.vmap
    def there_and_back(x):
        latent = encode(denoiser, x, sampler=sampler)
        return latent, decode(denoiser, latent, sampler=sampler)

    latent, back = there_and_back(x)
    assert jnp.max(jnp.abs(back - x)) < 1e-5
    assert jnp.max(jnp.abs(latent)) < 5.0


@pytest.mark.slow
def test_interpolation_stays_on_the_sphere(x64, getkey):
    a, b = jax.random.normal(getkey(), (2, 3, 50))
    a = a * jnp.linalg.norm(b) / jnp.linalg.norm(a)
    for weight in (0.0, 0.3, 1.0):
        c = interpolate(a, b, weight)
        assert jnp.allclose(jnp.linalg.norm(c), jnp.linalg.norm(a))
    assert jnp.allclose(interpolate(a, b, 0.0), a)
    assert jnp.allclose(interpolate(a, b, 1.0), b)
    assert jnp.allclose(interpolate(a, a, 0.4), a)


def test_bits_per_dim_do_not_depend_on_the_units(getkey):
    """Uniform integers 0, ..., 255 cost 8 bits in whatever units they are measured."""
    for scale in (1.0, 1.0 / 256.0, 1.0 / 73.9):
        density = jnp.asarray(-math.log(256.0 * scale) * 5)
        assert bits_per_dim(density, 5, scale) == pytest.approx(8.0, rel=1e-6)
        x = scale * jnp.floor(256.0 * jax.random.uniform(getkey(), (1000,)))
        spread = dequantise(x, scale, key=getkey()) - x
        assert jnp.max(jnp.abs(spread)) <= 0.501 * scale
        assert abs(jnp.mean(spread)) < 5.0 * scale / 12**0.5 / 1000**0.5
    with pytest.raises(ValueError, match="bin_width=0"):
        bits_per_dim(jnp.zeros(()), 5, 0.0)


@pytest.mark.slow
def test_bits_bound_the_entropy_of_integers(getkey):
    """Gaussian integers of standard deviation 10: the bound is the entropy + 1e-3."""
    std, num = 10.0, 20_000
    mixture = GaussianMixture(
        jnp.ones(1), jnp.zeros((1, 1)), (1.0 + 1.0 / 1200.0) * jnp.ones((1, 1, 1))
    )
    values = jnp.round(std * jax.random.normal(getkey(), (num, 1))) / std
    x = dequantise(values, 1.0 / std, key=getkey())
    bits = bits_per_dim(jax.vmap(mixture.log_prob)(x), 1, 1.0 / std)
    entropy = 0.5 * math.log2(2.0 * math.pi * math.e * std**2)
    assert abs(jnp.mean(bits) - entropy) < 5.0 * jnp.std(bits) / num**0.5 + 2e-3


def test_random_traces_need_a_key(getkey):
    denoiser = GaussianMixtureDenoiser(eight_gaussians(), VP.linear())
    with pytest.raises(ValueError, match="give log_prob a key"):
        log_prob(denoiser, jnp.zeros(2), trace=Hutchinson(2))
    with pytest.raises(ValueError, match="at least one"):
        Hutchinson(0)
    with pytest.raises(ValueError, match="at least one"):
        HutchPP(0)


@pytest.mark.slow
def test_a_solver_that_gives_up_says_so():
    denoiser = GaussianMixtureDenoiser(eight_gaussians(), VP.linear())
    out = log_prob(denoiser, jnp.ones(2), max_steps=2)
    assert out.failed
    assert jnp.isnan(out.value)
