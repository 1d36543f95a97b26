"""The loss: its minimum in closed form, stratified times, masks, weightings."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob.diffusion import (
    EDM,
    VE,
    VP,
    AbstractDenoiser,
    AbstractSchedule,
    AbstractTimes,
    DenoisingLoss,
    EDMWeighting,
    ErrorOf,
    LikelihoodWeighting,
    LogitNormalTimes,
    LogNormalLevels,
    MinSNR,
    Preconditioned,
    ScoreWeighting,
    UniformLogSNR,
    UniformTimes,
)
from jaxprob.diffusion._loss.stratified import MARGIN, uniforms
from jaxprob.testing import GaussianMixture, GaussianMixtureDenoiser

from ..cases import SCHEDULES, times

VARIANCE = 0.5


def gaussian_denoiser(schedule, dim=4):
    mixture = GaussianMixture(
        jnp.ones(1), jnp.zeros((1, dim)), VARIANCE * jnp.eye(dim)[None]
    )
    return GaussianMixtureDenoiser(mixture, schedule)


def floor(parameterisation, schedule, t):
    """The least error on N(0, c) data in units of sqrt(c), by the oracle's algebra."""
    c, alpha, sigma = 1.0, schedule.alpha(t), schedule.sigma(t)
    total = alpha**2 * c + sigma**2
    return {
        "x0": c * sigma**2 / total,
        "eps": alpha**2 * c / total,
        "score": alpha**2 * c / total / sigma**2,
        "v": c * (alpha**2 + sigma**2) ** 2 / total,
        "edm": (alpha**2 * c / total) * (1.0 + (sigma / alpha) ** 2 / c),
    }[parameterisation]


class Only(jaxprob.diffusion.AbstractTimes):
    """All mass at one time."""

    t: jax.Array

    def quantile(self, schedule, u):
        return jnp.broadcast_to(self.t, u.shape)

    def density(self, schedule, t):
        raise AssertionError("a point has no density")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vp_kidger", "ve"])
@pytest.mark.parametrize("parameterisation", ["x0", "eps", "score", "v", "edm"])
def test_loss_at_the_exact_denoiser_is_its_closed_form(name, parameterisation, getkey):
    schedule = SCHEDULES[name]()
    denoiser = gaussian_denoiser(schedule)
    n, dim = 20_000, 4
    weighting = parameterisation
    if parameterisation == "edm":
        weighting = EDMWeighting()
    for t in times(schedule, 5)[1:]:
        loss = DenoisingLoss(weighting, Only(t))
        x = VARIANCE**0.5 * jax.random.normal(getkey(), (n, dim))
        value, _ = loss(denoiser, x, key=getkey())
        expected = floor(parameterisation, schedule, t)
        # Errors are Gaussian: their mean square has relative s.e. sqrt(2 / (n dim)).
        assert abs(value / expected - 1.0) < 5.0 * np.sqrt(2.0 / (n * dim))
    if parameterisation == "edm":
        assert abs(expected - 1.0) < 1e-5


def silent(x, c, cond, *, key):
    return jnp.zeros_like(x)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.03, 7.0])
def test_a_denoiser_fitted_to_data_has_unit_targets(scale, getkey):
    """The weighted error of a silent network is 1 at every level, in any units."""
    x = scale * np.random.default_rng(0).normal(size=(20_000, 4)).astype(np.float32)
    denoiser = Preconditioned.fitted(silent, EDM(100.0, t_min=1e-4), x)
    assert np.allclose(denoiser.sigma_data, x.std(0, dtype=float))
    for level in (0.01, 1.0, 10.0):
        loss = DenoisingLoss(EDMWeighting(), Only(jnp.asarray(level)))
        value, _ = loss(denoiser, jnp.asarray(x), key=getkey())
        assert abs(value - 1.0) < 5.0 * np.sqrt(2.0 / x.size)
    x[3, 1] = np.nan
    with pytest.raises(ValueError, match="data holds 1 non-finite"):
        Preconditioned.fitted(silent, EDM(), x)
    with pytest.raises(TypeError, match="data is int32"):
        Preconditioned.fitted(silent, EDM(), np.ones((2, 2), np.int32))


@pytest.mark.slow
def test_loss_over_uniform_times_is_the_average_of_its_closed_form(getkey):
    schedule = VP(lambda t: t, t_max=10.0)
    denoiser = gaussian_denoiser(schedule)
    x = VARIANCE**0.5 * jax.random.normal(getkey(), (50_000, 4))
    value, _ = DenoisingLoss()(denoiser, x, key=getkey())
    grid = (jnp.arange(10_000.0) + 0.5) / 1000.0
    expected = jnp.mean(jax.vmap(lambda t: floor("eps", schedule, t))(grid))
    assert abs(value / expected - 1.0) < 5.0 * np.sqrt(2.0 / (50_000 * 4)) * 2.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x0", "eps", "score", "v", "velocity"])
@pytest.mark.parametrize("schedule", ["vp_kidger", "ve"])
def test_a_weighting_is_the_error_of_its_parameterisation(name, schedule, x64, getkey):
    schedule = SCHEDULES[schedule]()
    keys = jax.random.split(getkey(), 3)
    x_0, noise, guess = (jax.random.normal(key, (8,)) for key in keys)
    for t in times(schedule, 5):
        x = schedule.unscaled(schedule.perturb(x_0, t, noise), t)
        from_x0, level = jaxprob.diffusion.from_x0, schedule.level(t)
        a = from_x0(name, x_0, schedule, x=x, level=level)
        b = from_x0(name, guess, schedule, x=x, level=level)
        weighted = ErrorOf(name)(schedule, t) * jnp.sum((x_0 - guess) ** 2)
        assert jnp.allclose(weighted, jnp.sum((a - b) ** 2), rtol=1e-8)


def test_the_examples_weight_on_the_score_is_the_error_of_eps(x64):
    schedule = VP(lambda t: t, t_max=10.0)
    example = ScoreWeighting(lambda t: -jnp.expm1(-t))
    for t in times(schedule, 5):
        assert jnp.allclose(example(schedule, t), ErrorOf("eps")(schedule, t))


def test_stratified_times_are_one_in_each_part(getkey):
    mask = jnp.array([True] * 10 + [False] * 6)
    for _ in range(20):
        u = uniforms(getkey(), mask, stratified=True)[:10]
        assert np.array_equal(np.ceil(np.sort(u) * 10), np.arange(1, 11))
        assert jnp.all((u > 0) & (u <= 1))


@pytest.mark.slow
def test_each_stratified_time_is_uniform_in_its_part(getkey):
    mask = jnp.ones(4, bool)
    keys = jax.random.split(getkey(), 4000)
    u = jax.vmap(lambda key: uniforms(key, mask, stratified=True))(keys)
    # And each row's in all of them: the first interval is drawn.
    assert np.all(np.abs(np.mean(u, 0) - 0.5) < 5.0 * (1 / 12 / 4000) ** 0.5)
    within = jnp.sort(u, axis=1) * 4.0 - jnp.arange(4.0)[None]
    assert jnp.all(
        jnp.abs(jnp.mean(within, axis=0) - 0.5) < 5.0 * (1 / 12 / 4000) ** 0.5
    )
    # Neighbours do not share their offset.
    assert abs(jnp.corrcoef(within.T)[0, 1]) < 5.0 / 4000**0.5


@pytest.mark.slow
def test_stratified_times_make_the_loss_less_noisy(getkey):
    denoiser = gaussian_denoiser(VP(lambda t: t, t_max=10.0))
    x = VARIANCE**0.5 * jax.random.normal(getkey(), (64, 4))
    keys = jax.random.split(getkey(), 400)

    def spread(stratified):
        loss = DenoisingLoss(stratified=stratified)
        values = jax.jit(jax.vmap(lambda key: loss(denoiser, x, key=key)[0]))(keys)
        return jnp.mean(values), jnp.std(values)

    (mean, std), (plain_mean, plain_std) = spread(True), spread(False)
    assert abs(mean - plain_mean) < 5.0 * plain_std / 20.0 * 2**0.5
    # Two thirds; the ratio of two standard deviations of 400 has an error of .033.
    assert std < 0.9 * plain_std


@pytest.mark.slow
def test_padded_rows_do_not_count(getkey):
    """Not in the mean, and not in the strata: garbage and NaN may stand there."""
    denoiser = gaussian_denoiser(VP.linear())
    x = jax.random.normal(getkey(), (6, 4))
    key = getkey()
    garbage = jnp.concatenate([x, jnp.full((2, 4), jnp.nan)])
    mask = jnp.arange(8) < 6
    padded, _ = DenoisingLoss()(denoiser, jaxprob.Batch(garbage, mask), key=key)
    assert jnp.isfinite(padded)
    other = jnp.concatenate([x, jnp.full((2, 4), 1e3)])
    same, _ = DenoisingLoss()(denoiser, jaxprob.Batch(other, mask), key=key)
    assert padded == same


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 4])
def test_chunks_of_a_batch_change_nothing(size, x64, getkey):
    """Value and gradient, with a short last chunk and with padded rows."""
    net = Linear(jax.random.normal(getkey(), (8,)))
    denoiser = Preconditioned(net, VP.linear(), "edm")
    batch = jaxprob.Batch(jax.random.normal(getkey(), (10, 4)), jnp.arange(10) < 7)
    key = getkey()

    def value(coefficients, batch_size):
        model = eqx.tree_at(lambda d: d.net.coefficients, denoiser, coefficients)
        loss = DenoisingLoss(batch_size=batch_size)
        return 2.0 * loss(model, batch, key=key)[0]

    whole = jax.value_and_grad(value)(net.coefficients, None)
    parts = jax.jit(jax.value_and_grad(value), static_argnums=1)(net.coefficients, size)
    assert jnp.allclose(parts[0], whole[0], rtol=1e-12)
    assert jnp.allclose(parts[0], value(net.coefficients, size), rtol=1e-12)
    assert jnp.allclose(parts[1], whole[1], rtol=1e-12)
    assert jnp.linalg.norm(whole[1]) > 1e-3


@pytest.mark.slow
def test_chunks_hold_the_activations_of_their_rows_alone(getkey):
    """The temporaries of a gradient grow with the chunk and not with the batch."""
    net = jaxprob.diffusion.nn.ResidualMLP(8, width=32, depth=4, key=getkey())
    denoiser = Preconditioned(net, VP.linear())
    x = jnp.zeros((2048, 8))

    def bytes_of(batch_size):
        loss = DenoisingLoss(batch_size=batch_size)

        @eqx.filter_jit
        def gradient(denoiser, x):
            return eqx.filter_grad(lambda d: loss(d, x, key=jax.random.key(0))[0])(
                denoiser
            )

        program = gradient.lower(denoiser, x).compile()
        return program.compiled.memory_analysis().temp_size_in_bytes

    assert bytes_of(8) < 0.5 * bytes_of(None)


@pytest.mark.slow
def test_conditions_go_with_their_rows(getkey):
    """A network that knows x_0 from its condition has no error."""

    def net(x, c, cond, *, key):
        return cond["x"]

    denoiser = Preconditioned(net, VP.linear(), "x0")
    x = jax.random.normal(getkey(), (8, 3))
    key = getkey()
    assert DenoisingLoss("x0")(denoiser, (x, {"x": x}), key=key)[0] == 0.0
    assert DenoisingLoss("x0")(denoiser, (x, {"x": x[::-1]}), key=key)[0] > 0.1


class Linear(eqx.Module):
    """The best denoiser of Gaussian data is linear, with a gain for each level."""

    coefficients: jax.Array

    def __call__(self, x, c, cond, *, key):
        powers = jnp.stack([jnp.tanh(c) ** k for k in range(8)])
        return jnp.dot(self.coefficients, powers) * x


class Exact(AbstractDenoiser):
    """The posterior mean of Gaussian data, in units of 1 as the trained one is."""

    schedule: AbstractSchedule

    def denoise(self, x, level, cond=None, *, key=None):
        return VARIANCE * x / (VARIANCE + level**2)


@pytest.mark.slow
def test_training_reaches_the_floor(getkey):
    """Within 1 percent of the least possible error on Gaussian data, and not below."""
    schedule = VE(0.01, 50.0)
    denoiser = Preconditioned(Linear(jnp.zeros(8)), schedule, "edm")
    loss = DenoisingLoss(EDMWeighting())
    learner = jaxprob.GradientDescent(
        loss, optax.adam(optax.cosine_decay_schedule(3e-2, 3000))
    )
    x = VARIANCE**0.5 * np.asarray(jax.random.normal(getkey(), (20_000, 4)))
    state, _ = jaxprob.fit(
        learner,
        denoiser,
        x,
        key=getkey(),
        num_steps=3000,
        batch_size=256,
        progress=False,
    )
    exact = Exact(schedule)
    key = getkey()
    fresh = VARIANCE**0.5 * jax.random.normal(getkey(), (100_000, 4))
    reached, _ = jax.jit(loss)(learner.model(state), fresh, key=key)
    least, _ = jax.jit(loss)(exact, fresh, key=key)
    # Common random numbers: the difference is known far better than either.
    assert -0.002 < reached / least - 1.0 < 0.01


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (np.zeros((4, 2), np.int32), TypeError, "int32"),
        ((np.zeros((4, 2), np.float32),) * 3, TypeError, "x_0, or"),
    ],
)
def test_other_batches_are_refused(batch, error, message, getkey):
    with pytest.raises(error, match=message):
        DenoisingLoss()(gaussian_denoiser(VP.linear(), 2), batch, key=getkey())


def test_impossible_chunks_are_refused():
    with pytest.raises(ValueError, match="batch_size=0"):
        DenoisingLoss(batch_size=0)


def test_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match="'noise' is not a parameterisation"):
        DenoisingLoss("noise")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["vp_kidger", "vp_linear", "edm", "cosine", "rectified"]
)
def test_lognormal_levels_have_their_law(name, getkey):
    schedule, times_law = SCHEDULES[name](), LogNormalLevels(-0.5, 1.2)
    u = uniforms(getkey(), jnp.ones(2000, bool), stratified=True)
    t = jax.vmap(lambda u: times_law.quantile(schedule, u))(u)
    logs = -jax.vmap(schedule.log_snr)(t) / 2.0
    assert jnp.all((t >= schedule.t_min) & (t <= schedule.t_max))
    # Stratified: far closer than 1/sqrt(n). The ends cut off 3e-5 of the law at most.
    assert abs(jnp.mean(logs) + 0.5) < 0.01
    assert abs(jnp.std(logs) - 1.2) < 0.02


@pytest.mark.slow
def test_lognormal_levels_are_cut_off_and_not_heaped_at_the_ends(getkey):
    schedule, law = EDM(2.0, t_min=0.5), LogNormalLevels(0.0, 1.0)
    t = jax.vmap(lambda u: law.quantile(schedule, u))(jnp.linspace(0.01, 1.0, 100))
    assert len(np.unique(np.asarray(t))) == 100
    # The median of the cut law is that of the whole, by symmetry.
    assert abs(t[49] - 1.0) < 0.02


@pytest.mark.slow
def test_logit_normal_times_have_their_law(getkey):
    u = uniforms(getkey(), jnp.ones(2000, bool), stratified=True)
    t = jax.vmap(lambda u: LogitNormalTimes(0.3, 0.8).quantile(VP.linear(), u))(u)
    logit = jnp.log(t) - jnp.log1p(-t)
    assert abs(jnp.mean(logit) - 0.3) < 0.01
    assert abs(jnp.std(logit) - 0.8) < 0.02


class QuantileOnly(AbstractTimes):
    """A user's distribution of times, whose density is derived."""

    of: AbstractTimes

    def quantile(self, schedule, u):
        return self.of.quantile(schedule, u)


LAWS = {
    "uniform": UniformTimes(),
    "levels": LogNormalLevels(-0.5, 1.2),
    "logit": LogitNormalTimes(0.3, 0.8),
    "log_snr": UniformLogSNR(0.01, 50.0),
    "quantile_only": QuantileOnly(LogitNormalTimes(0.3, 0.8)),
}


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", ["vp_linear", "ve", "cosine"])
def test_densities_of_times_are_those_of_their_quantiles(law, name, x64):
    schedule, law = SCHEDULES[name](), LAWS[law]
    u = jnp.linspace(0.05, 0.95, 19)
    t, slope = jax.vmap(jax.value_and_grad(lambda u: law.quantile(schedule, u)))(u)
    density = jax.jit(jax.vmap(lambda t: law.density(schedule, t)))(t)
    assert jnp.allclose(density * slope, 1.0, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("law", ["uniform", "levels", "log_snr"])
def test_importance_sampling_is_unbiased(law, getkey):
    """The likelihood bound of Gaussian data between two levels, by quadrature."""
    schedule = EDM(20.0, t_min=0.05)
    denoiser = gaussian_denoiser(schedule)
    x = VARIANCE**0.5 * jax.random.normal(getkey(), (20_000, 4))
    loss = DenoisingLoss(LikelihoodWeighting(), LAWS[law], unbiased=True)
    values = jnp.stack([jax.jit(loss)(denoiser, x, key=getkey())[0] for _ in range(8)])
    # g^2/2 on the score is half d log(s^2)/dt on eps: log levels are the measure.
    logs = jnp.linspace(np.log(0.05), np.log(20.0), 4001)
    at = jax.vmap(lambda log: schedule.time_of_log_snr(-2.0 * log))(logs[1:])
    expected = jnp.sum(
        jax.vmap(lambda t: floor("eps", schedule, t))(at) * jnp.diff(logs)
    )
    error = jnp.std(values) / 8**0.5
    assert abs(jnp.mean(values) - expected) < 5.0 * error + 2e-3 * expected


@pytest.mark.slow
def test_uniform_log_snr_is_the_quietest_law_of_the_bound(getkey):
    schedule = VP.linear()
    denoiser = gaussian_denoiser(schedule)
    x = VARIANCE**0.5 * jax.random.normal(getkey(), (64, 4))
    keys = jax.random.split(getkey(), 200)

    def spread(law):
        loss = DenoisingLoss(
            LikelihoodWeighting(), law, unbiased=True, stratified=False
        )
        values = jax.jit(jax.vmap(lambda key: loss(denoiser, x, key=key)[0]))(keys)
        return float(jnp.std(values))

    assert spread(UniformLogSNR(0.01)) < 0.5 * spread(UniformTimes())


def test_min_snr_is_eps_with_a_cap(x64):
    schedule = VP.linear()
    for t in times(schedule, 9):
        eps = ErrorOf("eps")(schedule, t)
        assert jnp.allclose(MinSNR(5.0)(schedule, t), jnp.minimum(eps, 5.0))


@pytest.mark.slow
def test_likelihood_weighting_bounds_the_divergence(x64, getkey):
    """Between Gaussians of variance c and c', with the prior's part, and with equality
    when the model is the truth."""
    schedule = VP.linear()
    grid = schedule.t_max * (jnp.arange(20_000.0) + 0.5) / 20_000.0
    true, model = 0.5, 0.7

    def bound(t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        v, w = alpha**2 * true + sigma**2, alpha**2 * model + sigma**2
        # D = alpha c x / v for variance c; mean square difference over the truth.
        error = (alpha * true / v - alpha * model / w) ** 2 * v
        return LikelihoodWeighting()(schedule, t) * error

    integral = jnp.mean(jax.vmap(bound)(grid)) * schedule.t_max
    ratio = true / model
    divergence = (ratio - 1.0 - jnp.log(ratio)) / 2.0
    v = 1.0 + schedule.alpha(1.0) ** 2 * (true - 1.0)
    prior = (v - 1.0 - jnp.log(v)) / 2.0
    assert integral + prior >= divergence * (1.0 - 1e-6)
    # For the score of a diffused Gaussian the bound is tight: the model is a diffusion.
    assert integral < 1.001 * divergence


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["vp_linear", "rectified"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_data_in_half_precision_have_the_loss_of_their_values(schedule, dtype, getkey):
    """The same noise and the same times: the loss of the rounded data, to the bit."""
    denoiser = Preconditioned(silent, SCHEDULES[schedule](), "edm")
    x, key = jax.random.normal(getkey(), (256, 4)).astype(dtype), getkey()
    for loss in (DenoisingLoss(), DenoisingLoss(batch_size=64)):
        value = loss(denoiser, x, key=key)[0]
        assert value.dtype == jnp.float32
        assert value == loss(denoiser, x.astype(jnp.float32), key=key)[0]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_loss_in_low_precision_gives_the_network_few_bits(dtype, getkey):
    """The network alone computes in them: its error is not that of x_t in bfloat16."""
    seen = []

    class Spy(eqx.Module):
        net: jaxprob.diffusion.nn.ResidualMLP

        def __call__(self, x, c, cond, *, key):
            seen.append((x.dtype, c.dtype))
            return self.net(x, c, cond, key=key)

    net = jaxprob.diffusion.nn.ResidualMLP(4, width=16, depth=1, key=getkey())
    net = eqx.tree_at(lambda net: net.last.bias, net, jnp.full(4, 0.5))
    denoiser = Preconditioned(Spy(net), VP.linear())
    x, key = jax.random.normal(getkey(), (256, 4)), getkey()
    x = x.astype(dtype).astype(jnp.float32)
    exact = DenoisingLoss()(denoiser, x, key=key)[0]
    low = jaxprob.LowPrecisionLoss(DenoisingLoss(), dtype)(denoiser, x, key=key)[0]
    assert seen[-1] == (jnp.dtype(dtype), jnp.float32)
    assert abs(low / exact - 1.0) < 0.01


@pytest.mark.parametrize("name", ["rectified", "cosine", "shifted", "vp_kidger"])
def test_times_never_reach_an_infinite_noise_level(name, getkey):
    """Seed 788 gave NaN: (8191 + offset) / 8192 rounded to 1, and D was x / 0."""
    denoiser = Preconditioned(silent, SCHEDULES[name](), "eps")
    x = jax.random.normal(getkey(), (8192, 1))
    assert jnp.isfinite(DenoisingLoss()(denoiser, x, key=jax.random.key(788))[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "predict"),
    [("rectified", "eps"), ("cosine", "score"), ("shifted", "edm")],
)
def test_losses_are_finite_at_the_last_time(name, predict, getkey):
    """Value and gradient of each weighting and law, at the u nearest to either end."""
    net = Linear(jax.random.normal(getkey(), (8,)))
    denoiser = Preconditioned(net, SCHEDULES[name](), predict)
    u, keys = jnp.array([MARGIN, 1.0 - MARGIN]), jax.random.split(getkey(), 2)
    rows = jnp.ones((2, 3)), None, u, keys
    weightings = ["x0", "eps", "score", "v", "velocity", MinSNR(), EDMWeighting()]
    wide = [LogitNormalTimes(0.0, 6.0), LogNormalLevels(18.0, 1.0)]
    losses = [
        DenoisingLoss(weighting, law)
        for weighting in [*weightings, LikelihoodWeighting()]
        for law in [*LAWS.values(), *wide]
    ]

    @eqx.filter_jit
    def everything(denoiser):
        def one(loss):
            total = eqx.filter_value_and_grad(lambda d: loss._errors(d, rows).sum())
            value, gradient = total(denoiser)
            return jnp.append(gradient.net.coefficients, value)

        return jnp.stack([one(loss) for loss in losses])

    finite = jnp.isfinite(everything(denoiser)).all(axis=1)
    assert finite.all(), [losses[i] for i in jnp.flatnonzero(~finite)]


@pytest.mark.parametrize("stratified", [True, False])
def test_uniform_numbers_stay_inside(stratified):
    mask = jnp.ones(8192, bool)
    u = uniforms(jax.random.split(jax.random.key(788))[0], mask, stratified=stratified)
    assert u.min() >= MARGIN
    assert u.max() <= 1.0 - MARGIN


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MinSNR(-5.0), r"MinSNR\(gamma=-5.0\)"),
        (lambda: MinSNR(float("nan")), "gamma=nan"),
        (lambda: UniformLogSNR(100.0, 0.002), "0 < level_min < level_max"),
        (lambda: UniformLogSNR(0.0, 1.0), "0 < level_min < level_max"),
        (lambda: LogNormalLevels(std=-1.0), r"LogNormalLevels\(std=-1.0\)"),
        (lambda: LogitNormalTimes(std=0.0), r"LogitNormalTimes\(std=0.0\)"),
        (lambda: LogNormalLevels(float("nan")), "a finite mean"),
    ],
)
def test_constants_that_make_no_law_or_weight_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
