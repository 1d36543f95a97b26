"""The temperature that gives posterior variances the size of the mode's."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from jaxprob import bnn

NUM, DIM = 60, 3


class Copied(eqx.Module):
    """A linear model whose outputs are copies of one."""

    weight: jax.Array
    copies: int = eqx.field(static=True)

    def __call__(self, x):
        return jnp.broadcast_to(x @ self.weight, (self.copies,))


def matched(copies, noise, structure="full", temperature=1.0):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM, DIM))
    y = x @ np.array([1.0, -0.5, 0.3]) + rng.normal(size=NUM)
    joint = bnn.LogJoint(
        bnn.NormalLikelihood(noise),
        dist.Normal(0.0, 1e4),
        num_data=NUM,
        temperature=temperature,
    )
    mode = np.linalg.lstsq(x, y, rcond=None)[0]
    method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)), structure)
    state = method.init(Copied(jnp.asarray(mode), copies))
    residuals = y - x @ mode
    batch = jnp.asarray(x), jnp.asarray(np.repeat(y[:, None], copies, axis=1))
    return bnn.matched_temperature(method, state, [batch]), x, residuals


def test_it_is_the_ratio_of_the_two_matrices(x64):
    found, x, residuals = matched(1, 0.5)
    gradients = x * residuals[:, None] / 0.25
    ratio = np.linalg.solve(x.T @ x / 0.25, gradients.T @ gradients)
    np.testing.assert_allclose(found, np.trace(ratio) / DIM, rtol=1e-6)
    found, _, _ = matched(1, 0.5, "diagonal")
    ratio = np.sum(gradients**2, axis=0) / np.sum(x**2 / 0.25, axis=0)
    np.testing.assert_allclose(found, np.mean(ratio), rtol=1e-6)


def test_terms_that_are_copies_count_once(x64):
    one, four = matched(1, 1.0)[0], matched(4, 1.0)[0]
    assert abs(one - 1.0) < 0.5
    np.testing.assert_allclose(four, 4.0 * one, rtol=1e-6)


def test_what_cannot_be_compared_is_rejected():
    with pytest.raises(ValueError, match="structure='low_rank'"):
        matched(1, 1.0, "low_rank")
    with pytest.raises(ValueError, match=r"temperature=0\.5"):
        matched(1, 1.0, temperature=0.5)
