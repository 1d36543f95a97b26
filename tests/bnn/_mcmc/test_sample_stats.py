"""Statistics of transitions beside the draws: values, order, memory and disk."""

import jax
import numpy as np
import pytest

from jaxprob import bnn
from jaxprob.testing import LinearGaussian

NAMES = {
    "log_density",
    "step_size",
    "acceptance",
    "divergent",
    "num_leapfrog",
    "energy",
}


@pytest.fixture(scope="module")
def problem():
    return LinearGaussian.random(key=jax.random.key(1), num_data=12, dim=2)


def run(problem, method, **options):
    model, data = problem.model(key=jax.random.key(2)), (problem.x, problem.y)
    key = jax.random.key(3)
    return bnn.run_chains(method, model, data, key=key, progress=False, **options)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [bnn.NUTS, bnn.HMC])
def test_each_draw_has_the_statistics_of_its_transition(problem, sampler):
    joint = problem.log_joint(temperature=0.5)
    method = sampler(joint, num_warmup=200, num_draws=400)
    posterior = run(problem, method)
    stats = posterior.sample_stats
    depth = {"tree_depth"} if sampler is bnn.NUTS else set()
    assert set(stats) == NAMES | depth
    assert all(values.shape == (4, 400) for values in stats.values())
    for index in (0, 399, 1200):
        exact = joint(posterior.atom(index), (problem.x, problem.y))
        found = stats["log_density"][index // 400, index % 400]
        assert np.allclose(found, exact, rtol=1e-4)
    # The momentum is standard normal at the end of a transition too.
    kinetic = np.asarray(stats["energy"] + stats["log_density"])
    error = kinetic.std() / np.sqrt(bnn.ess(kinetic))
    assert abs(kinetic.mean() - 3 / 2) < 5 * error
    assert not np.any(stats["divergent"])
    assert np.all(np.ptp(np.asarray(stats["step_size"]), axis=1) == 0)
    if depth:
        longest = 2.0 ** np.asarray(stats["tree_depth"])
        assert np.all(np.asarray(stats["num_leapfrog"]) <= longest)
        assert np.all(np.asarray(stats["num_leapfrog"]) >= longest / 2 - 1)
    else:
        assert np.all(stats["num_leapfrog"] == method.num_leapfrog)


@pytest.mark.slow
def test_statistics_on_disk_are_those_in_memory(problem, tmp_path):
    method = bnn.NUTS(problem.log_joint(), num_warmup=24, num_draws=23, num_chains=2)
    memory = run(problem, method)
    disk = run(problem, method, folder=tmp_path, checkpoint_every=5)
    for name, values in memory.sample_stats.items():
        assert np.array_equal(values, disk.sample_stats[name])
    model = problem.model(key=jax.random.key(2))
    thin = bnn.load_draws(method, model, tmp_path, thin=4)
    energy = memory.sample_stats["energy"][:, 3::4]
    assert np.array_equal(thin.sample_stats["energy"], energy)
    path = tmp_path / "posterior.safetensors"
    bnn.save_posterior(path, memory)
    loaded = bnn.load_posterior(path, model=model)
    assert isinstance(loaded, bnn.DrawsPosterior)
    assert np.array_equal(loaded.sample_stats["energy"], memory.sample_stats["energy"])


@pytest.mark.slow
def test_a_minibatch_sampler_has_no_statistics(problem):
    method = bnn.SGLD(problem.log_joint(), 1e-3, num_warmup=1, num_draws=2, thin=1)
    assert run(problem, method).sample_stats == {}
