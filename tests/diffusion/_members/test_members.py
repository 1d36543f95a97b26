"""Disagreement of denoisers about samples and densities, with exact answers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob.diffusion import (
    EDM,
    Averaged,
    ExpAB,
    Scaled,
    log_prob_members,
    sample,
    sample_members,
)
from jaxprob.testing import GaussianMixture, GaussianMixtureDenoiser

VARIANCES = np.array([0.6, 1.0, 1.5])


def gaussian(variance):
    mixture = GaussianMixture(
        jnp.ones(1), jnp.zeros((1, 2)), jnp.asarray(variance) * jnp.eye(2)[None]
    )
    return GaussianMixtureDenoiser(mixture, EDM())


@pytest.fixture(scope="module")
def averaged():
    members = [Scaled(gaussian(v), 5.0, jnp.array([2.0, 3.0])) for v in VARIANCES]
    return Averaged.of(members)


@pytest.fixture(scope="module")
def draws(averaged):
    return sample_members(
        averaged, ExpAB(12), key=jax.random.key(0), num_samples=6, shape=(2,)
    )


def test_members_carry_the_same_noise_to_samples(averaged, draws):
    """A Gaussian of variance c makes sqrt(c) z of the noise z, up to the last level."""
    z = (np.asarray(draws.x_0[1]) - 5.0) / np.array([2.0, 3.0])
    exact = 5.0 + np.sqrt(VARIANCES)[:, None, None] * z * np.array([2.0, 3.0])
    np.testing.assert_allclose(draws.x_0, exact, atol=0.02)
    spread = np.abs(z) * np.std(np.sqrt(VARIANCES), ddof=1)
    np.testing.assert_allclose(draws.std, spread * np.array([2.0, 3.0]), atol=0.02)
    in_units = np.sqrt(np.mean(spread**2, axis=1))
    np.testing.assert_allclose(draws.doubt, in_units, atol=0.01)


def test_one_member_alone_has_the_samples_that_the_doubts_are_of(averaged, draws):
    member = jax.tree.map(lambda leaf: leaf[1], averaged.members)
    alone = sample(member, ExpAB(12), key=jax.random.key(0), num_samples=6, shape=(2,))
    np.testing.assert_allclose(draws.x_0[1], alone.x_0, rtol=1e-6)


def test_the_doubtful_are_those_far_out(draws):
    z = (np.asarray(draws.x_0[1]) - 5.0) / np.array([2.0, 3.0])
    far = np.argsort(np.linalg.norm(z, axis=1))
    np.testing.assert_array_equal(draws.least_doubtful(1.0), far)
    np.testing.assert_array_equal(draws.least_doubtful(0.5), far[:3])
    assert len(draws.least_doubtful(0.01)) == 1


def test_densities_have_error_bars(averaged):
    x = np.array([[5.0, 5.0], [8.0, 1.0], [0.0, 9.0]], np.float32)
    found = log_prob_members(averaged, x, level_min=0.01)
    y = (x - 5.0) / np.array([2.0, 3.0])
    c = VARIANCES[:, None] + 1e-4 * VARIANCES[:, None]
    square = np.sum(y**2, axis=1)[None]
    exact = -0.5 * square / c - np.log(2.0 * np.pi * c) - np.log(6.0)
    np.testing.assert_allclose(found.value, exact, atol=2e-3)
    np.testing.assert_allclose(found.std, np.std(exact, axis=0, ddof=1), atol=2e-3)
    np.testing.assert_allclose(found.mean, np.mean(exact, axis=0), atol=2e-3)
    mixture = np.log(np.mean(np.exp(exact), axis=0))
    np.testing.assert_allclose(found.log_mean, mixture, atol=2e-3)
    low, high = found.interval(0.5)
    np.testing.assert_allclose(low, np.quantile(exact, 0.25, axis=0), atol=2e-3)
    np.testing.assert_allclose(high, np.quantile(exact, 0.75, axis=0), atol=2e-3)


def test_bad_input_is_named(averaged, draws):
    settings = {"key": jax.random.key(0), "num_samples": 2, "shape": (2,)}
    with pytest.raises(ValueError, match="1 member, which disagrees with nothing"):
        sample_members(Averaged.of([gaussian(1.0)]), ExpAB(4), **settings)
    single: Any = gaussian(1.0)
    with pytest.raises(TypeError, match="averaged"):
        log_prob_members(single, np.zeros((1, 2)))
    with pytest.raises(ValueError, match="own_conditions"):
        log_prob_members(Averaged(averaged.members, True), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="fraction=0"):
        draws.least_doubtful(0.0)
    with pytest.raises(ValueError, match="mass=1"):
        log_prob_members(averaged, np.zeros((1, 2), np.float32)).interval(1.0)


def test_the_member_that_fails_is_named():
    broken = Averaged.of([gaussian(1.0), gaussian(np.nan)])
    with pytest.raises(RuntimeError, match="finite") as found:
        sample_members(
            broken, ExpAB(4), key=jax.random.key(0), num_samples=2, shape=(2,)
        )
    assert "This is member 1 of 2." in found.value.__notes__
