"""Data in any units: the same samples, densities and losses as of standardised data."""

import math
import re
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import jaxprob
from jaxprob.diffusion import (
    DDIM,
    EDM,
    VE,
    VP,
    AbstractDenoiser,
    AbstractDenoiserWrapper,
    AbstractSchedule,
    Cosine,
    DenoisingLoss,
    DPMSolverPP,
    EDMWeighting,
    ExpAB,
    FocusedGrid,
    Guided,
    Heun,
    Hutchinson,
    LogNormalLevels,
    ODESampler,
    Preconditioned,
    PredictorCorrector,
    SDESampler,
    Thresholded,
    decode,
    encode,
    log_prob,
    map_examples,
    sample,
)
from jaxprob.diffusion._denoiser.last_level import last_level
from jaxprob.testing import GaussianMixture, GaussianMixtureDenoiser, eight_gaussians
from tests.unhooked import unhooked

from ..cases import SCHEDULES

slow = pytest.mark.slow
KEY = jax.random.key(0)
EIGHT = [
    *("vp_linear", "vp_kidger", "ve", "sub_vp", "edm", "cosine", "rectified", "shifted")
]
SAMPLERS = {
    "ode": ODESampler(),
    "expab": ExpAB(8),
    "dpm": DPMSolverPP(8),
    "ddpm": DDIM(8, eta=1.0),
    "heun": Heun(4, churn=2.0),
    "sde": SDESampler(10),
    "langevin": PredictorCorrector(4),
}


def gaussian(mean, std, dim=2):
    return GaussianMixture(
        jnp.ones(1), jnp.full((1, dim), mean), std**2 * jnp.eye(dim)[None]
    )


def rescaled(mixture, scale, shift):
    return GaussianMixture(
        mixture.weights, scale * mixture.means + shift, scale**2 * mixture.covariances
    )


def silent(x, c, cond, *, key):
    return jnp.zeros_like(x)


def bent(x, c, cond, *, key):
    return jnp.tanh(2.0 * x)


class Exact(AbstractDenoiser):
    """Data N(mean[cond], cov) of one axis, in the base of the eigenvectors."""

    schedule: AbstractSchedule
    mean: jax.Array
    values: jax.Array
    vectors: jax.Array

    def denoise(self, x, level, cond=None, *, key=None):
        mean = self.mean if cond is None else self.mean[cond]
        gain = self.values / (self.values + level**2)
        residual = self.vectors.T @ (x - mean)
        return mean + self.vectors @ (gain * residual)


class Brightness(AbstractDenoiser):
    """Standardised images whose mean grey value has the variance `share`."""

    schedule: AbstractSchedule
    share: float

    def denoise(self, x, level, cond=None, *, key=None):
        def gain(variance):
            return variance / (variance + level**2)

        mean = jnp.mean(x)
        along = gain(1.0 - self.share + self.share * x.size) * mean
        return gain(1.0 - self.share) * (x - mean) + along


@slow
@pytest.mark.parametrize("name", EIGHT)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(exponent=st.floats(-5.0, 5.0), shift=st.floats(-3.0, 3.0))
def test_samples_of_scaled_data_are_scaled_samples(name, exponent, shift):
    """To the last bits: one program for all scales, whose numbers are the same."""
    unit, draw = _unit_samples(name)
    scale = jnp.asarray(10.0**exponent)
    got = draw(scale, scale * shift)
    assert jnp.allclose(got / scale - shift, unit, atol=1e-4)


def _unit_samples(name, cache={}):  # noqa: B006
    if name not in cache:
        mixture, schedule = eight_gaussians(0.3), SCHEDULES[name]()

        @jax.jit
        def draw(scale, shift):
            denoiser = GaussianMixtureDenoiser(
                rescaled(mixture, scale, shift), schedule
            )
            keys = jax.random.split(KEY, 8)
            return jax.vmap(lambda key: ExpAB(8)(denoiser, (2,), key=key))(keys)

        cache[name] = draw(jnp.asarray(1.0), jnp.asarray(0.0)), draw
    return cache[name]


@slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_follows_the_scale(name):
    sampler, draws = SAMPLERS[name], []
    for scale in (1e-3, 1.0, 100.0):
        net = Preconditioned(bent, EDM(), sigma_data=scale, mean_data=3.0 * scale)
        draw = sample(net, sampler, key=KEY, num_samples=6, shape=(2,), trajectory=True)
        assert draw.path is not None
        draws.append((draw.x_0 / scale - 3.0, draw.path / scale - 3.0))
    for x_0, path in draws:
        assert jnp.allclose(x_0, draws[1][0], atol=1e-3)
        assert jnp.allclose(path, draws[1][1], rtol=1e-3, atol=2e-3)


@slow
@pytest.mark.parametrize(
    ("std", "schedule"),
    [(1e-3, EDM()), (100.0, VE()), (1e-3, VP.linear()), (100.0, Cosine())],
)
def test_the_exact_denoiser_gives_the_data_in_any_units(std, schedule):
    mixture = gaussian(2.0 * std, std)
    denoiser = GaussianMixtureDenoiser(mixture, schedule)
    x = sample(denoiser, ExpAB(12), key=KEY, num_samples=4000, shape=(2,)).x_0
    # Eight thousand numbers: a standard deviation is known to 1 / sqrt(16,000).
    assert abs(float(jnp.std(x)) / std - 1.0) < 5.0 / 16_000**0.5 + 1e-3
    assert abs(float(jnp.mean(x)) / std - 2.0) < 5.0 / 8000**0.5
    out = log_prob(denoiser, jnp.full((2,), 3.0 * std))
    assert abs(out.value - mixture.log_prob(jnp.full((2,), 3.0 * std))) < 1e-3
    assert out.prior_mismatch < 1e-3


@slow
def test_losses_do_not_depend_on_the_units(getkey):
    loss, x = DenoisingLoss(EDMWeighting(), LogNormalLevels()), np.random.default_rng(0)
    x = x.normal(size=(64, 2)).astype(np.float32)
    values = [
        loss(
            Preconditioned(
                bent, VP.linear(), sigma_data=np.array([s, 10.0 * s]), mean_data=m
            ),
            jnp.asarray(x * np.array([s, 10.0 * s], np.float32) + np.float32(m)),
            key=KEY,
        )[0]
        for s, m in ((1.0, 0.0), (1e-3, 0.0), (100.0, 50.0))
    ]
    assert np.allclose(values, values[0], rtol=1e-4)


# What samples and densities begin at


@slow
@pytest.mark.parametrize("side", [64, 128])
def test_images_keep_their_spread_of_brightness(side):
    """Its variance is a quarter of the number of pixels; the schedule ends at 80."""
    denoiser, num = Brightness(EDM(), 0.25), 24
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(num))

    @jax.jit
    @jax.vmap
    def brightness(key):
        # A flow is deterministic: the brightness is that of the noise, times a half.
        noise = jax.random.normal(jax.random.split(key)[0], (side, side))
        image = ExpAB(18)(denoiser, (1, side, side), key=key)
        return jnp.mean(noise) * side, jnp.mean(image)

    noise, of_image = brightness(keys)
    assert abs(jnp.std(of_image) / jnp.std(noise) / 0.5 - 1.0) < 0.02
    law = jax.jit(lambda: last_level(denoiser, 80.0, (1, side, side), known=False))()
    assert jnp.max(law.extra) == pytest.approx(0.25 * side**2, rel=1e-3)
    assert law.variance == pytest.approx(80.0**2 + 0.75, rel=1e-4)


@pytest.mark.parametrize(
    ("schedule", "sampler", "mean", "std"),
    [
        (VP(lambda t: t, 1.0), ExpAB(20), 2.0, 0.3),
        (Cosine(), ExpAB(FocusedGrid(20, level_max=1.0)), 0.0, 1.0),
        (EDM(0.5, t_min=0.002), DDIM(60, eta=1.0), -5.0, 1.0),
    ],
)
def test_a_low_end_does_not_narrow_gaussian_data(schedule, sampler, mean, std):
    """The last level's own mean and covariance are what samples begin with."""
    denoiser = Exact(schedule, jnp.full(1, mean), jnp.full(1, std**2), jnp.eye(1))
    for of in (denoiser, GaussianMixtureDenoiser(gaussian(mean, std, 1), schedule)):
        x = sample(of, sampler, key=KEY, num_samples=4000, shape=(1,)).x_0
        assert abs(float(jnp.std(x)) / std - 1.0) < 5.0 / 8000**0.5 + 0.01
        assert abs(float(jnp.mean(x)) - mean) < 5.0 * std / 4000**0.5


def test_a_low_end_is_warned_of_where_the_data_are_not_gaussian():
    denoiser = GaussianMixtureDenoiser(eight_gaussians(), EDM(0.8, t_min=0.002))
    with pytest.warns(UserWarning, match=r"of EDM, is 0\.8 .* nats") as caught:
        sample(denoiser, DDIM(2), key=KEY, num_samples=2, shape=(2,))
    stated = re.search(r"up to (\S+) nats", str(caught[0].message))
    assert stated is not None
    nats = float(stated[1])
    assert 0.05 < nats < 100.0


def test_a_scale_that_is_not_told_is_warned_of():
    denoiser = Exact(EDM(), jnp.zeros(3), jnp.full(3, 1e-6), jnp.eye(3))
    with pytest.warns(UserWarning, match=r"standard deviation of 0\.001"):
        sample(denoiser, DDIM(2), key=KEY, num_samples=2, shape=(3,))
    wide = Exact(EDM(), jnp.zeros(3), jnp.full(3, 1e4), jnp.eye(3))
    with pytest.warns(UserWarning, match=r"standard deviation of 1e\+02"):
        x = sample(wide, ExpAB(30), key=KEY, num_samples=2000, shape=(3,)).x_0
    assert abs(float(jnp.std(x)) / 100.0 - 1.0) < 5.0 / 12_000**0.5 + 0.01


@slow
@pytest.mark.parametrize("schedule", [VE(), EDM()])
def test_densities_of_conditionals_are_centred(schedule):
    """Ten dimensions, means of +-1.5: the prior N(0, s^2) was .25 nats off."""
    means = 1.5 * jnp.array([[1.0] * 10, [-1.0] * 10])
    denoiser = Exact(schedule, means, jnp.full(10, 0.04), jnp.eye(10))
    noise = jax.random.normal(KEY, (8, 10))
    cond = jnp.arange(8) % 2
    x = means[cond] + 0.2 * noise
    out = map_examples(log_prob, denoiser, x, cond=cond, rtol=1e-6, atol=1e-6)
    exact = jnp.sum(jax.scipy.stats.norm.logpdf(x, means[cond], 0.2), axis=1)
    assert jnp.max(jnp.abs(out.value - exact)) < 2e-3
    assert jnp.max(out.prior_mismatch) < 2e-3


@slow
def test_the_mismatch_is_honest_where_the_data_are_not_gaussian(x64):
    """Two far modes and a low end: the stated error is the size of the error."""
    mixture = GaussianMixture(
        jnp.array([0.3, 0.7]), jnp.array([[-1.2], [0.6]]), jnp.full((2, 1, 1), 0.05)
    )
    for high in (2.0, 10.0):
        denoiser = GaussianMixtureDenoiser(mixture, EDM(high, t_min=0.002))
        x = jax.vmap(lambda key: mixture.sample(key=key))(jax.random.split(KEY, 64))
        out = map_examples(log_prob, denoiser, x, rtol=1e-7, atol=1e-7)
        scale = float(np.asarray(denoiser.standardised()[1].scale))
        noised = mixture.noised(jnp.asarray(1.0), jnp.asarray(0.002 * scale))
        error = out.value - jax.vmap(noised.log_prob)(x)
        stated = jnp.sqrt(jnp.mean(out.prior_mismatch**2))
        assert jnp.sqrt(jnp.mean(error**2)) < 2.0 * stated
        assert stated < 10.0 * jnp.sqrt(jnp.mean(error**2))


# Columns, wrappers


def test_columns_and_channels_have_their_own_scale():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(500, 3)) * [1.0, 1e-3, 50.0] + [0.0, 7.0, -200.0]
    fitted = Preconditioned.fitted(silent, EDM(), table)
    assert np.allclose(fitted.sigma_data, table.std(0))
    assert np.allclose(fitted.mean_data, table.mean(0))
    images = rng.normal(size=(20, 2, 4, 4)) * np.array([1.0, 9.0])[:, None, None]
    fitted = Preconditioned.fitted(silent, EDM(), images)
    assert np.allclose(fitted.sigma_data, images.std((0, 2, 3)))
    assert fitted(jnp.ones((2, 4, 4)), 1.0).shape == (2, 4, 4)
    for rows in (table[:, :, None] * np.ones(4), table[:, 0]):
        assert isinstance(Preconditioned.fitted(silent, EDM(), rows).sigma_data, float)
    shared = Preconditioned.fitted(silent, EDM(), table, per_column=False)
    assert shared.sigma_data == pytest.approx(table.std())
    table[:, 1] = 4.0
    constant = Preconditioned.fitted(silent, EDM(), table.astype(np.float32))
    assert np.min(np.asarray(constant.sigma_data)) > 0.5
    with pytest.raises(ValueError, match="constant"):
        Preconditioned.fitted(silent, EDM(), np.ones((4, 2)))
    three = Preconditioned(silent, EDM(), sigma_data=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"shape \(4,\) where .* have 3 numbers"):
        three(jnp.ones(4), 1.0)


@slow
def test_a_table_is_sampled_and_its_density_has_the_jacobian():
    """A silent network is the best linear denoiser of independent columns."""
    std, mean = np.array([1.0, 1e-3, 50.0]), np.array([0.0, 0.1, -200.0])
    denoiser = Preconditioned(silent, VP.linear(), sigma_data=std, mean_data=mean)
    x = np.asarray(
        sample(denoiser, ExpAB(12), key=KEY, num_samples=4000, shape=(3,)).x_0
    )
    assert (np.abs(x.std(0) / std - 1.0) < 5.0 / 8000**0.5 + 1e-3).all()
    assert (np.abs(x.mean(0) - mean) < 5.0 * std / 4000**0.5).all()
    out = map_examples(log_prob, denoiser, x[:20])
    exact = (
        -0.5 * ((x[:20] - mean) / std) ** 2 - np.log(std) - math.log(2 * math.pi) / 2
    )
    assert np.max(np.abs(np.asarray(out.value) - exact.sum(1))) < 5e-3
    back = map_examples(decode, denoiser, map_examples(encode, denoiser, x[:20]))
    assert (np.abs(np.asarray(back) - x[:20]) < 1e-2 * std).all()


def test_a_column_of_another_scale_is_warned_of():
    x = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    x[:, 1] *= 1e-3
    loss = DenoisingLoss()
    with pytest.warns(UserWarning, match=r"column 1 .* 1 of 2 columns"):
        loss.check(Preconditioned(silent, EDM(), sigma_data=0.7), x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss.check(Preconditioned.fitted(silent, EDM(), x), x)


class Halved(AbstractDenoiserWrapper):
    """A wrapper as a user may write it: the mean of an answer and 0."""

    denoiser: AbstractDenoiser

    def denoise(self, x, level, cond=None, *, key=None):
        answer = self.denoiser.denoise
        return 0.5 * (answer(x, level, cond) + answer(x, level, cond))


class Forgetful(AbstractDenoiser):
    denoiser: AbstractDenoiser
    schedule: AbstractSchedule

    def denoise(self, x, level, cond=None, *, key=None):
        return self.denoiser.denoise(x, level, cond)


def test_wrappers_forward_the_units():
    inner = Preconditioned(bent, EDM(), sigma_data=30.0, mean_data=100.0)
    plain = sample(inner, DDIM(4), key=KEY, num_samples=3, shape=(2,)).x_0
    wide = Thresholded(inner, -1e6, 1e6)
    for wrapper in (Guided(inner, 2.0), wide, Halved(inner), Halved(Guided(wide, 1.0))):
        assert wrapper.noise_units().scale == 30.0
        x = sample(wrapper, DDIM(4), key=KEY, num_samples=3, shape=(2,)).x_0
        assert jnp.allclose(x, plain, rtol=1e-4)
    narrow = Thresholded(inner, 90.0, 110.0)
    x = sample(narrow, DDIM(4), key=KEY, num_samples=3, shape=(2,)).x_0
    assert ((x >= 90.0) & (x <= 110.0)).all()
    assert jnp.abs(plain - 100.0).max() > 10.0
    with pytest.raises(TypeError, match="subclass of AbstractDenoiserWrapper"):
        sample(Forgetful(inner, EDM()), DDIM(4), key=KEY, num_samples=3, shape=(2,))
    unit = Forgetful(Preconditioned(bent, EDM()), EDM())
    assert sample(unit, DDIM(4), key=KEY, num_samples=3, shape=(2,)).x_0.shape == (3, 2)


# Many rows


@slow
def test_probes_of_two_examples_are_not_shared():
    """The error of a mean over rows, with one key for all, is a mean of errors."""
    a = np.random.default_rng(0).normal(size=(16, 16))
    c = a @ a.T * 16.0 / np.trace(a @ a.T)
    mixture = GaussianMixture(
        jnp.ones(1), jnp.zeros((1, 16)), jnp.asarray(c, jnp.float32)[None]
    )
    denoiser = GaussianMixtureDenoiser(mixture, VP.linear())
    x = jax.vmap(lambda key: mixture.sample(key=key))(
        jax.random.split(jax.random.key(5), 200)
    )
    settings = {"trace": Hutchinson(4), "rtol": 1e-4, "atol": 1e-4}
    f = jax.jit(jax.vmap(lambda x: log_prob(denoiser, x, key=KEY, **settings).value))
    error = f(x) - jax.vmap(mixture.log_prob)(x)
    spread = float(jnp.std(error))
    assert spread > 1.0
    assert abs(float(jnp.mean(error))) < 5.0 * spread / 200**0.5
    # One example and one key are one number.
    assert f(x[:1])[0] == f(x[:1])[0]
    assert f(jnp.stack([x[0], x[0]])).std() < 1e-3


@slow
def test_many_rows_are_one_program_and_the_numbers_of_each():
    traces = []

    def net(x, c, cond, *, key):
        traces.append(1)
        return jnp.tanh(x)

    denoiser = Preconditioned(net, VP.linear(), sigma_data=3.0)
    x = jax.random.normal(KEY, (5, 2))
    settings = {"trace": Hutchinson(2), "key": KEY, "rtol": 1e-3, "atol": 1e-3}
    whole = map_examples(log_prob, denoiser, x, **settings)
    latents = map_examples(encode, denoiser, x)
    first = len(traces)
    map_examples(log_prob, denoiser, x + 1.0, **settings)
    map_examples(encode, denoiser, x + 1.0)
    assert len(traces) == first
    parts = map_examples(log_prob, denoiser, x, batch_size=2, **settings)
    layout = jaxprob.Layout(data=2)
    shared = map_examples(
        log_prob, denoiser, x, batch_size=2, layout=layout, **settings
    )
    for out in (parts, shared):
        assert jnp.allclose(out.value, whole.value, atol=1e-4)
        assert out.latent.shape == (5, 2)
    back = map_examples(decode, denoiser, latents, batch_size=3)
    assert jnp.allclose(back, x, atol=2e-2)
    # One example alone, and a vmap as one would write it: compiled once, too.
    alone = encode(denoiser, x[3])
    assert jnp.allclose(alone, latents[3], atol=1e-4)
    first = len(traces)
    encode(denoiser, x[4])
    assert len(traces) == first


@slow
def test_samples_on_several_devices_are_those_on_one():
    denoiser = GaussianMixtureDenoiser(eight_gaussians(), VP.linear())
    settings = {"key": KEY, "num_samples": 7, "shape": (2,)}
    one = sample(denoiser, ExpAB(6), **settings)
    layout = jaxprob.Layout(data=4)
    four = sample(denoiser, ExpAB(6), layout=layout, **settings)
    assert jnp.allclose(one.x_0, four.x_0, atol=1e-5)
    parts = sample(denoiser, ExpAB(6), layout=layout, batch_size=3, **settings)
    assert jnp.allclose(one.x_0, parts.x_0, atol=1e-5)


X = np.zeros((3, 2), np.float32)
NO_LAYOUT: Any = 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: map_examples(log_prob, d, jnp.zeros((0, 2))), "at least one"),
        (lambda d: map_examples(encode, d, X, batch_size=0), "batch_size=0"),
        (lambda d: map_examples(encode, d, X, cond=jnp.zeros(2)), "2 rows for"),
        (lambda d: map_examples(encode, d, X, layout=NO_LAYOUT), "give a jaxprob"),
    ],
)
def test_slips_with_many_rows_are_told(call, message):
    with unhooked(), pytest.raises((ValueError, TypeError), match=message):
        call(Preconditioned(bent, VP.linear()))


def test_gaussians_of_any_level_have_their_units_undone():
    """E[x_0 | x_t] of the standardised mixture is that of the mixture, standardised."""
    mixture = GaussianMixture(
        jnp.array([0.4, 0.6]),
        jnp.array([[5.0, 1.0], [9.0, -3.0]]),
        jnp.broadcast_to(jnp.array([[4.0, 1.0], [1.0, 2.0]]), (2, 2, 2)),
    )
    denoiser = GaussianMixtureDenoiser(mixture, EDM(1e4, t_min=1e-4))
    unit, units = denoiser.standardised()
    y, s = jnp.array([0.3, -1.1]), 0.7
    scale = units.scale
    assert isinstance(scale, jax.Array)
    expected = units.to_unit(denoiser(units.to_data(y), s * scale))
    assert jnp.allclose(unit(y, s), expected, rtol=1e-4)
    assert units.log_volume(y) == pytest.approx(2.0 * math.log(scale), rel=1e-5)
