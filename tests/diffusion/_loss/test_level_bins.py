"""Losses by noise level, as metrics of training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprob
from jaxprob import diffusion
from jaxprob.diffusion._loss.level_bins import level_bins
from jaxprob.testing import GaussianMixture, GaussianMixtureDenoiser

DIM, BINS = 4, 3
NORMAL = GaussianMixture(jnp.ones(1), jnp.zeros((1, DIM)), jnp.eye(DIM)[None])
DENOISER = GaussianMixtureDenoiser(NORMAL, diffusion.EDM())
X = np.random.default_rng(0).normal(size=(1500, DIM)).astype(np.float32)


@pytest.mark.slow
def test_the_parts_are_the_errors_at_their_levels_and_add_up():
    times = diffusion.LogNormalLevels()
    loss = diffusion.DenoisingLoss("x0", times, num_bins=BINS)
    batch = jaxprob.Batch(X, np.arange(len(X)) < 1400)
    key = jax.random.key(0)
    value, metrics = loss(DENOISER, batch, key=key)
    parts = np.array([metrics[f"loss_bin_{i}"] for i in range(BINS)])
    assert np.isclose(parts.mean(), value, rtol=1e-5)
    plain = diffusion.DenoisingLoss("x0", times)(DENOISER, batch, key=key)
    assert np.isclose(value, plain[0], rtol=1e-6)
    assert plain[1] == {}
    # The posterior variance of a standard normal at the levels of each bin.
    u = (np.arange(3000) + 0.5) / 3000
    t = jax.vmap(lambda u: times.quantile(DENOISER.schedule, u))(jnp.float32(u))
    level = np.asarray(jax.vmap(DENOISER.schedule.level)(t), np.float64)
    exact = (level**2 / (1 + level**2)).reshape(BINS, -1).mean(1)
    # 467 rows of 4 coordinates in a bin: a standard error of 3.3 %.
    assert np.allclose(parts, exact, rtol=0.12)
    assert np.all(np.diff(exact) > 0.15)


def test_a_bin_without_a_row_is_unbiased_over_batches():
    errors = jnp.asarray([1.0, 2.0, 4.0, 8.0])
    u, mask = jnp.asarray([0.1, 0.2, 0.9, 1.0]), jnp.asarray([True, True, True, False])
    found = level_bins(errors, u, mask, 3)
    assert {k: float(v) for k, v in found.items()} == pytest.approx(
        {"loss_bin_0": 3.0, "loss_bin_1": 0.0, "loss_bin_2": 4.0}
    )


def test_bins_need_the_errors_of_rows():
    with pytest.raises(ValueError, match=r"num_bins=3: .*without batch_size"):
        diffusion.DenoisingLoss(num_bins=3, batch_size=8)
