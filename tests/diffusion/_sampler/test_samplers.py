"""Samplers against exact flows and exact moments of their own discrete schemes."""

import itertools
import re
from collections.abc import Callable

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob.diffusion import (
    DDIM,
    EDM,
    VE,
    VP,
    CustomGrid,
    DenoisingLoss,
    DPMSolverPP,
    ExpAB,
    FocusedGrid,
    Guided,
    Heun,
    KarrasGrid,
    LogLevelGrid,
    ODESampler,
    Preconditioned,
    PredictorCorrector,
    SDESampler,
    UniformTimeGrid,
    decode,
    encode,
    nn,
    sample,
)
from jaxprob.diffusion._denoiser.denoiser import at_level
from jaxprob.testing import (
    GaussianMixture,
    GaussianMixtureDenoiser,
    eight_gaussians,
    gaussian_flow,
    reference_flow,
)

from ..cases import SCHEDULES

schedules = pytest.mark.parametrize("name", SCHEDULES)


def one_gaussian():
    return GaussianMixture(
        jnp.ones(1),
        jnp.array([[1.0, -0.5]]),
        jnp.array([[[1.0, 0.6], [0.6, 0.5]]]),
    )


def flows(sampler, denoiser, x, high, low):
    solve = jax.jit(jax.vmap(lambda x: sampler.flow(denoiser, x, high, low)))
    return solve(x)


@pytest.mark.slow
@schedules
def test_ode_follows_the_exact_flow_of_a_gaussian(name, x64, getkey):
    schedule, mixture = SCHEDULES[name](), one_gaussian()
    denoiser = GaussianMixtureDenoiser(mixture, schedule)
    sampler = ODESampler(solver=dfx.Dopri8(), rtol=1e-10, atol=1e-10)
    high, low = 20.0, 0.01
    x = high * jax.random.normal(getkey(), (16, 2))
    got, _, failed = flows(sampler, denoiser, x, high, low)
    begin, end = (schedule.time_of_level(s) for s in (high, low))
    start = schedule.alpha(begin) * x
    expected = jax.vmap(lambda x: gaussian_flow(mixture, schedule, x, begin, end))(
        start
    )
    assert not failed.any()
    assert jnp.allclose(schedule.alpha(end) * got, expected, rtol=1e-8, atol=1e-8)


# Two that know their inverse, two that search for it; digits are lost in schedules, and
# `test_schedules.py` has them all.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["vp_linear", "ve", "vp_square", "sub_vp_numerical"])
def test_ode_follows_the_exact_flow_in_float32(name, getkey):
    schedule, mixture = SCHEDULES[name](), one_gaussian()
    denoiser = GaussianMixtureDenoiser(mixture, schedule)
    high, low = 20.0, 0.01
    x = high * jax.random.normal(getkey(), (16, 2))
    sampler = ODESampler(rtol=1e-5, atol=1e-5)
    got, _, _ = flows(sampler, denoiser, x, high, low)
    begin, end = (schedule.time_of_level(s) for s in (high, low))
    start = schedule.alpha(begin) * x
    expected = jax.vmap(lambda x: gaussian_flow(mixture, schedule, x, begin, end))(
        start
    )
    assert got.dtype == jnp.float32
    assert jnp.allclose(schedule.alpha(end) * got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_ode_on_a_mixture_in_float32_is_the_reference():
    high, low = 80.0, 0.002
    z = np.random.default_rng(0).normal(size=(32, 2))
    with jax.enable_x64(True):
        exact = GaussianMixtureDenoiser(eight_gaussians(), VE(1e-3, 100.0))
        reference = jax.vmap(lambda x: reference_flow(exact, x, high, low))(high * z)
        reference = np.asarray(reference)
    denoiser = GaussianMixtureDenoiser(eight_gaussians(), VE(1e-3, 100.0))
    x = jnp.asarray(high * z, jnp.float32)
    got, _, _ = flows(ODESampler(rtol=1e-6, atol=1e-6), denoiser, x, high, low)
    error = np.linalg.norm(np.asarray(got) - reference, axis=-1)
    # Points near the border of two modes are moved apart by up to exp(3) by the flow.
    assert np.median(error) < 1e-4
    assert np.sqrt(np.mean(error**2)) < 2e-3


# The exact flow of a Gaussian is tested with every schedule; here, one of each kind.
UNLIKE = ("vp_linear", "ve", "sub_vp_numerical", "rectified", "shifted")


@pytest.mark.slow
def test_schedules_give_one_flow(x64, getkey):
    x = 20.0 * jax.random.normal(getkey(), (8, 2))
    sampler = ODESampler(solver=dfx.Dopri8(), rtol=1e-11, atol=1e-11)
    ends = [
        flows(
            sampler, GaussianMixtureDenoiser(eight_gaussians(), make()), x, 20.0, 0.01
        )[0]
        for make in (SCHEDULES[name] for name in UNLIKE)
    ]
    for end in ends[1:]:
        assert jnp.allclose(end, ends[0], atol=1e-8)


@pytest.mark.slow
def test_flow_there_and_back(x64, getkey):
    denoiser = GaussianMixtureDenoiser(eight_gaussians(0.2), VP.linear())
    x = jax.random.normal(getkey(), (8, 2))
    sampler = ODESampler(solver=dfx.Dopri8(), rtol=1e-9, atol=1e-9)
    there, _, _ = flows(sampler, denoiser, x, 0.01, 100.0)
    back, _, _ = flows(sampler, denoiser, there, 100.0, 0.01)
    assert jnp.max(jnp.abs(back - x)) < 1e-5


COUNTED = {
    "tsit5": (dfx.Tsit5(), None),
    "heun": (dfx.Heun(), None),
    "dopri8": (dfx.Dopri8(), None),
    "bosh3": (dfx.Bosh3(), None),
    "tsit5_fixed": (dfx.Tsit5(), 10),
    "heun_fixed": (dfx.Heun(), 10),
    "euler_fixed": (dfx.Euler(), 10),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTED)
def test_evaluations_are_counted(name, getkey):
    solver, num_steps = COUNTED[name]
    calls = []

    def net(x, c, cond, *, key):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.tanh(3.0 * x)

    denoiser = Preconditioned(net, VP.linear())
    sampler = ODESampler(num_steps, solver)
    draw = jax.jit(lambda key: sampler.draw(denoiser, (2,), key=key))(getkey())
    jax.effects_barrier()
    # Two more tell the mean at the first level, for all samples of one condition.
    assert len(calls) == int(draw.num_evaluations) + 2


def euler_maruyama_moments(mixture, levels, eta):
    """Mean and covariance of the scheme's last point, by recursion, on one Gaussian.

    In y = x / sqrt(1 + s^2) a step is y <- y + h [a(y)] + noise with a affine. Levels
    are in units of the root mean variance, and the sampler begins at N(0, s^2 + 1).
    """
    covariance = np.asarray(mixture.covariances[0])
    centre, square = np.asarray(mixture.means[0]), np.mean(np.diag(covariance))
    mean, covariance = np.zeros(len(centre)), covariance / square
    eye = np.eye(len(mean))
    m, v = np.zeros(len(mean)), eye
    for s, after in itertools.pairwise(levels):
        h, q = np.log(s / after), np.sqrt(1 + s**2)
        gain = covariance @ np.linalg.inv(covariance + s**2 * eye)
        # D = mean + gain (q y - mean)
        linear = (1 + eta**2) * gain - (1 / q**2 + eta**2) * eye
        constant = (1 + eta**2) * (eye - gain) @ mean / q
        step = eye + h * linear
        m = step @ m + h * constant
        v = step @ v @ step.T + h * eta**2 * 2 * s**2 / q**2 * eye
    s = levels[-1]
    q = np.sqrt(1 + s**2)
    gain = covariance @ np.linalg.inv(covariance + s**2 * eye)
    m, v = q * m, q**2 * v
    m, v = mean + gain @ (m - mean), gain @ v @ gain.T
    return centre + np.sqrt(square) * m, square * v


def assert_moments(x, mean, covariance):
    """Within 5 standard errors, for a Gaussian sample."""
    n = len(x)
    error = np.abs(x.mean(0) - mean) / np.sqrt(np.diag(covariance) / n)
    assert (error < 5.0).all(), error
    variances = np.diag(covariance)
    spread = np.sqrt((covariance**2 + np.outer(variances, variances)) / n)
    error = np.abs(np.cov(x.T) - covariance) / spread
    assert (error < 5.0).all(), error


@pytest.mark.slow
@pytest.mark.parametrize("eta", [1.0, 0.5])
@pytest.mark.parametrize("tree", [False, True])
def test_euler_maruyama_has_the_moments_of_its_scheme(eta, tree, getkey):
    """Coarse on purpose: the moments of 20 steps are not those of the data."""
    mixture = one_gaussian()
    denoiser = GaussianMixtureDenoiser(mixture, VP.linear())
    grid = LogLevelGrid(20, level_max=50.0, level_min=0.01)
    sampler = SDESampler(grid, eta=eta, brownian_tree=tree)
    num = 10_000 if tree else 100_000
    draws = sample(denoiser, sampler, key=getkey(), num_samples=num, shape=(2,))
    mean, covariance = euler_maruyama_moments(
        mixture, np.geomspace(50.0, 0.01, 21), eta
    )
    assert_moments(np.asarray(draws.x_0), mean, covariance)


@pytest.mark.parametrize(
    ("solver", "num_steps"),
    [(dfx.Euler(), 1000), (dfx.SEA(), 400), (dfx.SRA1(), 150), (dfx.ShARK(), 150)],
)
@pytest.mark.slow
def test_reverse_sde_gives_the_data_back(solver, num_steps, getkey):
    mixture = one_gaussian()
    denoiser = GaussianMixtureDenoiser(mixture, VP(lambda t: t, t_max=10.0))
    sampler = SDESampler(LogLevelGrid(num_steps, level_min=0.01), solver)
    draws = sample(denoiser, sampler, key=getkey(), num_samples=20_000, shape=(2,))
    assert_moments(
        np.asarray(draws.x_0),
        np.asarray(mixture.mean()),
        np.asarray(mixture.covariance()),
    )


SAMPLERS = {
    "ode": ODESampler(),
    "ode_fixed": ODESampler(KarrasGrid(10), dfx.Heun()),
    "expab": ExpAB(6),
    "dpm": DPMSolverPP(6),
    "ddpm": DDIM(6, eta=1.0),
    "churn": Heun(4, churn=2.0),
    "sde": SDESampler(20),
    "sde_shark": SDESampler(20, dfx.ShARK()),
    "langevin": PredictorCorrector(6),
}


def bent(x, c, cond, *, key):
    return jnp.tanh(3.0 * x)


# For what holds with any denoiser: it compiles sooner than a mixture of Gaussians, and
# five draws are one program for the tests of a sampler.
BENT = Preconditioned(bent, VP.linear())


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_do_not_depend_on_their_batch(name, getkey):
    key, sampler, settings = getkey(), SAMPLERS[name], {"num_samples": 5, "shape": (2,)}
    many = sample(BENT, sampler, key=key, **settings).x_0
    # Two whole chunks and a rest: batches of two, and of one.
    chunked = sample(BENT, sampler, key=key, batch_size=2, **settings).x_0
    alone = jax.jit(lambda key: sampler(BENT, (2,), key=key))(
        jax.random.fold_in(key, 2)
    )
    assert jnp.allclose(many, chunked, atol=1e-6)
    assert jnp.allclose(many[2], alone, atol=1e-5)
    assert len(np.unique(np.asarray(many)[:, 0])) == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_conditions_go_with_their_samples(name, getkey):
    """The denoiser whose data are the condition samples the condition."""

    def net(x, c, cond, *, key):
        return cond

    denoiser = Preconditioned(net, VP.linear(), "x0")
    cond = jax.random.normal(getkey(), (5, 3))
    draws = sample(
        denoiser, SAMPLERS[name], key=getkey(), num_samples=5, shape=(3,), cond=cond
    )
    assert jnp.allclose(draws.x_0, cond, atol=1e-5)


@pytest.mark.slow
def test_gradients_pass_through_the_ode(x64, getkey):
    """d sample / d mean of one Gaussian: the flow moves with the mean."""
    key = getkey()

    @jax.jit
    def first(shift):
        mixture = GaussianMixture(
            jnp.ones(1), jnp.full((1, 1), shift), 0.3 * jnp.ones((1, 1, 1))
        )
        denoiser = GaussianMixtureDenoiser(mixture, VP.linear())
        return ODESampler(rtol=1e-8, atol=1e-8)(denoiser, (1,), key=key)[0]

    h = 1e-5
    finite_difference = (first(0.5 + h) - first(0.5 - h)) / (2.0 * h)
    assert jnp.allclose(jax.jit(jax.grad(first))(0.5), finite_difference, rtol=1e-5)


def test_grids_fall_from_end_to_end():
    schedule = VP.linear()
    ends = {"level_max": 80.0, "level_min": 0.002}
    kinds = (LogLevelGrid, KarrasGrid, FocusedGrid, UniformTimeGrid)
    grids = [kind(18, **ends) for kind in kinds] + [KarrasGrid(18, rho=3.0, **ends)]
    for grid in grids:
        levels = grid.levels(schedule, (2,))
        assert levels.dtype == np.float64
        assert len(levels) == 19
        np.testing.assert_allclose(levels[[0, -1]], [80.0, 0.002], rtol=1e-12)
        assert (np.diff(levels) < 0).all()
    # Karras et al., equation 5, at i = 9 of 18.
    middle = ((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7
    karras = KarrasGrid(18, **ends).levels(schedule, (2,))
    np.testing.assert_allclose(karras[9], middle)
    assert CustomGrid([3.0, 1.0]).levels(schedule, (2,)).tolist() == [3.0, 1.0]


def nan_net(x, c, cond, *, key):
    """Not finite below noise level 1."""
    return jnp.where(c < 0.0, jnp.nan, x)


@pytest.mark.slow
def test_a_solver_at_its_maximum_is_an_error_not_a_hang(getkey):
    sampler = ODESampler(max_steps=3)
    with pytest.raises(RuntimeError, match="maximum of steps for 4 of 4"):
        sample(BENT, sampler, key=getkey(), num_samples=4, shape=(2,))
    assert jnp.isnan(jax.jit(lambda key: sampler(BENT, (2,), key=key))(getkey())).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ode", "expab", "churn", "sde", "langevin"])
def test_a_network_that_is_not_finite_is_an_error_with_its_step(name, getkey):
    denoiser = Preconditioned(nan_net, VP.linear())
    with pytest.raises(RuntimeError, match="4 of 4 samples are not finite") as caught:
        sample(denoiser, SAMPLERS[name], key=getkey(), num_samples=4, shape=(2,))
    found = re.search(r"step (\d+) of (\d+), noise level (\S+)\. ", str(caught.value))
    assert found is not None
    step, steps, level = int(found[1]), int(found[2]), float(found[3])
    # The levels fall from 1.5e2 to 0.002: more than a step below 1 it cannot be.
    assert 1 < step < steps
    assert (2e-3 / 152.0) ** (1.0 / 4) < level < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_trajectories_lead_to_their_samples(name, getkey):
    denoiser = BENT
    key, sampler = getkey(), SAMPLERS[name]
    settings = {"key": key, "num_samples": 5, "shape": (2,)}
    draws = sample(denoiser, sampler, trajectory=True, **settings)
    plain = sample(denoiser, sampler, **settings)
    assert plain.path is None
    assert jnp.allclose(draws.x_0, plain.x_0, atol=1e-5)
    levels = np.asarray(draws.levels)
    assert draws.path is not None
    assert draws.path.shape == (*levels.shape, 2)
    assert (np.diff(levels, axis=1) < 0.0).all()
    last = at_level(denoiser, draws.path[2, -1], float(levels[2, -1]), None)
    assert jnp.allclose(last, draws.x_0[2], atol=1e-5)
    # It begins with noise of the first level and nothing else.
    size = np.sqrt(np.mean(np.asarray(draws.path[:, 0]) ** 2)) / levels[0, 0]
    assert 0.4 < size < 1.8


@pytest.mark.slow
def test_the_trajectory_of_the_flow_is_the_flow(x64, getkey):
    mixture, schedule = one_gaussian(), VE(0.001, 100.0)
    denoiser = GaussianMixtureDenoiser(mixture, schedule)
    sampler = ODESampler(solver=dfx.Dopri8(), rtol=1e-9, atol=1e-9)
    draw = sampler.draw(denoiser, (2,), key=getkey(), trajectory=True)
    assert draw.levels is not None
    assert draw.path is not None
    levels = jnp.asarray(denoiser.standardised()[1].scale) * draw.levels
    begin = schedule.time_of_level(levels[0])
    for i in (1, 16, 32):
        end = schedule.time_of_level(levels[i])
        expected = gaussian_flow(mixture, schedule, draw.path[0], begin, end)
        # Between steps the solver interpolates, of lower order.
        assert jnp.allclose(draw.path[i], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_together_the_worst_example_sets_the_steps(x64, getkey):
    """Every example is as accurate as alone, and all take the same steps."""
    denoiser = GaussianMixtureDenoiser(eight_gaussians(), EDM(80.0, t_min=0.002))
    key, num = getkey(), 64

    def errors(**settings):
        sampler = ODESampler(**settings)
        draws = sample(denoiser, sampler, key=key, num_samples=num, shape=(2,))
        counts = np.asarray(draws.num_evaluations)
        return np.linalg.norm(draws.x_0 - exact, axis=-1), counts

    fine = ODESampler(rtol=1e-9, atol=1e-9)
    exact = sample(denoiser, fine, key=key, num_samples=num, shape=(2,)).x_0
    alone, each = errors()
    together, all_of_them = errors(shared_steps=True)
    assert len(np.unique(each)) > 1
    assert len(np.unique(all_of_them)) == 1
    assert all_of_them[0] >= 0.9 * np.max(each)
    assert together.max() < 2.0 * alone.max()
    failed = ODESampler(max_steps=3, shared_steps=True)
    with pytest.raises(RuntimeError, match="maximum of steps for 4 of 4"):
        sample(denoiser, failed, key=key, num_samples=4, shape=(2,))


@pytest.mark.slow
def test_conditions_and_trajectories_of_a_batch_solved_together(getkey):
    def net(x, c, cond, *, key):
        return cond

    denoiser = Preconditioned(net, VP.linear(), "x0")
    cond = jax.random.normal(getkey(), (5, 3))
    sampler = ODESampler(shared_steps=True)
    draws = sample(
        denoiser,
        sampler,
        key=getkey(),
        num_samples=5,
        shape=(3,),
        cond=cond,
        batch_size=2,
        trajectory=True,
    )
    assert jnp.allclose(draws.x_0, cond, atol=1e-5)
    assert draws.path is not None
    assert draws.path.shape == (5, 33, 3)
    assert jnp.allclose(draws.path[:, -1], cond, atol=0.02)


@pytest.mark.slow
def test_a_progress_bar_changes_no_sample(getkey, capsys):
    denoiser = GaussianMixtureDenoiser(eight_gaussians(), VP.linear())
    settings = {"key": getkey(), "num_samples": 7, "shape": (2,)}
    quiet = sample(denoiser, DDIM(4), **settings)
    assert capsys.readouterr().err == ""
    shown = sample(denoiser, DDIM(4), progress=True, batch_size=3, **settings)
    assert "3/3" in capsys.readouterr().err
    assert jnp.allclose(quiet.x_0, shown.x_0, atol=1e-6)


@pytest.mark.slow
def test_unknown_conditions_are_refused_with_their_row(getkey):
    net = nn.ResidualMLP(2, width=8, depth=1, num_classes=3, key=getkey())
    denoiser = Preconditioned(net, VP.linear())

    def draw(cond):
        sample(denoiser, DDIM(2), key=getkey(), num_samples=4, shape=(2,), cond=cond)

    with pytest.raises(ValueError, match="cond row 2 is class 3, outside 0"):
        draw(jnp.array([0, 2, 3, 1]))
    with pytest.raises(TypeError, match=r"cond is float32.*cond.astype\(int\)"):
        draw(jnp.zeros(4))
    with pytest.raises(ValueError, match=r"row 1 is class -1.*stands for no class"):
        draw(jnp.array([0, -1, 1, 1]))
    with pytest.raises(ValueError, match="cond row 1 is class 7"):
        DenoisingLoss().check(
            denoiser, (np.zeros((2, 2), np.float32), np.array([0, 7]))
        )
    net = nn.ResidualMLP(2, width=8, depth=1, cond_dim=3, key=getkey())
    denoiser = Preconditioned(net, VP.linear())
    with pytest.raises(ValueError, match=r"rows of shape \(2,\) where \(3,\)"):
        draw(jnp.zeros((4, 2)))
    partly = jnp.zeros((4, 3)).at[2, 1].set(jnp.nan)
    with pytest.raises(ValueError, match="cond row 2 is not finite, first in column 1"):
        draw(partly)
    known = np.isfinite(partly).all(axis=1)
    draw(nn.Condition(jnp.nan_to_num(partly), known))
    denoiser = Preconditioned(
        nn.ResidualMLP(2, width=8, depth=1, key=getkey()), VP.linear()
    )
    with pytest.raises(ValueError, match="built without one"):
        draw(jnp.zeros(4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SDESampler(0), "at least one step"),
        (lambda: SDESampler(eta=-1.0), "at least 0"),
        (lambda: PredictorCorrector(eta=2.0), "between 0"),
        (lambda: PredictorCorrector(ratio=0.9), "a step overshoots"),
        (lambda: PredictorCorrector(num_corrections=-1), "at least 0"),
        (lambda: CustomGrid([1.0, 2.0]), "must fall"),
        (lambda: KarrasGrid(0), "at least one step"),
    ],
)
def test_impossible_settings_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_impossible_draws_are_refused(getkey):
    denoiser = GaussianMixtureDenoiser(eight_gaussians(), VP.linear())

    def draw(sampler=SAMPLERS["sde"], **changes):
        arguments = {"key": getkey(), "num_samples": 4, "shape": (2,)} | changes
        return sample(denoiser, sampler, **arguments)

    with pytest.raises(ValueError, match="num_samples=0"):
        draw(num_samples=0)
    with pytest.raises(ValueError, match="batch_size=0"):
        draw(batch_size=0)
    with pytest.raises(ValueError, match="cond has 3 rows for 4 examples"):
        draw(cond=jnp.zeros(3))
    with pytest.raises(ValueError, match="no noise level between"):
        draw(SDESampler(LogLevelGrid(5, level_min=1000.0)))


def plain_gaussian(schedule, std):
    """Data N(0, std^2) in two dimensions, whose flow is a gain."""
    covariance = std**2 * jnp.eye(2)[None]
    mixture = GaussianMixture(jnp.ones(1), jnp.zeros((1, 2)), covariance)
    return GaussianMixtureDenoiser(mixture, schedule)


def gain(std, level_from, level_to):
    return np.sqrt((std**2 + level_to**2) / (std**2 + level_from**2))


GRIDS_OF_THEIR_OWN = {
    "adaptive": lambda grid: ODESampler(grid, rtol=1e-6, atol=1e-6, adaptive=True),
    "fixed": ODESampler,
    "shared": lambda grid: ODESampler(grid, shared_steps=True),
    "expab": ExpAB,
    "heun": Heun,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GRIDS_OF_THEIR_OWN)
def test_a_custom_grid_says_where_sampling_begins_and_stops(name, getkey):
    """Stopped at level .5, the denoiser's last step shrinks by 1 / (1 + .25).

    Levels are in units of the data's standard deviation.
    """
    std, levels = 0.8, np.geomspace(40.0, 0.5, 61)
    sampler = GRIDS_OF_THEIR_OWN[name](CustomGrid(levels.tolist()))
    denoiser = plain_gaussian(VP.linear(), std)
    out = sample(
        denoiser, sampler, key=getkey(), num_samples=64, shape=(2,), trajectory=True
    )
    assert out.levels is not None
    assert out.path is not None
    assert jnp.allclose(out.levels, jnp.asarray(levels, jnp.float32)[None], rtol=1e-5)
    expected = gain(1.0, 40.0, 0.5) / (1.0 + 0.25) * out.path[:, 0]
    latent = out.path[:, 0] / std / np.hypot(1.0, 40.0)
    assert jnp.allclose(out.x_0, expected, atol=3e-3)
    assert abs(float(jnp.std(latent)) - 1.0) < 5.0 / np.sqrt(2.0 * latent.size)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adaptive", "fixed"])
def test_a_custom_grid_encodes_and_decodes(name, getkey):
    std, levels = 0.8, np.geomspace(40.0, 0.01, 121)
    sampler = GRIDS_OF_THEIR_OWN[name](CustomGrid(levels.tolist()))
    denoiser = plain_gaussian(VP.linear(), std)
    x = jax.random.normal(getkey(), (2,))
    latent = encode(denoiser, x, sampler=sampler)
    expected = gain(1.0, 0.01, 40.0) * (x / std) / np.hypot(1.0, 40.0)
    assert jnp.allclose(latent, expected, rtol=1e-3)
    assert jnp.allclose(decode(denoiser, latent, sampler=sampler), x, rtol=1e-3)


@pytest.mark.parametrize("name", GRIDS_OF_THEIR_OWN)
@pytest.mark.parametrize("levels", [(1000.0, 1.0), (5.0, 1e-5)])
def test_levels_that_the_schedule_does_not_have_are_refused(name, levels, getkey):
    denoiser = plain_gaussian(EDM(10.0, t_min=0.002), 1.0)
    sampler = GRIDS_OF_THEIR_OWN[name](CustomGrid(levels))
    with pytest.raises(ValueError, match=r"EDM has the noise levels 0\.002 to 10 only"):
        sampler.draw(denoiser, (2,), key=getkey())


def test_a_flow_between_other_levels_than_the_grids_is_refused():
    sampler = ODESampler(CustomGrid([10.0, 3.0, 1.0]))
    denoiser = plain_gaussian(VP.linear(), 1.0)
    with pytest.raises(ValueError, match=r"asked for between 10 and 0\.1"):
        sampler.flow(denoiser, jnp.ones(2), 10.0, 0.1)


class Rate(eqx.Module):
    """B(t) = exp(a) t: a schedule that can be trained."""

    a: jax.Array

    def __call__(self, t):
        return jnp.exp(self.a) * t


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [ExpAB(8), Heun(UniformTimeGrid(8))])
def test_a_trained_schedule_can_be_sampled(sampler, getkey):
    """In x_t / alpha_t only the last noise level differs: 148 for B = 10."""
    key = getkey()

    def draw(int_beta):
        denoiser = plain_gaussian(VP(int_beta), 0.8)
        return sample(denoiser, sampler, key=key, num_samples=4, shape=(2,)).x_0

    trained, fixed = draw(Rate(jnp.asarray(0.0))), draw(lambda t: t)
    assert jnp.allclose(trained, fixed, atol=1e-6)
    assert not jnp.allclose(draw(Rate(jnp.asarray(-2.0))), fixed, atol=1e-2)
    guided = Guided(plain_gaussian(VP(Rate(jnp.asarray(0.0))), 0.8), 0.0)
    again = sample(guided, sampler, key=key, num_samples=4, shape=(2,)).x_0
    assert jnp.allclose(again, fixed, atol=1e-6)


def test_a_schedule_of_numbers_does_not_compile_again(getkey):
    traces = []

    def net(x, c, cond, *, key):
        traces.append(1)
        return x

    for scale in (0.5, 0.7):
        denoiser = Preconditioned(Scaled(net, jnp.asarray(scale)), VP.linear())
        sample(denoiser, DDIM(2), key=getkey(), num_samples=2, shape=(2,))
        if scale == 0.5:
            first = len(traces)
    assert len(traces) == first


class Scaled(eqx.Module):
    net: Callable
    scale: jax.Array

    def __call__(self, x, c, cond, *, key):
        return self.scale * self.net(x, c, cond, key=key)


@pytest.mark.slow
def test_a_traced_schedule_is_refused_with_the_way_out():
    denoiser = plain_gaussian(VP(Rate(jnp.asarray(0.0))), 0.8)
    with pytest.raises(ValueError, match="close over it"):
        eqx.filter_jit(lambda d: encode(d, jnp.ones(2)))(denoiser)
    assert jnp.isfinite(jax.jit(lambda x: encode(denoiser, x))(jnp.ones(2))).all()
