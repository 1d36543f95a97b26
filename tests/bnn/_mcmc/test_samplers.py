"""Samplers on linear regression: exact moments, and the bias that theory predicts."""

from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from jaxprob import bnn
from jaxprob.bnn._mcmc.blackjax_kernels import langevin_step
from jaxprob.testing import LinearGaussian


@pytest.fixture
def problem(x64, getkey):
    make = jax.jit(lambda key: LinearGaussian.random(key=key, num_data=12, dim=2))
    return make(getkey())


def run(method, model, batch, num, key):
    arrays, static = eqx.partition(method.init(model, key=key), eqx.is_array)

    def step(arrays, key):
        state, info = method.update(eqx.combine(arrays, static), batch, key=key)
        return eqx.filter(state, eqx.is_array), info

    arrays, info = jax.jit(lambda a, k: jax.lax.scan(step, a, k))(
        arrays, jax.random.split(key, num)
    )
    return eqx.combine(arrays, static), info


def vectors(posterior):
    return np.concatenate(
        [posterior.draws.weight[:, :, 0], posterior.draws.bias], axis=-1
    )


def assert_moments(draws, mean, covariance):
    """Mean and covariance within 5 standard errors, by the effective sample size."""
    sd = np.sqrt(np.diag(covariance))
    centred = (draws - np.asarray(mean)) / sd
    assert np.all(np.abs(centred.mean((0, 1))) < 5 / np.sqrt(bnn.ess(centred)))
    correlation = covariance / np.outer(sd, sd)
    products = centred[..., :, None] * centred[..., None, :]
    error = products.std((0, 1)) / np.sqrt(bnn.ess(products))
    assert np.all(np.abs(products.mean((0, 1)) - correlation) < 5 * error)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        bnn.NUTS,
        lambda j, **k: bnn.HMC(j, num_leapfrog=8, **k),
        lambda j, **k: bnn.AdjustedMCLMC(j, num_steps_each=4, **k),
    ],
)
@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_hamiltonian_chains_have_the_exact_moments(problem, getkey, make, temperature):
    joint = problem.log_joint(temperature=temperature)
    method = make(joint, num_warmup=300, num_draws=2000)
    model = problem.model(key=getkey())
    state, info = run(method, model, (problem.x, problem.y), method.num_steps, getkey())
    draws = vectors(method.posterior(state))
    assert draws.shape == (4, 2000, 3)
    assert_moments(draws, problem.mean, temperature * np.asarray(problem.covariance))
    assert np.all(bnn.rhat(draws) < 1.01)
    accepted = np.asarray(info["acceptance"])[300:].mean()
    # .93 over seeds, with a spread of .01; trajectories of fixed length in three
    # dimensions are accepted more often.
    assert 0.7 < accepted < (0.98 if make is bnn.NUTS else 0.99)
    assert int(state.divergences.sum()) == 0


@pytest.mark.slow
@pytest.mark.parametrize("num_leapfrog", [1, 3])
def test_a_transition_evaluates_nothing_twice(problem, getkey, num_leapfrog):
    """L gradients each, and one before the first."""
    calls = []

    class Counted(eqx.Module):
        def __call__(self, output):
            jax.debug.callback(lambda: calls.append(1))
            return dist.Normal(output, 1.0)

    joint = bnn.LogJoint(Counted(), bnn.IsotropicNormal(), num_data=len(problem.y))
    method = bnn.HMC(
        joint, num_leapfrog=num_leapfrog, num_warmup=4, num_draws=4, num_chains=1
    )
    model = problem.model(key=getkey())
    run(method, model, (problem.x, problem.y), method.num_steps, getkey())
    jax.effects_barrier()
    assert len(calls) == 1 + num_leapfrog * method.num_steps


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [bnn.NUTS, lambda j, **k: bnn.HMC(j, num_leapfrog=3, **k)]
)
def test_a_transition_leaves_the_density_and_gradient_of_its_end(problem, getkey, make):
    """The next one begins with them: a stale gradient would bend each first step."""
    method = make(problem.log_joint(temperature=0.5), num_warmup=5, num_draws=5)
    model, batch = problem.model(key=getkey()), (problem.x, problem.y)
    state, _ = run(method, model, batch, 7, getkey())

    def density(w):
        return method.log_density(model, w, batch)

    values, slopes = jax.vmap(jax.value_and_grad(density))(state.position)
    _, value, slope = state.kernel
    assert np.allclose(value, values, rtol=1e-10)
    assert np.allclose(slope, slopes, rtol=1e-10, atol=1e-10)
    # Of a Gaussian it is -A (w - m) / T.
    precision, mean = np.asarray(problem.precision), np.asarray(problem.mean)
    exact = -(np.asarray(state.position) - mean) @ precision / 0.5
    assert np.allclose(slope, exact, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_draws_are_kept_thinned_and_in_order(problem, getkey):
    model = problem.model(key=getkey())
    batch = (problem.x, problem.y)
    key = getkey()
    every = bnn.NUTS(problem.log_joint(), num_warmup=20, num_draws=12, num_chains=2)
    thinned = bnn.NUTS(
        problem.log_joint(), num_warmup=20, num_draws=4, num_chains=2, thin=3
    )
    assert every.num_steps == thinned.num_steps == 32
    first, _ = run(every, model, batch, 32, key)
    second, _ = run(thinned, model, batch, 32, key)
    assert np.array_equal(first.draws[:, 2::3], second.draws)
    posterior = every.posterior(first)
    assert posterior.num_atoms == 24
    atom = posterior.atom(12 + 5)
    assert np.array_equal(problem.vector(atom), first.draws[1, 5])
    assert np.allclose(problem.vector(posterior.mean()), first.draws.mean((0, 1)))
    with pytest.raises(ValueError, match="no draw yet: 0 updates"):
        every.posterior(every.init(model, key=key))


@pytest.mark.slow
def test_past_the_number_of_draws_the_oldest_make_room(problem, getkey):
    """A ring of three beside a buffer of eight, after eight updates."""
    model, key = problem.model(key=getkey()), getkey()
    kept = {}
    for num in (3, 8):
        method = bnn.SGLD(
            problem.log_joint(), 0.01, num_warmup=0, thin=1, num_draws=num
        )
        state, _ = run(method, model, (problem.x, problem.y), 8, key)
        kept[num] = vectors(method.posterior(state))
    assert np.array_equal(kept[3], kept[8][:, 5:])


@pytest.mark.slow
def test_frozen_leaves_stay_and_the_others_have_their_conditional(problem, getkey):
    model = problem.model(key=getkey())
    method = bnn.NUTS(
        problem.log_joint(), num_warmup=200, num_draws=1000, random="weight"
    )
    batch = (problem.x, problem.y)
    state, _ = run(method, model, batch, method.num_steps, getkey())
    posterior = method.posterior(state)
    assert np.array_equal(posterior.sample(key=getkey()).bias, model.bias)
    precision = np.asarray(problem.precision)[:2, :2]
    right = problem.x.T @ (problem.y - model.bias) / problem.noise**2
    mean = np.linalg.solve(precision, right)
    draws = np.asarray(posterior.draws.weight[:, :, 0])
    assert_moments(draws, mean, np.linalg.inv(precision))


@pytest.mark.slow
def test_less_than_all_data_is_rejected_and_divergence_reported(problem, getkey):
    method = bnn.NUTS(problem.log_joint(), num_warmup=0, num_draws=3, num_chains=2)
    model = problem.model(key=getkey())
    state = method.init(model, key=getkey())
    with pytest.raises(ValueError, match="has 5 rows and num_data is 12"):
        method.update(state, (problem.x[:5], problem.y[:5]), key=getkey())
    wild = bnn.NUTS(
        problem.log_joint(), num_warmup=0, num_draws=3, num_chains=2, step_size=1e4
    )
    state, _ = run(wild, model, (problem.x, problem.y), 3, getkey())
    with pytest.raises(ValueError, match="diverged in each of its 3 transitions"):
        wild.posterior(state)
    some = eqx.tree_at(lambda s: s.divergences, state, jnp.array([0, 1], jnp.int32))
    with pytest.warns(UserWarning, match=r"of 3 each: chain 1 in 1\. .* Lower step"):
        wild.posterior(some)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_full_batch_langevin_has_the_variance_of_its_step_size(
    problem, getkey, temperature
):
    """1 / (lambda (1 - eps lambda / 2)) along each eigenvector, not the posterior's.

    The eigenvalues are those of the tempered potential, 1 / T times the posterior's.
    """
    rate = 0.08 * temperature
    joint = problem.log_joint(temperature=temperature)
    method = bnn.SGLD(
        joint, rate, num_warmup=200, thin=5, num_draws=20_000, num_chains=4
    )
    values, basis = np.linalg.eigh(np.asarray(problem.precision) / temperature)
    assert_spectrum(
        method, problem, getkey, 1 / (values * (1 - rate / 12 * values / 2)), basis
    )


@pytest.mark.slow
@pytest.mark.parametrize(("friction", "temperature"), [(0.1, 1.0), (0.7, 0.5)])
def test_full_batch_sghmc_has_the_variance_of_its_step_size(
    problem, getkey, friction, temperature
):
    """1 / (lambda (1 - eps lambda / (2 (2 - a)))) along each eigenvector."""
    values, basis = np.linalg.eigh(np.asarray(problem.precision) / temperature)
    rate = 12 * 1.0 / values.max()
    joint = problem.log_joint(temperature=temperature)
    method = bnn.SGHMC(
        joint,
        rate,
        num_warmup=500,
        thin=10,
        num_draws=10_000,
        friction=friction,
        num_chains=4,
    )
    stationary = 1 / (values * (1 - rate / 12 * values / (2 * (2 - friction))))
    assert_spectrum(method, problem, getkey, stationary, basis)


def assert_spectrum(method, problem, getkey, stationary, basis):
    """Variances along eigenvectors in 5 s.e., and off the posterior's by more."""
    model = problem.model(key=getkey())
    state, _ = run(method, model, (problem.x, problem.y), method.num_steps, getkey())
    draws = np.asarray(state.draws)
    squares = ((draws - np.asarray(problem.mean)) @ basis) ** 2
    error = squares.std((0, 1)) / np.sqrt(bnn.ess(squares))
    assert np.all(np.abs(squares.mean((0, 1)) - stationary) < 5 * error)
    # The test sees the difference between this distribution and the posterior.
    precision = np.diag(basis.T @ np.asarray(problem.precision) @ basis)
    exact = method.log_joint.temperature / precision
    assert np.any(np.abs(squares.mean((0, 1)) - exact) > 10 * error)


@pytest.mark.slow
def test_corrected_langevin_steps_have_no_bias_at_any_step_size(problem, getkey):
    """HMC of one leapfrog step is MALA: without the correction the variance along the
    steepest eigenvector would be 1.2 and 2.8 times too large.
    """
    covariance = np.asarray(problem.covariance)
    shortest = np.sqrt(np.linalg.eigvalsh(covariance).min())
    model = problem.model(key=getkey())
    for size in (0.8, 1.6):
        method = bnn.HMC(
            problem.log_joint(), num_leapfrog=1, num_warmup=0, num_draws=6000,
            num_chains=8, initial="model", jitter=0.0,
            step_size=float(size * shortest),
        )  # fmt: skip
        state, info = run(method, model, (problem.x, problem.y), 6000, getkey())
        draws = vectors(method.posterior(state))[:, 500:]
        assert_moments(draws, problem.mean, covariance)
        assert np.asarray(info["acceptance"]).mean() < (0.98 if size < 1 else 0.8)


@pytest.mark.slow
def test_minibatch_langevin_has_its_exact_second_moment(problem, getkey):
    """M solves M = E[F M F'] + 2 eps I + eps^2 G: constant noise is not enough."""
    batch_size = 3
    design = np.asarray(problem.design(problem.x))
    prior = np.eye(3) / problem.prior_scale**2
    hessians = 12 * np.einsum("ni,nj->nij", design, design) / problem.noise**2 + prior
    mode = np.asarray(problem.mean)
    residuals = design @ mode - np.asarray(problem.y)
    gradients = 12 * residuals[:, None] * design / problem.noise**2 + prior @ mode
    mean = hessians.mean(0)
    noise = np.einsum("ni,nj->ij", gradients, gradients) / 12 / batch_size
    extra = np.mean([np.kron(h, h) for h in hessians], 0) - np.kron(mean, mean)

    def solved(rate, varying):
        """The fixed point, with the Hessian of each batch or with their mean."""
        epsilon = rate / 12
        plain = np.eye(3) - epsilon * mean
        square = np.kron(plain, plain) + varying * epsilon**2 * extra / batch_size
        if np.abs(np.linalg.eigvals(square)).max() >= 1:
            return np.full((3, 3), np.inf)
        right = 2 * epsilon * np.eye(3) + epsilon**2 * noise
        return np.linalg.solve(np.eye(9) - square, right.ravel()).reshape(3, 3)

    # The largest rate at which the batches' Hessians add at most three tenths: beyond
    # it fourth moments, and then second ones, are infinite for some data.
    for rate in 0.3 * 0.9 ** np.arange(40):
        moment, constant = solved(rate, 1.0), solved(rate, 0.0)
        if np.all(np.diag(moment) < 1.3 * np.diag(constant)):
            break
    method = bnn.SGLD(
        problem.log_joint(),
        float(rate),
        num_warmup=200,
        thin=5,
        num_draws=40_000,
        num_chains=4,
    )
    posterior = bnn.run_chains(
        method,
        problem.model(key=getkey()),
        (problem.x, problem.y),
        key=getkey(),
        batch_size=batch_size,
        checkpoint_every=10_000,
        progress=False,
    )
    draws = vectors(posterior) - mode
    scale = np.outer(np.sqrt(np.diag(moment)), np.sqrt(np.diag(moment)))
    products = draws[..., :, None] * draws[..., None, :] / scale
    error = products.std((0, 1)) / np.sqrt(bnn.ess(products))
    assert np.all(np.abs(products.mean((0, 1)) - moment / scale) < 5 * error)
    # Neither the posterior nor a Lyapunov equation would pass.
    for other in (constant, np.asarray(problem.covariance)):
        assert np.any(np.abs(other - moment) / scale > 10 * error)


@pytest.mark.slow
def test_blackjax_still_means_what_we_rely_on(x64):
    """A canary: the drift, the noise and the key of one Langevin step."""
    key = jax.random.key(3)
    w, g = jnp.array([1.0, -2.0]), jnp.array([0.5, 4.0])
    out = langevin_step(key, w, g, step_size=jnp.asarray(0.01))
    noise = (out - w - 0.01 * g) / np.sqrt(0.02)
    many = jax.vmap(lambda k: langevin_step(k, w, g, step_size=jnp.asarray(0.01)))(
        jax.random.split(key, 40_000)
    )
    noise = (np.asarray(many) - np.asarray(w + 0.01 * g)) / np.sqrt(0.02)
    assert np.all(np.abs(noise.mean(0)) < 5 / np.sqrt(40_000))
    assert np.all(np.abs(noise.var(0) - 1) < 5 * np.sqrt(2 / 40_000))


@pytest.mark.slow
def test_the_integrator_reverses_and_its_energy_error_is_of_second_order(
    problem, getkey
):
    """Flipping the momentum leads back; mean and variance of dH ~ eps^4, as its size is
    eps^2 with either sign; and E exp(-dH) = 1.
    """
    from blackjax.mcmc.integrators import IntegratorState, velocity_verlet

    method = bnn.HMC(problem.log_joint())
    model = problem.model(key=getkey())

    def density(w):
        return method.log_density(model, w, (problem.x, problem.y))

    def kinetic(p, position=None):
        return 0.5 * jnp.sum(p**2)

    step = velocity_verlet(density, cast(Any, kinetic))

    def travel(w, p, epsilon, num):
        value, gradient = jax.value_and_grad(density)(w)
        state = IntegratorState(w, p, value, gradient)
        end = jax.lax.fori_loop(0, num, lambda _, s: step(s, epsilon), state)
        change = kinetic(end.momentum) - kinetic(p) - end.logdensity + value
        return end.position, end.momentum, change

    num, root = 20_000, jnp.linalg.cholesky(problem.covariance)
    w = problem.mean[None] + jax.random.normal(getkey(), (num, 3)) @ root.T
    p = jax.random.normal(getkey(), (num, 3))
    epsilon = 0.5 * np.sqrt(np.linalg.eigvalsh(problem.covariance).min())
    errors = []
    for factor in (1, 2):
        go = jax.jit(jax.vmap(lambda w, p, f=factor: travel(w, p, epsilon / f, 7 * f)))
        there, momentum, change = go(w, p)
        back, flipped, _ = go(there, -momentum)
        assert np.allclose(back, w, rtol=0.0, atol=1e-10)
        assert np.allclose(-flipped, p, rtol=0.0, atol=1e-10)
        weight = np.exp(-np.asarray(change))
        assert abs(weight.mean() - 1) < 5 * weight.std() / np.sqrt(num)
        errors.append((np.mean(change), np.var(change)))
    ratios = np.divide(*errors)
    assert np.all((ratios > 14) & (ratios < 19))


@pytest.mark.slow
def test_schedules_and_settings(problem, getkey):
    schedule: Any = optax.constant_schedule(0.01)
    model = problem.model(key=getkey())
    batch = (problem.x, problem.y)
    key = getkey()
    a = bnn.SGLD(problem.log_joint(), schedule, num_warmup=2, thin=2, num_draws=3)
    b = bnn.SGLD(problem.log_joint(), 0.01, num_warmup=2, thin=2, num_draws=3)
    first, _ = run(a, model, batch, 8, key)
    second, _ = run(b, model, batch, 8, key)
    assert np.array_equal(first.draws, second.draws)
    last = problem.vector(a.model(first))
    assert np.array_equal(first.draws[0, -1], last)
    with pytest.raises(ValueError, match="no draw yet"):
        a.posterior(a.init(model, key=key))
    with pytest.raises(ValueError, match="thin=0"):
        bnn.SGLD(problem.log_joint(), 0.01, num_warmup=2, thin=0, num_draws=3)
    with pytest.raises(ValueError, match="num_draws=0"):
        bnn.NUTS(problem.log_joint(), num_draws=0)
    with pytest.raises(ValueError, match="target_acceptance=1"):
        bnn.NUTS(problem.log_joint(), target_acceptance=1.0)
    with pytest.raises(ValueError, match="jitter=1"):
        bnn.HMC(problem.log_joint(), jitter=1.0)
