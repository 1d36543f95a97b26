"""Running chains: on disk, interrupted, from an ensemble, and what goes wrong."""

import dataclasses
import functools
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
import scipy.stats

from jaxprob import bnn
from jaxprob._io.fingerprint import fingerprint
from jaxprob.bnn._mcmc.check_run import NEVER, check_stretch
from jaxprob.testing import LinearGaussian

from .killed_chains import run, scene


@pytest.fixture(scope="module")
def problem():
    return LinearGaussian.random(key=jax.random.key(1), num_data=12, dim=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return run(folder), folder


def draws(posterior):
    return np.concatenate(
        [posterior.draws.weight[:, :, 0], posterior.draws.bias], axis=-1
    )


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_with_the_same_bits(whole, tmp_path):
    """Killed in warm-up, then between the draws and the state that counts them."""
    for call, when, shards in ((3, "after", 0), (4, "before", 3)):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.bnn._mcmc.killed_chains",
                tmp_path,
                str(call),
                when,
            ]
        )
        assert done.returncode == -signal.SIGKILL
        assert len(list(tmp_path.glob("draws-*"))) == shards
    resumed = run(tmp_path)
    assert np.array_equal(draws(resumed), draws(whole[0]))
    for path in whole[1].iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_the_disk_holds_what_memory_would(whole, tmp_path):
    posterior, folder = whole
    assert np.array_equal(draws(run(None)), draws(posterior))
    assert posterior.shape == (2, 23)
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        *(f"draws-{i:05d}.safetensors" for i in range(6)),
        "run.json",
        "state.safetensors",
    ]
    method, model, _ = scene()
    thin = bnn.load_draws(method, model, folder, thin=4)
    assert np.array_equal(draws(thin), draws(posterior)[:, 3::4])
    # A finished run is prolonged, and its first draws stay.
    longer = run(folder, dataclasses.replace(method, num_draws=31))
    assert np.array_equal(draws(longer)[:, :23], draws(posterior))
    assert longer.shape == (2, 31)


@pytest.mark.slow
def test_another_run_in_the_same_folder_is_rejected(whole):
    method, model, (x, y) = scene()

    def again(method, y, key):
        bnn.run_chains(
            method, model, (x, y), key=jax.random.key(key), folder=whole[1],
            checkpoint_every=5, progress=False,
        )  # fmt: skip

    with pytest.raises(ValueError, match=r"another run: key was \w+ and is"):
        again(method, y, 4)
    with pytest.raises(ValueError, match="data was"):
        again(method, y + 1, 3)
    with pytest.raises(ValueError, match=r"num_warmup was 24 and is 5\. Give"):
        again(dataclasses.replace(method, num_warmup=5), y, 3)
    joint = method.log_joint
    num_data = joint.num_data
    assert isinstance(num_data, int)
    colder = bnn.LogJoint(joint.likelihood, joint.prior, num_data, temperature=0.5)
    with pytest.raises(ValueError, match=r"log_joint was .*temperature=0\.5"):
        again(dataclasses.replace(method, log_joint=colder), y, 3)
    small = eqx.nn.Linear(1, "scalar", key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"draws of 3 numbers, and .* are 2"):
        bnn.load_draws(method, small, whole[1])


@pytest.mark.slow
def test_chains_start_at_the_members_of_an_ensemble(problem):
    model = problem.model(key=jax.random.key(0))
    joint = problem.log_joint()
    # Two weights have two orders: members by shuffling would often be equal.
    ensemble = bnn.DeepEnsemble(
        bnn.MAP(joint, optax.sgd(0.1)), 3, make=lambda key: problem.model(key=key)
    )
    posterior = ensemble.posterior(ensemble.init(model, key=jax.random.key(1)))
    members = [problem.vector(posterior.atom(i)) for i in range(3)]
    for method in (
        bnn.NUTS(joint, num_chains=3, initial=posterior),
        bnn.SGLD(
            joint,
            0.1,
            num_warmup=0,
            thin=1,
            num_draws=1,
            num_chains=3,
            initial=posterior,
        ),
    ):
        state = method.init(model, key=jax.random.key(2))
        assert np.array_equal(state.position, members)
    drawn = bnn.bayesianize(model, scale=0.1)
    state = bnn.HMC(joint, initial=drawn).init(model, key=jax.random.key(2))
    distance = np.abs(state.position - problem.vector(model)[None])
    assert np.all(distance > 0)
    assert np.all(distance < 0.5)  # the scale is a tenth: five of them
    other = eqx.nn.Linear(5, "scalar", key=jax.random.key(0))
    with pytest.raises(ValueError, match="over another model than the one given"):
        bnn.NUTS(joint, initial=bnn.PointPosterior(other)).init(
            model, key=jax.random.key(0)
        )


@pytest.mark.slow
def test_a_chain_that_leaves_keeps_the_last_good_state(problem, tmp_path):
    """From update 32 on the learning rate is absurd; checkpoints are 10 draws apart."""
    method = bnn.SGLD(
        problem.log_joint(),
        lambda step: jnp.where(step < 32, 0.01, 1e20),
        num_warmup=5,
        thin=1,
        num_draws=60,
        num_chains=2,
    )
    model = problem.model(key=jax.random.key(0))
    message = r"chain \d is not finite from transition 3[2-9] on, .* at weight\. Lower"
    with pytest.raises(bnn.ChainError, match=message) as caught:
        bnn.run_chains(
            method, model, (problem.x, problem.y), key=jax.random.key(1),
            folder=tmp_path, checkpoint_every=10, progress=False,
        )  # fmt: skip
    assert int(caught.value.state.step) == 30
    assert bnn.load_draws(method, model, tmp_path).shape == (2, 25)


@pytest.mark.slow
def test_the_leaf_that_leaves_first_is_the_one_named():
    """By the end of the stretch all have left: the first step made it NaN for all."""

    class Pair(eqx.Module):
        calm: jax.Array
        wild: jax.Array

        def __call__(self, x):
            return self.calm * x[0] + 1e3 * self.wild * x[1]

    x = jax.random.normal(jax.random.key(0), (8, 2))
    joint = bnn.LogJoint(bnn.NormalLikelihood(1.0), bnn.IsotropicNormal(), num_data=8)
    method = bnn.SGLD(joint, 0.01, num_warmup=0, thin=1, num_draws=60)
    message = "not finite from transition [0-9]+ on, first of all at wild"
    with pytest.raises(bnn.ChainError, match=message):
        bnn.run_chains(
            method, Pair(jnp.ones(()), jnp.ones(())), (x, x[:, 0]),
            key=jax.random.key(1), progress=False,
        )  # fmt: skip


@pytest.mark.slow
def test_a_chain_that_always_diverges_says_so(problem):
    wild = bnn.NUTS(problem.log_joint(), num_warmup=0, num_chains=2, step_size=1e4)
    data = (problem.x, problem.y)
    model = problem.model(key=jax.random.key(0))
    message = "chain 0 diverged in each of the 5 transitions from 0 on: it does not mov"
    with pytest.raises(bnn.ChainError, match=message) as caught:
        bnn.run_chains(
            wild, model, data, key=jax.random.key(1), checkpoint_every=5, progress=False
        )
    with pytest.raises(ValueError, match="no draw yet"):
        wild.posterior(caught.value.state)


def test_a_chain_that_moved_may_diverge_in_the_few_transitions_of_a_stretch(problem):
    method = bnn.NUTS(problem.log_joint(), num_warmup=5, num_chains=2)
    state = method.init(problem.model(key=jax.random.key(0)), key=jax.random.key(1))

    def at(step, divergences):
        counts = jnp.asarray(divergences, jnp.int32)
        new = (jnp.asarray(step, jnp.int32), counts)
        return eqx.tree_at(lambda s: (s.step, s.divergences), state, new)

    def check(before, after):
        finite = np.full(2, NEVER, np.int32)
        check_stretch(method, before, after, finite, lambda state, num: None)

    check(at(20, [1, 0]), at(22, [3, 0]))
    with pytest.raises(bnn.ChainError, match="chain 0 diverged in each of the 10"):
        check(at(20, [1, 0]), at(30, [11, 0]))
    with pytest.raises(bnn.ChainError, match="chain 1 diverged in each of the 2"):
        check(at(3, [0, 0]), at(7, [0, 2]))


class Root(eqx.Module):
    first: jax.Array
    second: jax.Array

    def __call__(self, x):
        return self.first * x[0] + jnp.sqrt(self.second * x[1])


def test_a_start_without_a_gradient_names_its_leaf(problem):
    joint = bnn.LogJoint(bnn.NormalLikelihood(1.0), dist.Normal(0.0, 1.0), 3)
    data = (jnp.ones((3, 2)), jnp.ones(3))
    method = bnn.NUTS(joint, initial="model")
    for first, second, message in (
        (0.0, 0.0, "chain 0 starts with a gradient that is not finite at second"),
        (1e30, 1.0, "chain 0 starts with the log density -inf"),
    ):
        model = Root(jnp.asarray(first), jnp.asarray(second))
        with pytest.raises(ValueError, match=message):
            bnn.run_chains(method, model, data, key=jax.random.key(0), progress=False)
    with pytest.raises(ValueError, match="NUTS needs all rows in each"):
        bnn.run_chains(
            method, model, data, key=jax.random.key(0), batch_size=2, progress=False
        )


class Walled(eqx.Module):
    """Has no output beyond a wall, as an ODE whose solver gives up has none."""

    w: jax.Array

    def __call__(self, x):
        return eqx.error_if(self.w, self.w > 0.5, "beyond the wall") * x


@pytest.mark.slow
def test_a_check_that_fails_rejects_a_proposal(x64):
    """The distribution is then the prior, cut off at the wall."""
    joint = bnn.LogJoint(bnn.NormalLikelihood(1e3), dist.Normal(0.0, 1.0), num_data=2)
    data = (jnp.ones((2,)), jnp.zeros((2,)))
    method = bnn.HMC(
        joint,
        num_leapfrog=3,
        num_warmup=0,
        num_draws=1500,
        num_chains=4,
        jitter=0.5,
        initial="model",
        step_size=0.6,
    )
    with pytest.warns(UserWarning, match="transitions diverged"):
        posterior = bnn.run_chains(
            method, Walled(jnp.zeros(())), data, key=jax.random.key(0), progress=False
        )
    w = np.asarray(posterior.draws.w)
    assert w.max() <= 0.5
    expected = -scipy.stats.norm.pdf(0.5) / scipy.stats.norm.cdf(0.5)
    error = w.std() / np.sqrt(bnn.ess(w[..., None]).min())
    assert abs(w.mean() - expected) < 5 * error
    method = dataclasses.replace(method, initial="prior")
    with pytest.raises(ValueError, match="starts with the log density nan"):
        bnn.run_chains(
            method, Walled(jnp.zeros(())), data, key=jax.random.key(0), progress=False
        )


@pytest.mark.slow
def test_exchanged_hidden_units_spoil_the_weights_and_not_the_function():
    model = eqx.nn.MLP(1, "scalar", 6, 1, activation=jnp.tanh, key=jax.random.key(0))
    # Units that are exchanged lie thirty standard deviations of the draws apart.
    model = eqx.tree_at(lambda m: m.layers[0].bias, model, jnp.arange(6.0) - 2.5)
    noise = 0.1 * jax.random.normal(jax.random.key(1), (2, 400, 6))
    order = jnp.array([3, 4, 5, 0, 1, 2])
    first, last = model.layers

    def chain(noise, order):
        def one(noise):
            return eqx.tree_at(
                lambda m: (m.layers[0].weight, m.layers[0].bias, m.layers[1].weight),
                model,
                (
                    first.weight[order],
                    (first.bias + noise)[order],
                    last.weight[:, order],
                ),
            )

        return eqx.filter_vmap(one)(noise)

    chains = [chain(noise[0], jnp.arange(6)), chain(noise[1], order)]
    arrays = [eqx.filter(c, eqx.is_array) for c in chains]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *arrays)
    stacked = eqx.tree_at(
        lambda m: m.layers[1].bias, stacked, None, is_leaf=lambda x: x is None
    )
    rest = jax.tree.map(
        lambda drawn, leaf: leaf if drawn is None else None,
        stacked,
        model,
        is_leaf=lambda x: x is None,
    )
    posterior = bnn.DrawsPosterior(stacked, rest)
    found = bnn.diagnose(posterior, jnp.linspace(-2.0, 2.0, 7)[:, None])
    assert found.weights["layers.0.bias"][0] > 1.5
    assert found.weights["layers.0.bias"][1] < 10
    assert found.function[0] < 1.02
    # Independent draws: 800, as it is estimated within a tenth or two.
    assert found.function[1] > 200
    assert found.num_draws == 800
    assert "the function" in str(found)


def test_too_few_draws_are_rejected():
    model = eqx.nn.Linear(1, "scalar", key=jax.random.key(0))
    draws = jax.tree.map(lambda a: jnp.ones((2, 3, *a.shape)), model)
    posterior = bnn.DrawsPosterior(draws, eqx.filter(model, False))
    with pytest.raises(ValueError, match=r"has 3 draws of each chain, .* num_draws"):
        bnn.diagnose(posterior, jnp.ones((2, 1)))
    with pytest.raises(ValueError, match=r"shape \(2, 3\): .* and 4 draws"):
        bnn.rhat(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"shape \(5,\): .* and 2 draws"):
        bnn.ess(np.ones(5))


def test_cosine_cycles_are_those_of_the_paper():
    cycles = bnn.CosineCycles(0.3, length=8, num_draws=2, explore=0.5)
    steps = np.arange(24)
    rates = np.asarray(jax.vmap(cycles)(jnp.asarray(steps)))
    expected = 0.15 * (np.cos(np.pi * (steps % 8) / 8) + 1)
    assert np.allclose(rates, expected, rtol=1e-6)
    assert np.array_equal(jax.vmap(cycles.noisy)(jnp.asarray(steps)), steps % 8 >= 4)
    kept = np.asarray([cycles.num_kept(step, 3) for step in range(25)])
    # Of each eight updates the fifth and the last are kept.
    assert np.array_equal(np.flatnonzero(np.diff(kept)), [4, 7, 12, 15, 20, 23])
    for wrong, message in (
        ({"peak": 0.0}, "peak=0.0"),
        ({"explore": 1.0}, "explore=1.0"),
    ):
        changed: Any = {"peak": 0.3, "length": 8} | wrong
        with pytest.raises(ValueError, match=message):
            bnn.CosineCycles(**changed)


@pytest.mark.slow
@pytest.mark.parametrize("friction", [None, 0.3])
def test_cyclical_draws_have_the_law_of_their_recursion(x64, friction):
    """Mean and covariance at each kept update, from the linear recursion itself."""
    problem = LinearGaussian.random(key=jax.random.key(4), num_data=12, dim=2)
    joint = problem.log_joint()
    precision, mode = np.asarray(problem.precision), np.asarray(problem.mean)
    peak = float(12 * 0.5 / np.linalg.eigvalsh(precision).max())
    cycles = bnn.CosineCycles(peak, length=20, num_draws=2, explore=0.4)
    settings: Any = {"num_warmup": 0, "thin": 4, "num_draws": 4, "num_chains": 8000}
    if friction is None:
        method = bnn.SGLD(joint, cycles, **settings)
    else:
        method = bnn.SGHMC(joint, cycles, friction=friction, **settings)
    model = problem.model(key=jax.random.key(5))
    posterior = bnn.run_chains(
        method, model, (problem.x, problem.y), key=jax.random.key(6), progress=False
    )
    found = draws(posterior)
    mean, covariance = np.asarray(problem.vector(model)) - mode, np.zeros((3, 3))
    if friction is not None:
        # Position and momentum, whose draws from N(0, 1) are the start.
        mean = np.concatenate([mean, np.zeros(3)])
        covariance = np.diag([0.0] * 3 + [1.0] * 3)
    kept = 0
    for step in range(40):
        epsilon = float(cycles(jnp.asarray(step))) / 12
        heat = float(step % 20 >= 8)
        if friction is None:
            move = np.eye(3) - epsilon * precision
            noise = 2 * epsilon * heat * np.eye(3)
        else:
            h, eye = np.sqrt(epsilon), np.eye(3)
            turn = -h * precision
            move = np.block([[eye, h * eye], [turn, (1 - friction) * eye + h * turn]])
            noise = np.diag([0.0] * 3 + [2 * friction * heat] * 3)
        mean, covariance = move @ mean, move @ covariance @ move.T + noise
        if step % 20 in (15, 19):
            own, number = covariance[:3, :3], len(found)
            sd = np.sqrt(np.diag(own))
            centred = (found[:, kept] - mode - mean[:3]) / sd
            assert np.all(np.abs(centred.mean(0)) < 5 / np.sqrt(number))
            correlation = own / np.outer(sd, sd)
            error = np.sqrt((1 + correlation**2) / number)
            estimate = centred.T @ centred / number
            assert np.all(np.abs(estimate - correlation) < 5 * error)
            kept += 1
    assert kept == found.shape[1] == 4


@pytest.mark.slow
def test_draws_of_a_cycle_must_fit_it(problem):
    joint = problem.log_joint()
    cycles = bnn.CosineCycles(0.1, length=10, num_draws=3)
    with pytest.raises(ValueError, match="3 draws 4 updates apart do not fit"):
        bnn.SGLD(joint, cycles, num_warmup=0, thin=4, num_draws=6)
    with pytest.raises(ValueError, match="are not whole cycles"):
        bnn.SGHMC(joint, cycles, num_warmup=0, thin=2, num_draws=7)
    assert bnn.SGLD(joint, cycles, num_warmup=10, thin=2, num_draws=6).num_steps == 30


PRIORS = {
    "numbers of a distribution": lambda s: dist.Normal(0.0, s),
    "a distribution by path": lambda s: bnn.PriorByPath({"*": dist.Uniform(-s, s)}),
    "a module": lambda s: bnn.IsotropicNormal(s),
}
LIKELIHOODS = {
    "a constant of a function": lambda s: (
        (lambda f: dist.Normal(f, 1.0)) if s > 1 else (lambda f: dist.Normal(f, 2.0))
    ),
    "what a function closes over": lambda s: lambda f: dist.Normal(f, s),
    "a default": lambda s: _with_default(s),
    "a partial function": lambda s: functools.partial(_noisy, scale=s),
}


def _noisy(f, scale):
    return dist.Normal(f, scale)


def _with_default(scale):
    def likelihood(f, s=scale):
        return dist.Normal(f, s)

    return likelihood


@pytest.mark.parametrize("name", [*PRIORS, *LIKELIHOODS])
def test_another_prior_or_likelihood_is_another_run(name):
    """Numbers of numpyro's and the insides of functions are settings as well."""

    def joint(s):
        prior = PRIORS[name](s) if name in PRIORS else dist.Normal(0.0, 1.0)
        likelihood = (
            LIKELIHOODS[name](s) if name in LIKELIHOODS else bnn.NormalLikelihood(0.3)
        )
        return bnn.LogJoint(likelihood, prior, num_data=40)

    assert fingerprint(joint(2.0)) == fingerprint(joint(2.0))
    assert fingerprint(joint(2.0)) != fingerprint(joint(0.5))


def test_a_fingerprint_is_the_same_in_another_process():
    """numpyro gathers its fields in a set, whose order differs between processes."""
    code = (
        "import numpyro.distributions as d;"
        "from jaxprob._io.fingerprint import fingerprint as f;"
        "g = lambda x: x in {'a', 'b', 'c'};"
        "print(f([d.StudentT(3.0, 0.5, 2.0), d.TruncatedNormal(0.0, 1.0, low=0.5), g]))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 16


def test_a_chain_says_that_it_does_not_move_the_noise(getkey):
    model = bnn.LearnedNoise(eqx.nn.Linear(1, "scalar", key=getkey()), scale=0.5)
    x = np.linspace(-1.0, 1.0, 20, dtype=np.float32)[:, None]
    joint = bnn.LogJoint(
        bnn.HeteroscedasticNormal(), dist.Normal(0.0, 1.0), num_data=20
    )
    data = (x, x[:, 0])
    with pytest.warns(UserWarning, match=r"stays at 0\.5\. Write random=True"):
        bnn.NUTS(joint).check_training(model, data)
    bnn.NUTS(joint, random=True).check_training(model, data)  # without a warning
    bnn.NUTS(joint, random="model.*").check_training(model, data)


class Scaled(eqx.Module):
    weight: Any

    def __call__(self, x):
        return self.weight * x, jnp.ones(())


def test_outputs_that_do_not_differ_are_left_out_of_a_diagnosis(getkey):
    draws = Scaled(jax.random.normal(getkey(), (2, 100)))
    posterior = bnn.DrawsPosterior(draws, Scaled(None))
    alone = bnn.diagnose(posterior, np.ones(1, np.float32)).function
    assert np.isfinite(alone).all()
    found = bnn.diagnose(posterior, np.array([0.0, 1.0], np.float32)).function
    assert np.allclose(found, alone)
    with pytest.raises(ValueError, match="does not depend on the random leaves"):
        bnn.diagnose(posterior, np.zeros(2, np.float32))


def test_chains_that_stand_at_different_places_do_not_agree():
    weight = jnp.broadcast_to(jnp.array([[0.0], [1.0]]), (2, 100))
    posterior = bnn.DrawsPosterior(Scaled(weight), Scaled(None))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = bnn.diagnose(posterior, np.ones(1, np.float32)).function
    assert found[0] > 1e3


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run whose chains run apart, in threads, and its folder."""
    folder = tmp_path_factory.mktemp("alone")
    with ThreadPoolExecutor(1) as executor:
        return run(folder, executor=executor), folder


def test_chains_apart_are_chains(alone, problem):
    found = draws(alone[0])
    assert found.shape == (2, 23, 3)
    assert not np.array_equal(found[0], found[1])
    error = found.mean((0, 1)) - np.asarray(problem.mean)
    # NUTS on a Gaussian: hardly any correlation between draws.
    assert (np.abs(error) < 5 * np.sqrt(np.diag(problem.covariance) / 46)).all()


@pytest.mark.slow
def test_processes_run_the_same_chains(alone, tmp_path):
    """Without a folder, and from a folder in which one chain is behind."""
    expected = draws(alone[0])
    np.testing.assert_array_equal(draws(run(None, num_processes=2)), expected)
    folder = tmp_path / "run"
    shutil.copytree(alone[1], folder)
    shutil.rmtree(folder / "chain-001")
    np.testing.assert_array_equal(draws(run(folder, num_processes=1)), expected)


def test_draws_of_chains_that_ran_apart_are_loaded(alone, tmp_path):
    method, model, _ = scene()
    expected = draws(alone[0])
    found = bnn.load_draws(method, model, alone[1])
    np.testing.assert_array_equal(draws(found), expected)
    folder = tmp_path / "run"
    shutil.copytree(alone[1], folder)
    max((folder / "chain-001").glob("draws-*")).unlink()
    behind = draws(bnn.load_draws(method, model, folder))
    np.testing.assert_array_equal(behind, expected[:, : behind.shape[1]])
    assert 0 < behind.shape[1] < 23
    shutil.rmtree(folder / "chain-001")
    with pytest.warns(UserWarning, match="draws of 1 of the 2 chains"):
        first = draws(bnn.load_draws(method, model, folder))
    np.testing.assert_array_equal(first, expected[:1])


def test_a_folder_of_chains_apart_takes_no_others(alone):
    with pytest.raises(ValueError, match="chains was apart and is None"):
        run(alone[1])
