"""Solves with a matrix that should be positive semi-definite and may not be."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from jaxprob.diffusion import (
    EDM,
    MMPS,
    AbstractDenoiser,
    AbstractSchedule,
    Observation,
    solve_report,
)
from jaxprob.diffusion._posterior.solve import (
    conjugate_gradients,
    pseudo_solve,
    solve_cg,
    solve_dense,
)

SIZE = 6
SOLVES = {
    "dense": solve_dense,
    "cg": lambda product, b: solve_cg(product, b, rtol=1e-6, max_steps=SIZE),
}


def matrix(values):
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(SIZE, SIZE)))[0]
    return jnp.asarray((rotation * values) @ rotation.T, jnp.float32)


@pytest.mark.parametrize("solve", SOLVES)
def test_a_positive_matrix_is_solved(solve):
    m, b = matrix(np.array([0.0, 0.1, 1.0, 5.0, 10.0, 20.0])), jnp.arange(6.0)
    z = SOLVES[solve](lambda u: m @ u, b)
    assert jnp.allclose(z + m @ z, b, atol=1e-3)


@pytest.mark.parametrize("solve", SOLVES)
@pytest.mark.parametrize("least", [-0.9999, -1.0001, -50.0])
def test_negative_eigenvalues_make_no_answer_large(solve, least):
    m, b = matrix(np.array([least, 0.1, 1.0, 5.0, -0.5, 20.0])), jnp.arange(6.0)
    z = SOLVES[solve](lambda u: m @ u, b)
    assert jnp.linalg.norm(z) <= 1.001 * jnp.linalg.norm(b)
    if least > -2.0:
        plain = jnp.linalg.solve(jnp.eye(SIZE) + m, b)
        assert jnp.linalg.norm(plain) > 100.0 * jnp.linalg.norm(b)


def test_conjugate_gradients_say_how_they_ended():
    b = jnp.arange(6.0)
    good = matrix(np.array([0.0, 0.1, 1.0, 5.0, 10.0, 20.0]))
    settings = {"rtol": 1e-4, "max_steps": 20}
    state = conjugate_gradients(lambda u: good @ u, b, **settings)
    assert not state.indefinite
    assert 3 < state.num_steps <= SIZE + 1
    assert state.square <= 1e-8 * jnp.vdot(b, b)
    bad = matrix(np.array([-2.0, 0.1, 1.0, 5.0, -0.5, 20.0]))
    assert conjugate_gradients(lambda u: bad @ u, b, **settings).indefinite
    settings["max_steps"] = 2
    state = conjugate_gradients(lambda u: good @ u, b, **settings)
    assert state.num_steps == 2
    assert state.square > 1e-8 * jnp.vdot(b, b)


@pytest.mark.parametrize("solve", SOLVES)
def test_the_derivative_is_that_of_the_solution(solve):
    with jax.enable_x64(True):
        m = matrix(np.array([0.0, 0.5, 0.5, 0.5, 1.0, 2.0])).astype(float)
        b = jnp.arange(6.0)

        def total(scale):
            return jnp.sum(SOLVES[solve](lambda u: scale * (m @ u), b) ** 2)

        def expected(scale):
            return jnp.sum(jnp.linalg.solve(jnp.eye(SIZE) + scale * m, b) ** 2)

        found = jax.grad(total)(1.5)
        assert jnp.allclose(found, jax.grad(expected)(1.5), rtol=1e-4)


@pytest.mark.parametrize("max_dense", [0, 10])
def test_a_singular_matrix_has_a_pseudo_inverse(max_dense):
    a = jnp.asarray(np.random.default_rng(1).normal(size=(SIZE, 4)), jnp.float32)
    b = a @ jnp.arange(4.0)
    z = pseudo_solve(lambda u: a @ (a.T @ u), b, max_dense=max_dense)
    assert jnp.allclose(a @ (a.T @ z), b, rtol=1e-2, atol=1e-2)


class Linear(AbstractDenoiser):
    """A denoiser with a given Jacobian, as a network may have it."""

    schedule: AbstractSchedule
    jacobian: jax.Array

    def denoise(self, x, level, cond=None, *, key=None):
        return self.jacobian @ x


ASYMMETRIC = np.array([[-0.9999, 3.0], [-3.0, 2.0]], np.float32)


@pytest.mark.parametrize("max_dense", [0, 64])
def test_a_jacobian_with_negative_eigenvalues_moves_nothing_far(max_dense):
    denoiser = Linear(EDM(), jnp.asarray(ASYMMETRIC))
    y = jnp.asarray([3.0, 2.0])
    posterior = MMPS(denoiser, Observation(y, noise=1.0), max_dense=max_dense)
    x = jnp.asarray([0.5, -0.5])
    prior = denoiser.denoise(x, 1.0)
    moved = posterior.denoise(x, 1.0) - prior
    assert jnp.linalg.norm(moved) < 2.0 * jnp.linalg.norm(y - prior)
    plain = jnp.linalg.solve(jnp.eye(2) + 0.5 * (ASYMMETRIC + ASYMMETRIC.T), y - prior)
    assert jnp.linalg.norm(plain) > 100.0 * jnp.linalg.norm(y - prior)
    if max_dense:
        assert jnp.allclose(
            moved, jnp.asarray([0.0, 2.0 / 3.0]) * (y - prior), rtol=1e-5
        )


def test_a_lineax_solver_that_fails_is_nan():
    denoiser = Linear(EDM(), jnp.asarray(np.diag([-5.0, 3.0]).astype(np.float32)))
    posterior = MMPS(
        denoiser,
        Observation(jnp.ones(2), noise=1.0),
        solver=lx.GMRES(1e-6, 1e-6, max_steps=1, restart=1, stagnation_iters=1),
    )
    assert not jnp.isfinite(posterior.denoise(jnp.asarray([0.5, -0.5]), 1.0)).any()
    assert eqx.is_array(posterior.observation.y)


def test_a_report_of_an_exact_denoiser_is_quiet():
    """And one of a Jacobian with negative directions warns with the level."""
    exact = Linear(EDM(), jnp.eye(2) / 2.0)
    observation = Observation(np.float32([3.0, 2.0]), noise=0.5)
    x = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    settings = {"key": jax.random.key(0), "levels": (1.0, 0.1)}
    report = solve_report(MMPS(exact, observation), x, **settings)
    assert jnp.allclose(report.asymmetry, 0.0, atol=1e-6)
    assert jnp.allclose(report.residual, 0.0, atol=1e-3)
    assert (report.indefinite == 0.0).all()
    assert (report.num_steps <= 2.0).all()
    wrong = Linear(EDM(), jnp.asarray([[-0.5, 1.0], [-1.0, -0.5]]))
    with pytest.warns(UserWarning, match="negative direction is 1 at the noise level"):
        report = solve_report(MMPS(wrong, observation), x, **settings)
    assert jnp.allclose(report.asymmetry, 2.0, rtol=1e-5)
