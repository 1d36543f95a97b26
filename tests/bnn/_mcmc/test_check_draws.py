"""Draws of chains that have not moved are no posterior."""

import equinox as eqx
import jax
import numpy as np
import pytest

from jaxprob import bnn
from jaxprob.bnn._mcmc.check_draws import check_moved


def walks(scale, *, chains=2, draws=200, dim=3):
    rng = np.random.default_rng(0)
    starts = rng.normal(size=(chains, 1, dim))
    return starts + scale * rng.normal(size=(chains, draws, dim))


def test_draws_of_one_posterior_pass():
    check_moved(walks(1.0))
    check_moved(walks(0.1))  # modes ten standard deviations apart
    check_moved(walks(0.0, draws=4))  # too few to say


def test_a_chain_that_never_moved_is_an_error():
    draws = walks(1.0)
    draws[1] = draws[1, :1]
    with pytest.raises(ValueError, match="chain 1 never moved: its 200 draws"):
        check_moved(draws)


def test_a_chain_that_hardly_moved_is_warned_of():
    draws = walks(1.0)
    draws[0] = np.repeat(draws[0, ::20], 20, axis=0)
    with pytest.warns(UserWarning, match="chain 0 moved in 4.5% of its transitions"):
        check_moved(draws)


def test_chains_where_they_started_are_warned_of():
    with pytest.warns(UserWarning, match="2 chains lie over 1000 times further apart"):
        check_moved(walks(1e-4))


@pytest.mark.slow
def test_a_step_size_that_rounds_to_nothing_is_an_error():
    x = np.linspace(-1.0, 1.0, 8, dtype=np.float32)[:, None]
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), 8)
    model = eqx.nn.Linear(1, 1, key=jax.random.key(0))
    method = bnn.HMC(
        joint, num_leapfrog=2, num_warmup=0, num_draws=20, num_chains=1, step_size=1e-12
    )
    with pytest.raises(ValueError, match="never moved: its 20 draws are equal"):
        bnn.run_chains(method, model, (x, x), key=jax.random.key(0), progress=False)


@pytest.mark.slow
def test_chains_that_diverge_and_stay_finite_are_warned_of():
    x = np.linspace(-2.0, 2.0, 50, dtype=np.float32)[:, None]
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.1), bnn.IsotropicNormal(1.0), 50)
    model = eqx.nn.Linear(1, 1, key=jax.random.key(0))
    # A step multiplies the error by 1 - 136 lr / 2, the curvature of a row being 136.
    method = bnn.SGLD(joint, 0.05, num_warmup=10, thin=1, num_draws=5, num_chains=2)
    with pytest.warns(UserWarning, match="chains have diverged, though every number"):
        bnn.run_chains(method, model, (x, x), key=jax.random.key(1), progress=False)
