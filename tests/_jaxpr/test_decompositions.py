"""Decompositions in turn: the same bits, and no program that waits for ever."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob._jaxpr.decompositions import MOST_CORES, is_large, pool_size

WAITS = jax.__version_info__ < (0, 12) and pool_size() <= MOST_CORES

FUNCTIONS = {
    "eigh": jnp.linalg.eigh,
    "eigenvalues": jnp.linalg.eigvalsh,
    "cholesky": jnp.linalg.cholesky,
    "qr": jnp.linalg.qr,
    "svd": lambda a: jnp.linalg.svd(a, compute_uv=False),
    "solve": lambda a: jnp.linalg.solve(a, a[:, :2]),
    "triangular": lambda a: jax.scipy.linalg.solve_triangular(a, a[0], lower=True),
    "lu": lambda a: jax.scipy.linalg.lu_factor(a),
    "determinant": jnp.linalg.slogdet,
}


@pytest.fixture(scope="module")
def matrices():
    a = np.random.default_rng(0).normal(size=(3, 100, 8, 8)).astype(np.float32)
    return jnp.asarray(a @ np.swapaxes(a, 2, 3) + 8.0 * np.eye(8, dtype=np.float32))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_large_batches_have_the_bits_of_single_matrices(name, matrices):
    assert is_large(matrices.shape)
    function = jax.jit(FUNCTIONS[name])
    found = jax.jit(jax.vmap(jax.vmap(FUNCTIONS[name])))(matrices)
    for place in ((0, 0), (1, 37), (2, 99)):
        expected = function(matrices[place])
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(a[place], b)


@pytest.mark.skipif(not WAITS, reason="batches do not wait for each other here")
def test_large_batches_are_loops_and_small_ones_are_not(matrices):
    def text(matrices):
        return jax.jit(jax.vmap(jnp.linalg.cholesky)).lower(matrices).as_text()

    assert "stablehlo.while" in text(matrices[0].repeat(3, 0))
    assert "stablehlo.while" not in text(matrices[0, :5])
    assert "stablehlo.while" not in text(matrices[0, :1].repeat(20, 1).repeat(20, 2))


def test_gradients_go_through(matrices):
    def total(matrices):
        return jnp.sum(jax.vmap(lambda a: jnp.linalg.slogdet(a)[1])(matrices))

    many = matrices.reshape(-1, 8, 8)
    found = jax.jit(jax.grad(total))(many)
    inverse = np.swapaxes(np.linalg.inv(np.asarray(many)), 1, 2)
    np.testing.assert_allclose(found, inverse, rtol=1e-3, atol=1e-5)


TWO_CORES = """
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import jax, jax.numpy as jnp
import jaxprob.bnn
a = jax.random.normal(jax.random.key(0), (64, 64, 64))
a = a @ jnp.swapaxes(a, 1, 2) + 64 * jnp.eye(64)
row = jnp.ones(64)
many = {
    "cholesky": jnp.linalg.cholesky,
    "triangular": lambda a: jax.scipy.linalg.solve_triangular(a, row, lower=True),
}
@jax.jit
def total(a):
    return sum(jax.vmap(FUNCTION)(a + i).sum() for i in range(16))
for _ in range(30):
    total(a).block_until_ready()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cholesky", "triangular"])
def test_two_cores_do_not_wait_for_each_other(name):
    """Sixteen batches that do not need each other, which hung within 30 calls."""
    code = TWO_CORES.replace("FUNCTION", f"many[{name!r}]")
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=250)
