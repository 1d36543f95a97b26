"""Simulations: independent of batches and processes, counted failures, disk."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jaxprob.diffusion import simulate, simulate_in_processes
from jaxprob.diffusion._sbi import python_simulator

from . import simulators

PRIOR = {"mean": dist.Normal(0.0, 1.0)}
KEY = jax.random.key(0)


def gaussian(theta, *, key):
    return theta["mean"] + jax.random.normal(key, (3,))


def run(simulator, **given):
    few: Any = {"num_simulations": 20, "batch_size": 5, "num_processes": 1}
    settings = few | given
    return simulate_in_processes(PRIOR, simulator, key=KEY, progress=False, **settings)


@pytest.fixture
def here(monkeypatch):
    """Run the jobs in this process: what they compute is the same."""

    def run_here(function, jobs, **settings):
        for name, job in jobs.items():
            yield name, function(*job)

    monkeypatch.setattr(python_simulator, "run_jobs", run_here)


def test_a_simulation_does_not_depend_on_the_others():
    few = simulate(PRIOR, gaussian, key=KEY, num_simulations=7, progress=False)
    many = simulate(
        PRIOR, gaussian, key=KEY, num_simulations=25, batch_size=10, progress=False
    )
    np.testing.assert_array_equal(few.x, many.x[:7])
    np.testing.assert_array_equal(few.theta["mean"], many.theta["mean"][:7])
    assert len(np.unique(many.x)) == 75


def test_simulations_that_are_not_finite_are_left_out_and_counted():
    def simulator(theta, *, key):
        x = gaussian(theta, key=key)
        return jnp.where(theta["mean"] > 1.0, jnp.nan, x)

    with pytest.warns(UserWarning, match="of 200 simulations are left out: 0 raised"):
        sims = simulate(PRIOR, simulator, key=KEY, num_simulations=200, progress=False)
    assert 0 < sims.num_failed == 200 - len(sims)
    assert (sims.theta["mean"] <= 1.0).all()
    assert np.isfinite(sims.x).all()
    settings = {"key": KEY, "num_simulations": 200, "progress": False}
    assert len(simulate(PRIOR, simulator, missing=True, **settings)) == 200


def test_a_simulator_that_never_works_is_an_error():
    with pytest.raises(ValueError, match="all 5 simulations failed"):
        simulate(
            PRIOR,
            lambda theta, *, key: jnp.full(2, jnp.nan),
            key=KEY,
            num_simulations=5,
            progress=False,
        )


def test_python_simulations_do_not_depend_on_their_number(here):
    few, many = run(simulators.normal, num_simulations=7), run(simulators.normal)
    np.testing.assert_array_equal(few.x, many.x[:7])
    assert len(np.unique(many.x)) == 60
    error = (many.x - many.theta["mean"][:, None]).std()
    assert abs(error - 1.0) < 5.0 / np.sqrt(2 * 60)


@pytest.mark.slow
def test_processes_give_the_same_numbers(here, monkeypatch):
    alone = run(simulators.normal, num_simulations=10)
    monkeypatch.undo()
    apart = run(simulators.normal, num_simulations=10, num_processes=2)
    np.testing.assert_array_equal(alone.x, apart.x)


def test_those_that_raise_are_named_and_left_out(here):
    with pytest.warns(UserWarning, match="ArithmeticError: the mean is positive"):
        sims = run(simulators.fails)
    assert (sims.theta["mean"] <= 0.0).all()
    assert len(sims) + sims.num_failed == 20


def test_a_killed_run_goes_on_where_its_folder_ends(here, tmp_path, monkeypatch):
    whole = run(simulators.normal)
    run(simulators.normal, num_simulations=10, folder=tmp_path)
    batches = []
    one = python_simulator.run_batch

    def counted(simulator, theta, seed, begin):
        batches.append(begin)
        return one(simulator, theta, seed, begin)

    monkeypatch.setattr(python_simulator, "run_batch", counted)
    sims = run(simulators.normal, folder=tmp_path)
    assert batches == [10, 15]
    np.testing.assert_array_equal(sims.x, whole.x)


def test_a_folder_belongs_to_one_run(here, tmp_path):
    run(simulators.normal, folder=tmp_path)
    with pytest.raises(ValueError, match="give another folder, or the key"):
        run(simulators.normal, folder=tmp_path, batch_size=4)
    with pytest.raises(ValueError, match="parameters of another prior"):
        simulate_in_processes(
            {"mean": dist.Normal(1.0, 1.0)},
            simulators.normal,
            key=KEY,
            num_simulations=20,
            batch_size=5,
            folder=tmp_path,
            progress=False,
        )


@pytest.mark.parametrize("workers", [1, 3])
def test_simulations_of_any_executor_are_the_same(here, workers, monkeypatch):
    found = run(simulators.normal)
    monkeypatch.undo()
    with ThreadPoolExecutor(workers) as pool:
        again = run(simulators.normal, executor=pool, num_processes=None)
    np.testing.assert_array_equal(found.x, again.x)
    np.testing.assert_array_equal(found.theta["mean"], again.theta["mean"])


@pytest.mark.parametrize(
    ("simulator", "message"),
    [
        (simulators.forgets_its_rng, "two results for one theta and one rng"),
        (simulators.grows, "the same shapes and dtypes"),
    ],
)
def test_simulators_that_are_no_functions_are_rejected(here, simulator, message):
    with pytest.raises(ValueError, match=message):
        run(simulator)
