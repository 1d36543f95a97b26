"""Samples that begin at given examples, single steps, and samples with densities."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob.diffusion import (
    DDIM,
    EDM,
    VP,
    AbstractSampler,
    CustomGrid,
    Draw,
    ExpAB,
    FlowSampler,
    Hutchinson,
    KarrasGrid,
    LogLevelGrid,
    ODESampler,
    PairedSource,
    Preconditioned,
    VelocityField,
    add_noise,
    decode_with_log_prob,
    log_prob,
    map_examples,
    sample,
)
from jaxprob.testing import GaussianMixture, GaussianMixtureDenoiser, eight_gaussians
from tests.unhooked import unhooked

from .test_samplers import SAMPLERS

KEY = jax.random.key(0)


def bent(x, c, cond, *, key):
    return jnp.tanh(3.0 * x)


def scaled():
    """A denoiser whose units are not those of its data."""
    mean, scale = np.array([5.0, -3.0]), np.array([10.0, 0.1])
    return Preconditioned(bent, VP.linear(), mean_data=mean, sigma_data=scale)


SETTINGS = {"key": KEY, "num_samples": 3, "shape": (2,)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ode", "expab", "churn", "sde", "langevin"])
def test_a_path_begun_again_where_it_began_is_the_same(name):
    """The start has its own key, so that the noise of the steps is the same too."""
    denoiser, sampler = scaled(), SAMPLERS[name]
    whole = sample(denoiser, sampler, trajectory=True, **SETTINGS)
    assert whole.path is not None
    assert whole.levels is not None
    start = whole.path[:, 0], float(whole.levels[0, 0])
    again = sample(denoiser, sampler, start=start, batch_size=2, **SETTINGS)
    gap = (np.asarray(again.x_0) - np.asarray(whole.x_0)) / np.array([[10.0, 0.1]])
    assert abs(gap).max() < 2e-3


@pytest.mark.slow
def test_a_path_goes_on_from_any_of_its_levels():
    denoiser, sampler = scaled(), DDIM(CustomGrid(np.geomspace(50.0, 0.01, 9)))
    whole = sample(denoiser, sampler, trajectory=True, **SETTINGS)
    assert whole.path is not None
    assert whole.levels is not None
    start = whole.path[:, 5], float(whole.levels[0, 5])
    rest = sample(denoiser, sampler, start=start, **SETTINGS)
    assert np.allclose(rest.x_0, whole.x_0, rtol=1e-4)
    assert (np.asarray(rest.num_evaluations) == 4).all()


@pytest.mark.slow
def test_an_edited_example_follows_the_exact_flow(x64):
    """N(m, C): the flow from level s scales the deviation along each axis."""
    mean, variances, level = jnp.array([1.0, -2.0]), jnp.array([1.5, 0.5]), 0.7
    mixture = GaussianMixture(jnp.ones(1), mean[None], jnp.diag(variances)[None])
    denoiser = GaussianMixtureDenoiser(mixture, EDM())
    x = jnp.array([[0.0, 0.0], [3.0, -1.0], [1.0, 1.0]])
    noisy = add_noise(denoiser, x, level, key=KEY)
    # The mean variance is 1, so that the level is one of the data's units too.
    z = jax.random.normal(jax.random.fold_in(KEY, 1), (2,))
    assert jnp.allclose(noisy[1], x[1] + level * z)
    sampler = ODESampler(
        LogLevelGrid(8, level_min=0.01), adaptive=True, rtol=1e-8, atol=1e-8
    )
    draws = sample(denoiser, sampler, start=(noisy, level), **SETTINGS)
    low = variances + 0.01**2
    there = jnp.sqrt(low / (variances + level**2))[None] * (noisy - mean[None])
    expected = mean[None] + (variances / low)[None] * there
    assert jnp.allclose(draws.x_0, expected, atol=1e-6)


def test_noise_is_in_units_of_the_data():
    x = np.full((4000, 2), [5.0, -3.0], np.float32)
    noisy = np.asarray(add_noise(scaled(), x, 2.0, key=KEY))
    assert np.allclose(noisy.std(0), [20.0, 0.2], rtol=0.06)
    assert np.allclose(noisy.mean(0), [5.0, -3.0], atol=1.6)


def test_a_velocity_field_begins_at_examples_of_any_time():
    def zero(x, c, cond=None, *, key=None):
        return jnp.zeros_like(x)

    field = VelocityField(zero, mean_data=3.0)
    sampler = FlowSampler(PairedSource(), num_steps=4)
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    whole = sample(field, sampler, start=(x, 0.0), trajectory=True, **SETTINGS)
    assert whole.path is not None
    assert np.allclose(whole.path[:, 0], x)
    half: Any = sampler.beginning_at(0.5)
    rest = half.draw(field, (2,), key=KEY, start=whole.path[1, 2], trajectory=True)
    assert np.allclose(rest.levels, np.linspace(0.5, 1.0, 5))
    assert np.allclose(rest.x_0, whole.x_0[1], atol=1e-3)
    with pytest.raises(ValueError, match="give the examples of that time"):
        half.draw(field, (2,), key=KEY)
    with pytest.raises(TypeError, match="PairedSource has no sampler"):
        sample(field, sampler, **SETTINGS)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_steps_are_scanned_single_steps(eta):
    denoiser, levels = scaled(), np.array([20.0, 3.0, 0.5, 0.02, 0.0])
    x = jnp.array([40.0, 1.0])

    @jax.jit
    def scanned(x):
        def step(x, row):
            i, level, after = row
            key = jax.random.fold_in(KEY, i)
            x = DDIM(eta=eta).step(denoiser, x, level, after, key=key)
            return x, None

        table = jnp.asarray(levels, jnp.float32)
        rows = jnp.arange(len(levels) - 1), table[:-1], table[1:]
        return jax.lax.scan(step, x, rows)[0]

    whole = DDIM(eta=eta).steps(denoiser, x, levels, key=KEY)
    assert jnp.allclose(scanned(x), whole, rtol=1e-4)
    if eta > 0.0:
        with pytest.raises(ValueError, match="this sampler adds noise"):
            DDIM(eta=eta).step(denoiser, x, 1.0, 0.5)


@pytest.mark.slow
def test_a_sample_comes_with_its_density(x64):
    """Both are those of one solve, and `log_prob` of the sample is another one."""
    denoiser = GaussianMixtureDenoiser(eight_gaussians(0.25), VP.linear())
    settings: Any = {"rtol": 1e-8, "atol": 1e-8, "level_min": 0.01}
    latents = jax.random.normal(KEY, (3, 2))
    out = map_examples(decode_with_log_prob, denoiser, latents, **settings)
    there = map_examples(log_prob, denoiser, out.x, **settings)
    assert jnp.allclose(out.value, there.value, atol=1e-5)
    assert jnp.allclose(there.latent, latents, atol=1e-5)
    noised = denoiser.mixture.noised(jnp.asarray(1.0), jnp.asarray(0.01))
    assert jnp.allclose(out.value, jax.vmap(noised.log_prob)(out.x), atol=1e-3)
    assert not out.failed.any()
    with pytest.raises(ValueError, match="give decode_with_log_prob a key"):
        decode_with_log_prob(denoiser, latents[0], trace=Hutchinson(2))


class NoStart(AbstractSampler):
    """A sampler as a user may write it, without `start`."""

    def draw(self, denoiser, shape, *, key, cond=None, trajectory=False):
        x = jax.random.normal(key, shape)
        return Draw(x, jnp.asarray(1), jnp.asarray(False))


X = np.ones((3, 2), np.float32)


def test_a_sampler_of_a_users_needs_no_start():
    assert sample(scaled(), NoStart(), **SETTINGS).x_0.shape == (3, 2)


@pytest.mark.parametrize(
    ("sampler", "start", "error", "message"),
    [
        (ExpAB(4), X, TypeError, r"give \(x, noise level\)"),
        (ExpAB(4), (X[:2], 1.0), ValueError, r"shape \(2, 2\)"),
        (ExpAB(4), (X * np.nan, 1.0), ValueError, "row 0"),
        (ExpAB(4), (X, 0.0), ValueError, r"start\[1\] = 0"),
        (ExpAB(4), (X, 1e-3), ValueError, "not above the level at which"),
        (ExpAB(4), (X, 1e5), ValueError, "noise levels up to"),
        (ExpAB(CustomGrid([3.0, 1.0])), (X, 0.5), ValueError, "last level of the grid"),
        (NoStart(), (X, 1.0), TypeError, r"beginning_at\(level\)"),
    ],
)
def test_an_impossible_start_is_an_error(sampler, start, error, message):
    with unhooked(), pytest.raises(error, match=message):
        sample(scaled(), sampler, start=start, **SETTINGS)


def test_a_grid_begins_at_another_level():
    grid = KarrasGrid(6, level_min=0.1).beginning_at(2.0)
    levels = grid.levels(VP.linear(), (2,))
    assert len(levels) == 7
    assert np.allclose(levels[[0, -1]], [2.0, 0.1])
    assert CustomGrid([3.0, 2.0, 1.0]).beginning_at(2.0).values == (2.0, 1.0)
