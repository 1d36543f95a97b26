"""The denoiser contract: exact answers, conversions, preconditioning, refusals."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob.diffusion import VE, VP, Preconditioned, from_x0, to_x0
from jaxprob.diffusion._denoiser.parameterisation import PARAMETERISATIONS
from jaxprob.testing import GaussianMixture, GaussianMixtureDenoiser, eight_gaussians

from ..cases import SCHEDULES, times

schedules = pytest.mark.parametrize("name", SCHEDULES)


def skewed_mixture():
    covariances = jnp.array([[[1.0, 0.6], [0.6, 0.5]], [[0.2, 0.0], [0.0, 0.0]]])
    return GaussianMixture(
        jnp.array([0.3, 0.7]), jnp.array([[1.0, -2.0], [0.5, 0.3]]), covariances
    )


@pytest.mark.slow
@schedules
def test_score_is_the_gradient_of_the_log_density(name, x64):
    schedule = SCHEDULES[name]()
    denoiser = GaussianMixtureDenoiser(skewed_mixture(), schedule)
    for t in times(schedule, 7):
        scale = schedule.alpha(t) + schedule.sigma(t)
        x = scale * jax.random.normal(jax.random.key(0), (16, 2))
        score = jax.vmap(lambda x, t=t: denoiser.score(x, t))(x)
        expected = jax.vmap(jax.grad(lambda x, t=t: denoiser.log_prob(x, t)))(x)
        # (alpha D - x) / sigma^2 takes a difference of two numbers of the size of x.
        rounding = 1e-15 * jnp.max(jnp.abs(x)) / schedule.sigma(t) ** 2
        tolerance = 1e-10 * jnp.max(jnp.abs(expected)) + rounding
        assert jnp.max(jnp.abs(score - expected)) < tolerance


@pytest.mark.slow
@schedules
def test_posterior_covariance_is_the_jacobian(name, x64, getkey):
    """Tweedie: Cov[x_0 | x_t] = sigma^2/alpha dD/dx, here against one Gaussian's."""
    schedule = SCHEDULES[name]()
    covariance = jnp.array([[1.0, 0.6], [0.6, 0.5]])
    mixture = GaussianMixture(jnp.ones(1), jnp.zeros((1, 2)), covariance[None])
    denoiser = GaussianMixtureDenoiser(mixture, schedule)
    for t in times(schedule, 5):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        x = jax.random.normal(getkey(), (2,))
        jacobian = jax.jacobian(lambda x, t=t: denoiser(x, t))(x)
        eye = jnp.eye(2)
        expected = jnp.linalg.inv(
            jnp.linalg.inv(covariance) + (alpha / sigma) ** 2 * eye
        )
        assert jnp.allclose(sigma**2 / alpha * jacobian, expected, rtol=1e-9)


@pytest.mark.slow
@schedules
@pytest.mark.parametrize("double", [True, False])
def test_every_parameterisation_comes_back(name, double):
    with jax.enable_x64(double):
        schedule = SCHEDULES[name]()
        keys = jax.random.split(jax.random.key(0))
        x_0, noise = (jax.random.normal(key, (8,)) for key in keys)

        @jax.jit
        @jax.vmap
        def errors(t):
            level = schedule.level(t)
            at = {"x": x_0 + level * noise, "level": level}
            # Passing from noise to data and back loses s or 1/s digits.
            loss = 1.0 + jnp.maximum(level, 1.0 / level)
            out = []
            for a, b in itertools.product(PARAMETERISATIONS, repeat=2):
                value = from_x0(a, x_0, schedule, **at)
                there = from_x0(b, to_x0(a, value, schedule, **at), schedule, **at)
                back = from_x0(a, to_x0(b, there, schedule, **at), schedule, **at)
                error = jnp.max(jnp.abs(back - value)) / jnp.max(jnp.abs(value))
                out.append(error / loss)
            return out

        assert jnp.max(jnp.stack(errors(times(schedule)))) < (1e-12 if double else 1e-5)


@schedules
def test_parameterisations_are_what_their_names_say(name, x64, getkey):
    schedule = SCHEDULES[name]()
    x_0, noise = jax.random.normal(getkey(), (8,)), jax.random.normal(getkey(), (8,))
    t = times(schedule)[8]
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    level = schedule.level(t)
    path = jax.jvp(lambda t: schedule.perturb(x_0, t, noise), (t,), (1.0,))[1]
    expected = {
        "x0": x_0,
        "eps": noise,
        "score": -noise / sigma,
        "v": alpha * noise - sigma * x_0,
        "velocity": path,
    }
    assert set(expected) == set(PARAMETERISATIONS)
    for parameterisation, value in expected.items():
        x = x_0 + level * noise
        got = from_x0(parameterisation, x_0, schedule, x=x, level=level)
        assert jnp.allclose(got, value, rtol=1e-9), parameterisation
        back = to_x0(parameterisation, value, schedule, x=x, level=level)
        assert jnp.allclose(back, x_0, rtol=1e-7), parameterisation


@pytest.mark.slow
@schedules
def test_velocity_is_the_probability_flow(name, x64, getkey):
    schedule = SCHEDULES[name]()
    denoiser = GaussianMixtureDenoiser(skewed_mixture(), schedule)
    for t in times(schedule, 5):
        x = jax.random.normal(getkey(), (2,))
        flow = schedule.drift(t) * x
        flow = flow - schedule.squared_diffusion(t) / 2.0 * denoiser.score(x, t)
        assert jnp.allclose(denoiser.velocity(x, t), flow, rtol=1e-8)


@pytest.mark.slow
@schedules
@pytest.mark.parametrize("predict", ["edm", *PARAMETERISATIONS])
def test_a_perfect_network_gives_the_exact_denoiser(name, predict, x64, getkey):
    """The network is the inverse of the preconditioning, round the exact denoiser.

    It sees the standardised data, and noise is measured in the scale of the data.
    """
    schedule = SCHEDULES[name]()
    exact = GaussianMixtureDenoiser(eight_gaussians(0.2), schedule)
    mean, std = jnp.array([3.0, -40.0]), jnp.array([0.7, 1e-3])
    settings: Any = {"mean_data": np.asarray(mean), "sigma_data": np.asarray(std)}
    for t in times(schedule, 5):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        scale = jnp.sqrt(alpha**2 + sigma**2)

        def net(x, c, cond, *, key, t=t, scale=scale, alpha=alpha, sigma=sigma):
            assert jnp.allclose(c, jnp.log(sigma / alpha) / 4.0)
            y_t = x * scale
            d = exact(y_t, t)
            if predict != "edm":
                return from_x0(predict, d, schedule, x=y_t / alpha, level=sigma / alpha)
            return (d - alpha / scale**2 * y_t) * scale / sigma

        denoiser = Preconditioned(net, schedule, predict, **settings)
        y_t = scale * jax.random.normal(getkey(), (2,))
        x_t = alpha * mean + std * y_t
        assert jnp.allclose(x_t, denoiser.perturb(mean, t, y_t / sigma))
        got = denoiser(x_t, t)
        expected = mean + std * exact(y_t, t)
        assert jnp.allclose(got, expected, rtol=1e-8, atol=1e-10)
        # Differences of x_t and D lose the digits of the mean.
        score = exact.score(y_t, t) / std
        assert jnp.allclose(denoiser.score(x_t, t), score, rtol=1e-3)
        assert jnp.allclose(denoiser.eps(x_t, t), exact.eps(y_t, t), rtol=1e-3)


@pytest.mark.slow
def test_a_network_sees_unit_variance(getkey):
    seen = []

    def net(x, c, cond, *, key):
        seen.append(x)
        return x

    schedule = VE(0.01, 50.0)
    denoiser = Preconditioned(net, schedule, sigma_data=0.3)
    for t in times(schedule, 5):
        x_0 = 0.3 * jax.random.normal(getkey(), (20_000,))
        denoiser(denoiser.perturb(x_0, t, jax.random.normal(getkey(), x_0.shape)), t)
        assert abs(jnp.std(seen[-1]) - 1.0) < 5.0 / jnp.sqrt(2.0 * 20_000)


def test_conditions_and_keys_reach_the_network(getkey):
    def net(x, c, cond, *, key):
        return x * cond["a"] + jax.random.normal(key, x.shape)

    denoiser = Preconditioned(net, VP.linear(), "x0")
    key, x, t = getkey(), jnp.ones(3), jnp.asarray(0.5)
    got = denoiser(x, t, {"a": jnp.asarray(2.0)}, key=key)
    assert jnp.allclose(got, 2.0 * x + jax.random.normal(key, (3,)), rtol=1e-5)


def identity(x, c, cond, *, key):
    return x


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Preconditioned(identity, VP.linear(), "noise"),
            "write one of edm, x0",
        ),
        (lambda: Preconditioned(identity, VP.linear(), sigma_data=0.0), "positive"),
        (
            lambda: Preconditioned(identity, VP.linear(), condition_on="x"),
            "'noise' or 'time'",
        ),
        (
            lambda: Preconditioned(identity, VP.linear())(jnp.ones(2), 1.5),
            r"t=1.5 is outside the times of VP, \[0, 1\]",
        ),
        (
            lambda: Preconditioned(identity, VP.linear())(jnp.ones(2), float("nan")),
            "outside the times",
        ),
        (
            lambda: Preconditioned(lambda x, c, cond, *, key: x[:1], VP.linear())(
                jnp.ones(2), 0.5
            ),
            "gives back the shape",
        ),
        (
            lambda: to_x0("z", jnp.ones(2), VP.linear(), x=jnp.ones(2), level=0.5),
            "'z' is not",
        ),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def nothing_left(x, c, cond, *, key):
    return jnp.zeros_like(x)


@pytest.mark.parametrize("name", ["rectified", "cosine", "vp_linear"])
def test_at_the_last_time_the_denoiser_is_finite(name):
    """Where alpha is 0, x_t is the noise, and a network of zeros says x_0 = 0."""
    schedule = SCHEDULES[name]()
    denoiser = Preconditioned(nothing_left, schedule)
    z, t = jnp.array([0.4, -1.3]), schedule.t_max
    assert jnp.allclose(denoiser(z, t), 0.0, atol=0.01)
    assert jnp.allclose(denoiser.eps(z, t), z, atol=0.01)
    assert jnp.allclose(denoiser.score(z, t), -z, atol=0.01)
    assert jnp.allclose(denoiser.v(z, t), schedule.alpha(t) * z, atol=0.01)
    if name == "rectified":
        assert jnp.allclose(denoiser.velocity(z, t), z, atol=1e-5)


def test_at_the_first_time_the_denoiser_is_the_data():
    x = jnp.array([0.4, -1.3])
    assert jnp.array_equal(Preconditioned(nothing_left, VP.linear())(x, 0.0), x)


@pytest.mark.parametrize("condition_on", ["noise", "time"])
def test_the_network_reads_the_noise_or_the_time(condition_on):
    schedule = VP(lambda t: 0.3 * t + t**2, t_max=3.0)
    seen = []

    def net(x, c, cond, *, key):
        seen.append(float(c))
        return x

    denoiser = Preconditioned(net, schedule, "x0", condition_on=condition_on)
    for t in (0.01, 0.5, 2.9):
        denoiser(jnp.ones(2), t)
        denoiser.denoise(jnp.ones(2), schedule.level(t))
        expected = (
            t if condition_on == "time" else float(jnp.log(schedule.level(t))) / 4
        )
        assert np.allclose(seen[-2:], expected, rtol=1e-5)
