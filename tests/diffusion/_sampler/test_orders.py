"""Samplers on the eight Gaussians: absolute errors, orders, and what beats what."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.orders import PLAIN, ROWS, adaptive, fixed, problem
from jaxprob.diffusion import (
    DDIM,
    EDM,
    DPMSolverPP,
    ExpAB,
    Heun,
    LogLevelGrid,
    PredictorCorrector,
    sample,
)
from jaxprob.testing import GaussianMixture, GaussianMixtureDenoiser

# Errors at 18, 35 and 70 evaluations (34 for Heun, which has two a step), measured.
TABLE = {
    "DDIM": (0.038, 0.018, 0.0086),
    "Heun, Karras grid": (0.11, 0.0135, 0.0026),
    "DPM-Solver++ 2M": (0.0115, 0.0041, 0.0015),
    "ExpAB 3, log": (0.016, 0.0038, 0.00084),
    "default: the same, Focused": (0.005, 0.0014, 0.00023),
}


@pytest.fixture(scope="module")
def eight():
    with jax.enable_x64(True):
        return problem()


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_errors_on_the_mixture(name, eight, x64):
    for evaluations, bound in zip((18, 35, 70), TABLE[name], strict=True):
        assert fixed(ROWS[name], evaluations, *eight) < 1.05 * bound


@pytest.mark.slow
@pytest.mark.parametrize("evaluations", [10, 18, 35])
def test_the_default_beats_every_row(evaluations, eight, x64):
    errors = {name: fixed(row, evaluations, *eight) for name, row in ROWS.items()}
    best = errors.pop("default: the same, Focused")
    errors = {name: e for name, e in errors.items() if "corrected" not in name}
    assert 2.0 * best < min(errors.values())


@pytest.mark.slow
def test_the_adaptive_flow_on_the_mixture(eight, x64):
    error, mean, most = adaptive(5e-5, *eight)
    assert error < 1.5e-4
    assert mean < 80
    assert most <= 110


ORDERS = {
    "DDIM": (0.9, 1.1),
    "Heun, Karras grid": (1.75, 2.1),
    "DPM-Solver++ 2M": (1.7, 2.1),
    "ExpAB 2, log": (1.7, 2.1),
    "DPM-Solver++ 3M": (2.2, 3.2),
    "ExpAB 3, log": (2.6, 3.3),
    "ExpAB 2, corrected, log grid": (2.7, 4.3),
    "ExpAB 3, corrected, Focused": (3.4, 5.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ORDERS)
def test_orders(name, eight, x64):
    coarse, fine = (fixed(ROWS[name], n, *eight) for n in (140, 280))
    low, high = ORDERS[name]
    assert low < np.log2(coarse / fine) < high


def one_gaussian():
    covariance = jnp.array([[1.0, 0.6], [0.6, 0.5]])
    return GaussianMixture(jnp.ones(1), jnp.array([[1.0, -0.5]]), covariance[None])


def moments(step, levels, mixture):
    """Mean and covariance of an affine scheme, told by a NumPy step, and its last D."""
    mean, covariance = np.asarray(mixture.means[0]), np.asarray(mixture.covariances[0])
    eye = np.eye(2)

    def denoise(x, s):
        gain = covariance @ np.linalg.inv(covariance + s**2 * eye)
        return mean + gain @ (x - mean)

    m, v = np.zeros(2), levels[0] ** 2 * eye
    for s, after in itertools.pairwise(levels):
        advance, before, behind = step(s, after, denoise)
        constant = advance(np.zeros(2))
        linear = np.stack([advance(e) - constant for e in eye], axis=1)
        v = linear @ (v + before**2 * eye) @ linear.T + behind**2 * eye
        m = constant + linear @ m
    constant = denoise(np.zeros(2), levels[-1])
    linear = np.stack([denoise(e, levels[-1]) - constant for e in eye], axis=1)
    return constant + linear @ m, linear @ v @ linear.T


def ddim(eta):
    def step(s, after, denoise):
        # Posterior of DDPM in x_t = x_0 + s z: mean by weights, variance b2 (a2-b2)/a2.
        noise = eta * after * np.sqrt(1.0 - (after / s) ** 2)

        def advance(x):
            d = denoise(x, s)
            return d + np.sqrt(after**2 - noise**2) * (x - d) / s

        return advance, 0.0, noise

    return step


def heun_with_churn(churn, num, top):
    def step(s, after, denoise):
        raised = min(s * (1.0 + min(churn / num, 2**0.5 - 1.0)), top)

        def advance(x):
            first = (x - denoise(x, raised)) / raised
            guess = x + (after - raised) * first
            second = (guess - denoise(guess, after)) / after
            return x + (after - raised) * 0.5 * (first + second)

        return advance, np.sqrt(raised**2 - s**2), 0.0

    return step


STOCHASTIC = {
    "ddpm": (DDIM(12, eta=1.0), ddim(1.0)),
    "ddim_half": (DDIM(12, eta=0.5), ddim(0.5)),
    "churn": (Heun(LogLevelGrid(12), churn=4.0), heun_with_churn(4.0, 12, 50.0)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_samplers_have_the_moments_of_their_scheme(name, getkey):
    sampler, step = STOCHASTIC[name]
    mixture, num = one_gaussian(), 100_000
    denoiser = GaussianMixtureDenoiser(mixture, EDM(50.0, t_min=0.05))
    x = np.asarray(
        sample(denoiser, sampler, key=getkey(), num_samples=num, shape=(2,)).x_0
    )
    mean, covariance = moments(step, np.geomspace(50.0, 0.05, 13), mixture)
    variances = np.diag(covariance)
    assert (abs(x.mean(0) - mean) < 5.0 * np.sqrt(variances / num)).all()
    spread = np.sqrt((covariance**2 + np.outer(variances, variances)) / num)
    assert (abs(np.cov(x.T) - covariance) < 5.0 * spread).all()


@pytest.mark.slow
def test_langevin_steps_have_the_moments_of_their_scheme(getkey):
    """Ancestral steps with two corrections at each level, on one Gaussian."""
    mixture, num, ratio = one_gaussian(), 100_000, 0.4
    denoiser = GaussianMixtureDenoiser(mixture, EDM(50.0, t_min=0.05))
    sampler = PredictorCorrector(8, num_corrections=2, ratio=ratio)
    x = np.asarray(
        sample(denoiser, sampler, key=getkey(), num_samples=num, shape=(2,)).x_0
    )
    mean, covariance = np.asarray(mixture.means[0]), np.asarray(mixture.covariances[0])
    eye = np.eye(2)

    def gain(s):
        return covariance @ np.linalg.inv(covariance + s**2 * eye)

    levels = np.geomspace(50.0, 0.05, 9)
    m, v = -mean, levels[0] ** 2 * eye  # of x less the mean of the data
    for s, after in itertools.pairwise(levels):
        keep = (after / s) ** 2
        ancestral = keep * eye + (1.0 - keep) * gain(s)
        m = ancestral @ m
        v = ancestral @ v @ ancestral.T + after**2 * (1.0 - keep) * eye
        for _ in range(2):
            langevin = eye + 2.0 * ratio**2 * (gain(after) - eye)
            m = langevin @ m
            v = langevin @ v @ langevin.T + 4.0 * ratio**2 * after**2 * eye
    last = gain(levels[-1])
    m, v = mean + last @ m, last @ v @ last.T
    variances = np.diag(v)
    assert (abs(x.mean(0) - m) < 5.0 * np.sqrt(variances / num)).all()
    spread = np.sqrt((v**2 + np.outer(variances, variances)) / num)
    assert (abs(np.cov(x.T) - v) < 5.0 * spread).all()
    # The steps are coarse: it is not the law of the data that is met.
    assert (abs(v - covariance) > 8.0 * spread).any()


def test_schemes_are_exact_for_constant_denoisers():
    """And exponential Adams-Bashforth of order one is DDIM."""
    levels = np.geomspace(10.0, 0.1, 6)
    keep = levels[1:] / levels[:-1]
    first = ExpAB(order=1, **PLAIN).table(levels)
    np.testing.assert_allclose(first.predict[:, 0], 1.0 - keep, rtol=1e-12)
    # Weights of any scheme that is exact for constants sum to 1 - b/a.
    for sampler in (DPMSolverPP(), DPMSolverPP(order=3), ExpAB(), ExpAB(order=4)):
        table = sampler.table(levels)
        np.testing.assert_allclose(table.predict.sum(axis=1), 1.0 - keep, rtol=1e-10)
    correct = ExpAB().table(levels).correct
    assert correct is not None
    np.testing.assert_allclose(correct[1:].sum(axis=1), 1.0 - keep[:-1], rtol=1e-10)


def test_exponential_weights_are_exact_for_polynomials():
    """P = log(s)^2 through three points, integrated against e^lambda by hand."""
    levels = np.geomspace(8.0, 1.0, 4)
    weights = ExpAB(order=3, **PLAIN).table(levels).predict[2]
    lam = -np.log(levels)

    def antiderivative(u):
        return np.exp(u) * (u**2 - 2.0 * u + 2.0)

    exact = levels[3] * (antiderivative(lam[3]) - antiderivative(lam[2]))
    np.testing.assert_allclose(weights @ lam[[2, 1, 0]] ** 2, exact, rtol=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDIM(eta=1.5), "between 0"),
        (lambda: DPMSolverPP(order=4), r"give 2 \(2M\)"),
        (lambda: ExpAB(order=5), "1 to 4"),
        (lambda: ExpAB(coordinate="s"), "'angle' or 'log'"),
        (lambda: Heun(churn=-1.0), "at least 0"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
