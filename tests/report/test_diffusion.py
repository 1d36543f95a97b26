"""An exact diffusion model passes, copies are found, figures are the metrics'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob import datasets, diffusion, testing
from jaxprob.report import diffusion_report
from jaxprob.report._neighbours import copies, nearest

from .page import check

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def exact():
    mixture = testing.eight_gaussians(0.3)
    denoiser = testing.GaussianMixtureDenoiser(mixture, diffusion.VP.linear())
    keys = jax.random.split(jax.random.key(0), 240)
    rows = np.asarray(jax.vmap(lambda k: mixture.sample(key=k))(keys))
    return denoiser, rows[:120], rows[120:], mixture


@pytest.fixture(scope="module")
def page(exact):
    denoiser, real, train, _ = exact
    report = diffusion_report(denoiser, real, train=train, num_likelihoods=4)
    return check(report.html)


@pytest.mark.slow
def test_samples_of_the_true_model_are_like_real_rows(page):
    own, real, gaussian = (
        [float(cell) for cell in page.row(name, 7)]
        for name in ("samples", "training rows", "independent Gaussians")
    )
    assert own[0] < 3 * real[0] + 0.02
    assert own[5] > 0.8 > gaussian[5]  # density
    assert own[6] > 0.9  # coverage


@pytest.mark.slow
def test_likelihoods_are_those_of_the_mixture(exact, page):
    _, real, _, mixture = exact
    rows, nats, _ = map(float, page.row("held-out rows", 3))
    true = jax.vmap(mixture.log_prob)(jnp.asarray(real[:4]))
    assert rows == 4
    assert nats == pytest.approx(float(true.mean()), abs=0.05)


def test_nearest_rows_and_copies():
    train = RNG.normal(size=(200, 5)) + 1e3  # an offset that cancels digits
    rows = RNG.normal(size=(130, 5)) + 1e3
    index, distance = nearest(rows, train)
    every = np.linalg.norm(rows[:, None] - train[None], axis=-1)
    np.testing.assert_array_equal(index, every.argmin(axis=1))
    np.testing.assert_allclose(distance, every.min(axis=1), rtol=1e-9)
    _, usual = nearest(RNG.normal(size=(500, 5)) + 1e3, train)
    assert copies(nearest(train[:50], train)[1], usual)[1] == 1.0
    assert copies(distance, usual)[1] < 0.1


@pytest.mark.slow
def test_images_and_given_samples(exact):
    denoiser, real, _, _ = exact
    images = RNG.uniform(size=(48, 1, 4, 4)).astype(np.float32)
    train, held_out = images[:24], images[24:]
    report = diffusion_report(
        Zero(diffusion.VP.linear()),
        held_out,
        train=train,
        samples=train[:12],
        x_scaler=datasets.Standardizer(np.asarray(0.5), np.asarray(0.2)),
        num_likelihoods=0,
    )
    page = check(report.html)
    assert "100.0% of the samples are nearer" in page.words
    assert "worse than the best linear one" in page.words
    assert any(target.startswith("data:image/png") for target in page.targets)
    with pytest.raises(ValueError, match=r"samples have shape \(3,\)"):
        diffusion_report(denoiser, real, samples=np.zeros((4, 3), np.float32))


class Zero(diffusion.AbstractDenoiser):
    """The denoiser of an image that is always zero."""

    schedule: diffusion.AbstractSchedule

    def denoise(self, x, level, cond=None, *, key=None):
        return 0.0 * x
