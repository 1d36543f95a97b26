"""Methods that are exact for no data, against their formulas."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxprob.diffusion import (
    DPS,
    EDM,
    TMPD,
    DiffPIR,
    Observation,
    Replacement,
)
from jaxprob.testing import GaussianMixture, GaussianMixtureDenoiser

MATRIX = np.float32([[1.0, 0.5, 0.0], [0.0, -1.0, 2.0], [3.0, 0.0, 1.0]])
Y, NOISE = np.float32([0.5, -1.0, 7.0]), np.float32([0.2, 0.5, 0.3])
X, LEVEL = jnp.asarray([0.4, -0.3, 1.1]), 0.7


def denoiser():
    covariance = jnp.diag(jnp.asarray([1.0, 0.3, 2.0]))
    means = jnp.asarray([[0.1, -0.2, 0.3]])
    mixture = GaussianMixture(jnp.ones(1), means, covariance[None])
    return GaussianMixtureDenoiser(mixture, EDM())


def operator(x):
    return MATRIX @ x


def test_dps_is_guidance_by_the_residual_of_what_was_measured():
    prior = denoiser()
    missing = np.array([False, False, True])
    observation = Observation(Y, operator, noise=NOISE, missing=missing)
    posterior = DPS(prior, observation, strength=0.5)

    @jax.jit
    def expected(x):
        def size(x):
            residual = (Y - MATRIX @ prior.denoise(x, LEVEL)) / NOISE
            return jnp.linalg.norm(residual[:2])

        step = 0.5 * np.sqrt(2.0) * LEVEL**2 * jax.grad(size)(x)
        return prior.denoise(x, LEVEL) - step

    found = jax.jit(lambda x: posterior.denoise(x, LEVEL))(X)
    assert jnp.allclose(found, expected(X), rtol=1e-4)


def test_diffpir_is_the_minimum_of_its_objective():
    prior = denoiser()
    posterior = DiffPIR(prior, Observation(Y, operator, noise=NOISE), lam=3.0)
    found = jax.jit(lambda x: posterior.denoise(x, LEVEL))(X)

    @jax.jit
    @jax.grad
    def gradient(v):
        near = jnp.sum((v - prior.denoise(X, LEVEL)) ** 2)
        far = jnp.sum(((Y - MATRIX @ v) / NOISE) ** 2)
        return far + 3.0 / LEVEL**2 * near

    assert jnp.abs(gradient(found)).max() < 1e-3 * jnp.abs(gradient(X)).max()


def test_replacement_agrees_with_the_measurement_and_leaves_the_rest():
    prior = denoiser()
    settings = {"noise": 0.0, "linear": True, "shape": (3,)}
    shown = Observation(Y[:2], lambda x: x[:2], **settings)
    found = eqx.filter_jit(Replacement(prior, shown).denoise)(X, LEVEL)
    assert jnp.allclose(found[:2], Y[:2], atol=1e-5)
    assert jnp.allclose(found[2], prior.denoise(X, LEVEL)[2], atol=1e-5)
    mixed = Observation(Y[:2], lambda x: MATRIX[:2] @ x, **settings)
    found = eqx.filter_jit(Replacement(prior, mixed).denoise)(X, LEVEL)
    assert jnp.allclose(MATRIX[:2] @ found, Y[:2], atol=1e-4)
    # The change has no part in the null space of A.
    null = np.linalg.svd(MATRIX[:2])[2][2]
    assert jnp.abs(null @ (found - prior.denoise(X, LEVEL))) < 1e-5


def test_the_diagonal_of_tmpd_is_exact_for_a_mask_of_independent_entries():
    prior = denoiser()
    shown = Observation(Y[:2], lambda x: x[:2], noise=0.3)
    found = eqx.filter_jit(TMPD(prior, shown, diagonal=True).denoise)(X, LEVEL)
    exact = eqx.filter_jit(prior.mixture.condition)(
        jnp.eye(3)[:2], jnp.asarray(Y[:2]), 0.3
    )
    expected = eqx.filter_jit(GaussianMixtureDenoiser(exact, EDM()).denoise)(X, LEVEL)
    assert jnp.allclose(found, expected, rtol=1e-4)
