"""Flow matching against the closed forms of Gaussian pairs."""

import itertools
from typing import Any

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxprob
from jaxprob.diffusion import (
    AbstractTimes,
    AbstractVelocityField,
    EmpiricalSource,
    ExpAB,
    FlowMatchingLoss,
    FlowSampler,
    Hutchinson,
    IndependentCoupling,
    NormalSource,
    OTCoupling,
    PairedSource,
    Preconditioned,
    RectifiedFlow,
    SampledSource,
    SinkhornCoupling,
    VelocityField,
    flow_log_prob,
    flow_matching_error,
    map_examples,
    nn,
    sample,
)
from jaxprob.testing import (
    GaussianMixture,
    GaussianMixtureDenoiser,
    MixtureVelocityField,
    TransportVelocityField,
    eight_gaussians,
)

KEY = jax.random.key(0)


def gaussian(mean, covariance):
    mean, covariance = jnp.asarray(mean), jnp.asarray(covariance)
    return GaussianMixture(jnp.ones(1), mean[None], covariance[None])


def two():
    """Two Gaussians whose covariances do not commute."""
    return (
        gaussian([1.0, -0.5], [[1.0, 0.6], [0.6, 0.5]]),
        gaussian([-2.0, 3.0], [[0.3, -0.2], [-0.2, 2.0]]),
    )


FIELDS = {"independent": MixtureVelocityField, "optimal": TransportVelocityField}
EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}


@pytest.mark.parametrize("name", FIELDS)
def test_the_field_has_the_least_error_among_affine_fields(name, x64):
    """Moments of order two decide it, and three points of each axis have them.

    The points of both ends are those of a Gauss-Hermite rule, so the gradient of the
    mean error over pairs, by the coefficients of an affine field, is exactly zero.
    """
    source, data = two()
    field, t = FIELDS[name](source, data), 0.3

    def points(mixture):
        root = jnp.linalg.cholesky(mixture.covariances[0])
        corners = jnp.array(list(itertools.product([-1.0, 1.0], repeat=2)))
        return mixture.means + corners @ root.T

    y, x = points(source), points(data)
    if name == "optimal":
        x = jax.vmap(field.transport)(y)
    else:
        y, x = jnp.repeat(y, 4, axis=0), jnp.tile(x, (4, 1))

    class Moved(eqx.Module):
        shift: jax.Array
        slope: jax.Array

        def velocity(self, x, t, cond=None, *, key=None):
            return field.velocity(x, t) + self.shift + self.slope @ x

        def scale(self):
            return field.scale()

    @jax.jit
    @jax.grad
    def gradient(coefficients):
        moved = Moved(*coefficients)
        error = flow_matching_error.__wrapped__
        return jnp.mean(jax.vmap(lambda y, x: error(moved, y, x, t))(y, x))

    for leaf in gradient((jnp.zeros(2), jnp.zeros((2, 2)))):
        assert jnp.max(jnp.abs(leaf)) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", FIELDS)
def test_the_flow_carries_the_source_to_the_data(name, x64):
    """The exact flow is affine: its slope carries one covariance to the other."""
    source, data = two()
    field, sampler = FIELDS[name](source, data), FlowSampler(rtol=1e-9, atol=1e-9)
    y = jnp.concatenate([source.means, source.means + jnp.eye(2)])
    ends, _, failed = jax.jit(jax.vmap(lambda y: sampler.flow(field, y)))(y)
    assert not failed.any()
    assert jnp.allclose(ends[0], data.means[0], atol=1e-6)
    slope = (ends[1:] - ends[:1]).T
    carried = slope @ source.covariances[0] @ slope.T
    assert jnp.allclose(carried, data.covariances[0], atol=1e-6)
    back = jax.jit(jax.vmap(lambda x: sampler.flow(field, x, 1.0, 0.0)[0]))(ends)
    assert jnp.allclose(back, y, atol=1e-6)
    if name == "optimal":
        assert jnp.allclose(slope, field.slope(), atol=1e-6)


@pytest.mark.slow
def test_the_density_is_that_of_the_data(x64):
    source, data = two()[0], eight_gaussians(0.25)
    field = MixtureVelocityField(source, data)
    start = SampledSource(lambda key: source.sample(key=key), source.log_prob)
    x = jax.vmap(lambda key: data.sample(key=key))(jax.random.split(KEY, 8))
    out = map_examples(flow_log_prob, field, x, source=start, **EXACT)
    exact = jax.vmap(data.log_prob)(x)
    assert jnp.max(jnp.abs(out.value - exact)) < 1e-6
    assert not out.failed.any()


@pytest.mark.slow
def test_the_density_of_transport_with_random_traces(x64):
    source, data = two()
    field, x = TransportVelocityField(source, data), jnp.array([-2.0, 2.0])
    start = SampledSource(lambda key: source.sample(key=key), source.log_prob)
    settings = {"trace": Hutchinson(256), "key": KEY, "estimate_error": True} | EXACT
    out = flow_log_prob(field, x, start, **settings)
    assert 0.0 < abs(out.value - data.log_prob(x)) < 5.0 * out.trace_error
    assert out.trace_error < 0.1
    assert 0.0 < out.solver_error < 1e-6
    assert jnp.allclose(field.transport(out.latent), x, atol=1e-3)
    with pytest.raises(ValueError, match="give flow_log_prob a key"):
        flow_log_prob(field, x, start, trace=Hutchinson(2))
    with pytest.raises(TypeError, match="EmpiricalSource has no density"):
        flow_log_prob(field, x, EmpiricalSource(x[None]))


def zero(x, c, cond=None, *, key=None):
    return jnp.zeros_like(x)


def test_an_untrained_field_is_that_of_gaussians_with_its_moments(x64):
    m, s, n, r = (
        np.array(v) for v in ([1.0, -50.0], [2.0, 9.0], [-3.0, 0.1], [5, 0.2])
    )
    field = VelocityField(
        zero, mean_source=m, sigma_source=s, mean_data=n, sigma_data=r
    )
    exact = MixtureVelocityField(gaussian(m, np.diag(s**2)), gaussian(n, np.diag(r**2)))
    x = jnp.array([0.3, -20.0])
    for t in (0.0, 0.37, 1.0):
        assert jnp.allclose(field.velocity(x, t), exact.velocity(x, t), rtol=1e-9)


def test_what_the_network_adds_has_unit_variance(x64):
    """The residual of the best linear field, over the factor of the network."""
    s0, s1, t = 2.0, 0.3, 0.4

    def one(x, c, cond=None, *, key=None):
        return jnp.ones_like(x)

    settings = {"sigma_source": s0, "sigma_data": s1}
    x = jnp.zeros(1)
    factor = VelocityField(one, **settings).velocity(x, t)
    factor = factor - VelocityField(zero, **settings).velocity(x, t)
    # Cov(x - y) - Cov(x - y, x_t)^2 / Var(x_t)
    spread = ((1 - t) * s0) ** 2 + (t * s1) ** 2
    residual = s0**2 + s1**2 - (t * s1**2 - (1 - t) * s0**2) ** 2 / spread
    assert jnp.allclose(factor**2, residual)


def test_a_normal_source_is_a_diffusion(x64):
    """The velocity of the schedule of straight paths, whose time runs backwards."""
    data = eight_gaussians(0.25)
    source = gaussian(np.zeros(2), np.eye(2))
    field = MixtureVelocityField(source, data)
    denoiser = GaussianMixtureDenoiser(data, RectifiedFlow())
    x = jnp.array([0.7, -0.2])
    for t in (0.1, 0.5, 0.9):
        other = -denoiser.velocity(x, 1.0 - t)
        assert jnp.allclose(field.velocity(x, t), other, atol=1e-9)


def test_the_loss_is_its_floor_at_the_exact_field(x64):
    """The mean over t of the trace of Cov(x - y | x_t)."""
    (source, data), num = two(), 4096
    c, d = source.covariances[0], data.covariances[0]

    def floor(t):
        spread = (1.0 - t) ** 2 * c + t**2 * d
        cross = t * d - (1.0 - t) * c
        return jnp.trace(c + d - cross @ jnp.linalg.solve(spread, cross)) / 2.0

    nodes, weights = np.polynomial.legendre.leggauss(32)
    expected = weights / 2.0 @ jax.vmap(floor)(jnp.asarray(nodes + 1.0) / 2.0)
    x = jax.vmap(lambda key: data.sample(key=key))(jax.random.split(KEY, num))
    start = SampledSource(lambda key: source.sample(key=key))
    field = MixtureVelocityField(source, data)
    value, _ = jax.jit(lambda: FlowMatchingLoss(start)(field, x, key=KEY))()
    assert abs(value / expected - 1.0) < 5.0 * (2.0 / num) ** 0.5


def shuffled(num=16):
    """Pairs of an optimal transport, and the data in another order."""
    source, data = two()
    field = TransportVelocityField(source, data)
    y = jax.vmap(lambda key: source.sample(key=key))(jax.random.split(KEY, num))
    order = np.random.default_rng(1).permutation(num)
    return field, y, jax.vmap(field.transport)(y)[order], order


def test_the_coupling_finds_the_pairs_of_optimal_transport(x64):
    """Points of a map that is the gradient of a convex function are its best pairs."""
    field, y, x, order = shuffled()
    allowed = jnp.ones((16, 16), bool)
    assert np.array_equal(OTCoupling()(y, x, allowed, key=KEY), order)
    loss = FlowMatchingLoss(PairedSource(), OTCoupling())
    value, _ = loss(field, (y, x), key=KEY)
    assert value < 1e-20
    assert FlowMatchingLoss(PairedSource())(field, (y, x), key=KEY)[0] > 0.1


def test_the_coupling_is_the_best_of_all_permutations():
    rng = np.random.default_rng(0)
    y, x = rng.normal(size=(2, 5, 3)).astype(np.float32)
    y = y + 100.0
    allowed = jnp.ones((5, 5), bool)
    got = OTCoupling()(jnp.asarray(y), jnp.asarray(x), allowed, key=KEY)
    best = min(
        itertools.permutations(range(5)), key=lambda p: np.sum((y[list(p)] - x) ** 2)
    )
    assert tuple(got.tolist()) == best


def test_rows_that_may_not_be_paired_are_not():
    rng = np.random.default_rng(0)
    y, x = (jnp.asarray(a) for a in rng.normal(size=(2, 32, 2)).astype(np.float32))
    labels = np.arange(32) % 3
    allowed = jnp.asarray(labels[:, None] == labels[None, :])
    for coupling in (OTCoupling(), SinkhornCoupling()):
        order = np.asarray(jax.jit(coupling)(y, x, allowed, key=KEY))
        assert (labels[order] == labels).all()
        assert (order != np.arange(32)).any()


def test_the_plan_of_sinkhorn_has_its_marginals_and_its_limits(x64):
    _, y, x, order = shuffled()
    allowed = jnp.ones((16, 16), bool)
    plan = jnp.exp(SinkhornCoupling(0.1).log_plan(y, x, allowed))
    assert jnp.allclose(plan.sum(0), 1.0, atol=1e-6)
    assert jnp.allclose(plan.sum(1), 1.0, atol=1e-3)
    # d log P / d cost is -1/epsilon, up to terms of one row alone: the double
    # differences of log P are those of the squared distances.
    square = jnp.sum((x[:, None] - y[None, :]) ** 2, axis=2)
    scaled = -square / (0.1 * jnp.mean(square))

    def double(a):
        return a - a.mean(0, keepdims=True) - a.mean(1, keepdims=True) + a.mean()

    assert jnp.allclose(double(jnp.log(plan)), double(scaled), atol=1e-8)
    sharp = SinkhornCoupling(1e-3, num_iterations=1000).log_plan(y, x, allowed)
    assert np.mean(np.asarray(sharp).argmax(axis=1) == order) > 0.9
    flat = jnp.exp(SinkhornCoupling(1e4).log_plan(y, x, allowed))
    assert jnp.allclose(flat, 1.0 / 16.0, rtol=1e-2)


def bent(x, c, cond=None, *, key=None):
    return jnp.tanh(x + c)


def test_the_loss_does_not_depend_on_the_units_of_columns(x64):
    """Errors, and distances of a coupling, are in units of the field's scale."""
    _, y, x, _ = shuffled()
    units = np.array([1.0, 1000.0])
    other = VelocityField(bent, sigma_source=units, sigma_data=units)
    for coupling in (OTCoupling(), SinkhornCoupling()):
        loss = FlowMatchingLoss(PairedSource(), coupling)
        one, _ = loss(VelocityField(bent), (y, x), key=KEY)
        two, _ = loss(other, (y * units[None], x * units[None]), key=KEY)
        assert jnp.allclose(one, two)


class Quarter(AbstractTimes):
    """All times are a quarter of the way from the data to the source."""

    def quantile(self, schedule, u):
        return jnp.full_like(u, 0.25)

    def density(self, schedule, t):
        return jnp.ones_like(t)


def test_times_of_a_schedule_run_from_the_data():
    class Time(AbstractVelocityField):
        def velocity(self, x, t, cond=None, *, key=None):
            return jnp.full_like(x, t)

    x = jnp.zeros((4, 2))
    value, _ = FlowMatchingLoss(PairedSource(), times=Quarter())(
        Time(), (x, x), key=KEY
    )
    assert value == 0.75**2


class Reads(eqx.Module):
    """A network that answers with its condition and its time."""

    def __call__(self, x, c, cond=None, *, key=None):
        return jnp.full_like(x, 0.0) + nn.when_present(
            cond, lambda v: v, jnp.asarray(7.0)
        )


def test_conditions_stay_with_their_rows_and_padding_does_not_count():
    rng = np.random.default_rng(0)
    y, x = rng.normal(size=(2, 6, 2)).astype(np.float32)
    cond = rng.normal(size=6).astype(np.float32)
    field = VelocityField(Reads())
    # A few rows at a time, with a rest.
    rows = (
        FlowMatchingLoss(PairedSource()),
        FlowMatchingLoss(PairedSource(), batch_size=4),
    )
    whole, parts = (loss(field, (y, x, cond), key=KEY)[0] for loss in rows)
    assert np.isclose(whole, parts)

    def value(loss, rows, mask=None):
        data = tuple(a[rows] for a in (y, x, cond))
        batch = data if mask is None else jaxprob.Batch(data, mask)
        return float(loss(field, batch, key=KEY)[0])

    everything = np.arange(6)
    plain = FlowMatchingLoss(PairedSource(), stratified=False)
    # No two rows share their condition, so no rows are exchanged.
    transport = FlowMatchingLoss(PairedSource(), OTCoupling(), stratified=False)
    assert value(transport, everything) == value(plain, everything)
    mask = np.arange(6) < 4
    other = np.array([0, 1, 2, 3, 0, 1])
    free = tuple(a[everything] for a in (y, x)), tuple(a[other] for a in (y, x))
    for coupling in (IndependentCoupling(), OTCoupling()):
        loss = FlowMatchingLoss(PairedSource(), coupling)
        same = [
            float(loss(VelocityField(zero), jaxprob.Batch(rows, mask), key=KEY)[0])
            for rows in free
        ]
        assert np.isclose(*same, rtol=1e-6)
    dropped = FlowMatchingLoss(PairedSource(), cond_dropout=1.0, stratified=False)
    always = VelocityField(lambda x, c, cond, *, key: jnp.full_like(x, 7.0))
    expected = plain(always, (y, x), key=KEY)[0]
    assert np.isclose(value(dropped, everything), expected)


@pytest.mark.slow
def test_training_approaches_the_closed_form():
    """A small network for two Gaussians, by pairs of the batch's optimal transport."""
    source, data = two()
    x = np.asarray(
        jax.vmap(lambda key: data.sample(key=key))(jax.random.split(KEY, 2048))
    )
    y = jax.vmap(lambda key: source.sample(key=key))(jax.random.split(KEY, 64))
    start = SampledSource(lambda key: source.sample(key=key))
    field = VelocityField.fitted(
        nn.ResidualMLP(2, width=32, depth=1, key=KEY), x, start
    )
    learner = jaxprob.GradientDescent(
        FlowMatchingLoss(start, OTCoupling()), optax.adam(5e-3), ema=jaxprob.EMA(0.98)
    )
    settings = {"num_steps": 300, "batch_size": 128, "progress": False}
    state, _ = jaxprob.fit(learner, field, x, key=KEY, **settings)
    exact = TransportVelocityField(source, data)
    t = jnp.linspace(0.05, 0.95, 64)

    @eqx.filter_jit
    def error(model):
        def one(y, t):
            x = (1.0 - t) * y + t * exact.transport(y)
            return model.velocity(x, t) - exact.velocity(x, t)

        return jnp.sqrt(jnp.mean(jax.vmap(one)(y, t) ** 2))

    before, after = error(field), error(learner.model(state))
    assert after < before / 3.0, (before, after)


def test_a_distribution_of_numpyro_is_a_source():
    normal = dist.MultivariateNormal(jnp.ones(2), jnp.eye(2))
    source = SampledSource(normal.sample, normal.log_prob)
    assert jnp.array_equal(source.draw((2,), key=KEY), normal.sample(KEY))
    assert source.log_prob(jnp.zeros(2)) == normal.log_prob(jnp.zeros(2))
    loose = dist.Normal(jnp.ones(2), 1.0)
    with pytest.raises(ValueError, match="to_event"):
        SampledSource(loose.sample, loose.log_prob).log_prob(jnp.zeros(2))


def test_sources_draw_what_they_say(x64):
    keys = jax.random.split(KEY, 4000)
    normal = NormalSource((1.0, -2.0), (0.5, 3.0))
    draws = np.asarray(jax.vmap(lambda key: normal.draw((2,), key=key))(keys))
    assert (
        abs(draws.mean(0) - [1.0, -2.0]) < 5.0 * np.array([0.5, 3.0]) / 4000**0.5
    ).all()
    assert np.allclose(draws.std(0), [0.5, 3.0], rtol=0.06)
    expected = dist.Normal(jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])).to_event(1)
    assert np.isclose(normal.log_prob(jnp.zeros(2)), expected.log_prob(jnp.zeros(2)))
    rows = EmpiricalSource(np.arange(6.0).reshape(3, 2))
    draws = np.asarray(jax.vmap(lambda key: rows.draw((2,), key=key))(keys))
    counts = np.array([(draws[:, 0] == first).mean() for first in (0.0, 2.0, 4.0)])
    assert np.allclose(counts, 1.0 / 3.0, atol=0.04)


def test_few_steps_of_a_straight_flow_are_exact(x64):
    source, data = two()
    field = TransportVelocityField(source, data)
    y = jnp.array([0.2, 1.0])
    x, evaluations, failed = FlowSampler(None, 1, dfx.Euler()).flow(field, y)
    assert jnp.allclose(x, field.transport(y), atol=1e-10)
    assert evaluations == 1
    assert not failed


def test_a_trajectory_runs_from_the_source_to_the_data():
    draws = sample(
        VelocityField(zero, mean_data=3.0),
        FlowSampler(num_steps=4),
        key=KEY,
        num_samples=3,
        shape=(2,),
        trajectory=True,
    )
    assert draws.path is not None
    assert draws.levels is not None
    assert draws.path.shape == (3, 5, 2)
    assert jnp.allclose(draws.levels[0], jnp.linspace(0.0, 1.0, 5))
    assert jnp.array_equal(draws.path[:, -1], draws.x_0)
    start = jax.random.normal(jax.random.fold_in(KEY, 1), (2,))
    assert jnp.allclose(draws.path[1, 0], start)


def test_a_network_that_is_not_finite_is_named_with_its_time():
    def broken(x, c, cond=None, *, key=None):
        return jnp.where(c > 0.0, jnp.nan, 0.0) * x

    settings = {"key": KEY, "num_samples": 2, "shape": (2,)}
    with pytest.raises(RuntimeError, match=r"step \d of 5, time"):
        sample(VelocityField(broken), FlowSampler(num_steps=4), **settings)


# As it is called without a type checker.
UNTYPED: Any = FlowMatchingLoss
X = np.zeros((4, 2), np.float32)
DENOISER = Preconditioned(zero, RectifiedFlow())
SETTINGS = {"key": KEY, "num_samples": 2, "shape": (2,)}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: UNTYPED("normal"),
            TypeError,
            "source is a str: give a source",
        ),
        (lambda: UNTYPED(None, OTCoupling), TypeError, "make one, OTCoupling"),
        (lambda: FlowMatchingLoss(cond_dropout=2.0), ValueError, "probability"),
        (lambda: SinkhornCoupling(0.0), ValueError, "OTCoupling"),
        (lambda: NormalSource(0.0, -1.0), ValueError, "positive"),
        (lambda: EmpiricalSource(np.full((2, 2), np.nan)), ValueError, "row 0"),
        (lambda: VelocityField(zero, sigma_data=0.0), ValueError, "sigma_data=0.0"),
        (
            lambda: sample(DENOISER, FlowSampler(), **SETTINGS),
            TypeError,
            "field is a Pre",
        ),
        (
            lambda: sample(VelocityField(zero), ExpAB(4), **SETTINGS),
            TypeError,
            r"write FlowSampler\(source\)",
        ),
        (
            lambda: sample(
                VelocityField(zero), FlowSampler(EmpiricalSource(X[:, :1])), **SETTINGS
            ),
            ValueError,
            r"shape \(1,\) where the data have \(2,\)",
        ),
        (
            lambda: FlowSampler().flow(VelocityField(zero), jnp.zeros(2), 0.0, 1.5),
            ValueError,
            "t_to=1.5",
        ),
        (
            lambda: FlowMatchingLoss(PairedSource())(VelocityField(zero), X, key=KEY),
            TypeError,
            r"PairedSource\(\)\) is \(x_source, x\)",
        ),
        (
            lambda: FlowMatchingLoss(PairedSource())(
                VelocityField(zero), (X[:, :1], X), key=KEY
            ),
            ValueError,
            r"x_source has shape \(4, 1\) and x \(4, 2\)",
        ),
        (
            lambda: FlowMatchingLoss().check(VelocityField(zero), X.astype(int)),
            TypeError,
            "x is int64",
        ),
        (
            lambda: FlowMatchingLoss(PairedSource()).check(
                VelocityField(zero), (np.full_like(X, np.nan), X)
            ),
            ValueError,
            "x_source holds",
        ),
    ],
)
def test_what_cannot_be_meant_is_an_error(call, error, message):
    from tests.unhooked import unhooked

    with unhooked(), pytest.raises(error, match=message):
        call()
