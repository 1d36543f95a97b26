"""Priors with an edge: every method, against exact posteriors."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from scipy import integrate, stats as scipy_stats

import jaxprob
from jaxprob import bnn

KEY = jax.random.key(5)


class Constant(eqx.Module):
    """A model whose output is its parameter, for every input."""

    value: jax.Array

    def __call__(self, x):
        return self.value


# Poisson counts under a Gamma prior: the posterior is Gamma(SHAPE, RATE). In u = log w
# its density is SHAPE u - RATE exp(u), so that Laplace's and the variational optimum
# have closed forms.
# A frozen distribution of scipy has methods that no annotation states.
stats: Any = scipy_stats
COUNTS = np.array([3, 1, 4, 2, 5, 3], np.int32)
X = np.zeros((6, 1), np.float32)
PRIOR = dist.Gamma(2.0, 1.5)
SHAPE, RATE = 2.0 + COUNTS.sum(), 1.5 + len(COUNTS)
MODEL = Constant(jnp.asarray(1.0))


def gamma_poisson(**settings):
    return bnn.LogJoint(lambda rate: dist.Poisson(rate), PRIOR, 6, **settings)


def log_evidence():
    """Log evidence by Bayes' rule at one value."""
    terms = stats.poisson(2.0).logpmf(COUNTS).sum()
    terms += stats.gamma(2.0, scale=1 / 1.5).logpdf(2.0)
    return terms - stats.gamma(SHAPE, scale=1 / RATE).logpdf(2.0)


def point(joint=None):
    return bnn.MAP(gamma_poisson() if joint is None else joint, optax.adam(5e-2))


def fitted(method, num_steps, model=MODEL, data=(X, COUNTS)):
    state, _ = jaxprob.fit(method, model, data, key=KEY, num_steps=num_steps)
    return state


def assert_gamma(draws, shape=SHAPE, rate=RATE, *, atol=0.06):
    """Draws have the quantiles of a Gamma distribution, in its standard deviations."""
    exact = stats.gamma(shape, scale=1.0 / rate)
    at = [0.05, 0.25, 0.5, 0.75, 0.95]
    error = np.quantile(np.asarray(draws).ravel(), at) - exact.ppf(at)
    assert np.abs(error).max() < 3 * atol * exact.std()
    assert np.mean(draws) == pytest.approx(exact.mean(), abs=atol * exact.std())
    assert np.std(draws) == pytest.approx(exact.std(), rel=1.5 * atol)


def hmc(joint):
    return bnn.HMC(
        joint,
        num_leapfrog=8,
        num_warmup=400,
        num_draws=1000,
        num_chains=4,
        target_acceptance=0.95,
    )


def chains(kind, joint):
    if kind == "NUTS":
        method = bnn.NUTS(joint, num_warmup=300, num_draws=1000, num_chains=4)
    elif kind == "HMC":
        method = hmc(joint)
    else:
        sampler = bnn.SGLD if kind == "SGLD" else bnn.SGHMC
        method = sampler(
            joint, 5e-3, num_warmup=500, thin=10, num_draws=1000, num_chains=8
        )
    return method


@pytest.mark.parametrize("kind", ["NUTS", "HMC", "SGLD", "SGHMC"])
@pytest.mark.slow
def test_samplers_are_exact_without_a_divergence(kind, tmp_path):
    method = chains(kind, gamma_poisson())  # a divergence would be a warning
    posterior = bnn.run_chains(
        method, MODEL, (X, COUNTS), key=KEY, folder=tmp_path, progress=False
    )
    assert_gamma(posterior.draws.value)
    assert np.all(posterior.draws.value > 0)
    assert np.allclose(posterior.mean().value, np.mean(posterior.draws.value))
    stored = bnn.load_draws(method, MODEL, tmp_path)
    assert eqx.tree_equal(stored, posterior)
    assert posterior.atom(3).value == posterior.draws.value[0, 3]
    if kind == "HMC":
        found = bnn.log_evidence(method, posterior, (X, COUNTS), key=KEY)
        assert found.value == pytest.approx(log_evidence(), abs=0.02)


@pytest.mark.slow
def test_a_cold_posterior_is_a_power_of_the_density_of_the_values():
    joint = gamma_poisson(temperature=0.5)
    posterior = bnn.run_chains(hmc(joint), MODEL, (X, COUNTS), key=KEY, progress=False)
    assert_gamma(posterior.draws.value, 2 * (SHAPE - 1) + 1, 2 * RATE)


@pytest.mark.filterwarnings("ignore:the chains have not mixed")
@pytest.mark.slow
def test_an_edge_that_a_prior_does_not_declare_is_named():
    """numpyro declares the support of a shifted Gamma as all real numbers."""
    shift = dist.transforms.AffineTransform(1.0, 1.0)
    prior = dist.TransformedDistribution(dist.Gamma(1.0, 1.0), shift)
    joint = bnn.LogJoint(lambda r: dist.Poisson(r), prior, 6)
    method = bnn.HMC(
        joint,
        num_leapfrog=4,
        num_warmup=100,
        num_draws=200,
        num_chains=2,
        initial="model",
    )
    data = X, np.zeros(6, np.int32)
    model = Constant(jnp.asarray(1.5))
    with pytest.warns(
        UserWarning, match=r"prior of value.* next to the draws.*domain="
    ):
        bnn.run_chains(method, model, data, key=KEY, progress=False)


def test_map_is_the_mode_of_the_coordinates(trained):
    state = trained
    assert point().model(state).value == pytest.approx(SHAPE / RATE, rel=1e-5)
    assert point().posterior(state).mean().value == point().model(state).value


def test_averages_of_the_weights_are_those_of_the_coordinates():
    method = dataclasses.replace(point(), ema=jaxprob.EMA(0.5))
    state = method.init(MODEL, key=KEY)
    path = []
    for _ in range(3):
        state, _ = eqx.filter_jit(method.update)(state, (X, COUNTS), key=KEY)
        path.append(state.model.value.coordinates)
    found = np.log(method.model(state).value)
    last = point().model(dataclasses.replace(state, ema=None)).value
    assert np.log(last) == pytest.approx(float(path[-1]), abs=1e-5)
    average = method._trained(state).value.coordinates
    assert found == pytest.approx(float(average), abs=1e-5)
    assert min(path) - 1e-6 < found < max(path)


def test_members_of_an_ensemble_start_and_end_inside():
    joint = bnn.LogJoint(lambda r: dist.Poisson(r[0]), PRIOR, 6)
    model = Constant(jnp.array([0.5, 1.0, 4.0]))  # shuffled for each member
    ensemble = bnn.DeepEnsemble(bnn.MAP(joint, optax.adam(5e-2)), 3)
    posterior = ensemble.posterior(fitted(ensemble, 100, model))
    values = np.array([posterior.atom(i).value for i in range(3)])
    assert len(np.unique(values[:, 1])) > 1
    # The data are of the first number; the others are at the mode of the prior.
    assert np.allclose(values, [SHAPE / RATE, 2 / 1.5, 2 / 1.5], rtol=0.1)
    assert np.allclose(posterior.mean().value, values.mean(0), rtol=1e-5)


def test_members_start_at_shuffled_coordinates():
    """Shuffled ordered numbers would be in no order."""
    ordered = dist.TransformedDistribution(
        dist.Normal(0.0, 1.0).expand([3]).to_event(1),
        dist.transforms.OrderedTransform(),
    )
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), ordered, 8)
    ensemble = bnn.DeepEnsemble(bnn.MAP(joint, SGD), 8)
    state = ensemble.init(Constant(jnp.array([0.1, 0.5, 2.0])), key=KEY)
    values = bnn.constrained(state.model).value
    assert np.all(np.diff(values, axis=1) > 0)
    assert len(np.unique(values[:, 0])) > 1


@pytest.fixture(scope="module")
def trained():
    return fitted(point(), 400)


@pytest.mark.parametrize("structure", ["full", "diagonal", "low_rank"])
def test_laplace_is_gaussian_in_the_coordinates(structure, trained):
    settings: Any = {"rank": 1} if structure == "low_rank" else {}
    laplace = bnn.Laplace(point(), structure, **settings)
    posterior = laplace.posterior(trained, [(X, COUNTS)])
    mode, sd = np.log(SHAPE / RATE), SHAPE**-0.5
    assert posterior.mean().value == pytest.approx(np.exp(mode), rel=1e-5)
    draws = jax.vmap(lambda k: posterior.sample(key=k).value)(
        jax.random.split(KEY, 4000)
    )
    assert np.mean(np.log(draws)) == pytest.approx(mode, abs=4 * sd / 4000**0.5)
    assert np.std(np.log(draws)) == pytest.approx(sd, rel=0.05)
    for value in (0.5, 3.0):
        exact = stats.lognorm(sd, scale=np.exp(mode)).logpdf(value)
        found = posterior.log_prob(Constant(jnp.asarray(value)))
        assert found == pytest.approx(exact, rel=1e-4)
    # Stirling's formula in place of the Gamma function: the error is 1 / (12 SHAPE).
    expected = log_evidence() - 1 / (12 * SHAPE)
    assert posterior.log_evidence() == pytest.approx(expected, abs=1e-3)
    # Linearised in the coordinates, the output is w (1 + u - mode).
    mean, covariance = posterior.joint_output_distribution(X[:1])
    assert mean[0, 0] == pytest.approx(np.exp(mode), rel=1e-5)
    assert covariance[0, 0, 0, 0] == pytest.approx(np.exp(mode) ** 2 / SHAPE, rel=1e-4)
    draw, centre = posterior.linearisation_point(key=KEY)
    u = np.log(posterior.sample(key=KEY).value)
    assert draw.value == pytest.approx(np.exp(mode) * (1.0 + u - mode), rel=1e-4)
    assert centre.value == posterior.mean().value


@pytest.mark.parametrize("vi", [bnn.MeanFieldVI, bnn.FullRankVI])
@pytest.mark.slow
def test_variational_methods_find_the_best_gaussian_of_the_coordinates(vi):
    """It has variance 1 / SHAPE, and a mean that is half of that below the mode."""
    rate = optax.cosine_decay_schedule(5e-2, 800)
    method = vi(gamma_poisson(), optax.adam(rate), num_samples=16)
    posterior = method.posterior(fitted(method, 800))
    sd = SHAPE**-0.5
    mean = np.log(SHAPE / RATE) - 0.5 / SHAPE
    assert np.log(posterior.mean().value) == pytest.approx(mean, abs=0.02)
    for value in (2.0, 3.0):
        exact = stats.lognorm(sd, scale=np.exp(mean)).logpdf(value)
        found = posterior.log_prob(Constant(jnp.asarray(value)))
        assert found == pytest.approx(exact, abs=0.1)
    draws = [posterior.sample(key=k).value for k in jax.random.split(KEY, 5)]
    assert np.all(np.asarray(draws) > 0)


def test_ivon_takes_a_log_normal_prior_as_a_normal_one():
    joint = bnn.LogJoint(lambda r: dist.Poisson(r), dist.LogNormal(0.0, 1.0), 6)
    same = bnn.LogJoint(lambda r: dist.Poisson(jnp.exp(r)), dist.Normal(0.0, 1.0), 6)
    settings = {"num_samples": 4, "beta2": 0.9}
    one = bnn.IVON(joint, 0.1, **settings)
    other = bnn.IVON(same, 0.1, **settings)
    found = one.posterior(fitted(one, 50)).mean().value
    expected = other.posterior(fitted(other, 50, Constant(jnp.asarray(0.0)))).mean()
    assert np.log(found) == pytest.approx(float(expected.value), abs=1e-4)


def test_swag_averages_the_coordinates():
    method = bnn.SWAG(
        bnn.MAP(gamma_poisson(), optax.sgd(0.3)), num_warmup=0, thin=1, rank=2
    )
    state = method.init(MODEL, key=KEY)
    update = eqx.filter_jit(method.update)
    path = []
    for _ in range(4):
        state, _ = update(state, (X, COUNTS), key=KEY)
        path.append(np.log(method.method.model(state.train).value))
    posterior = method.posterior(state)
    assert isinstance(posterior, bnn.SWAGPosterior)
    assert np.std(path) > 0.01
    assert np.log(method.model(state).value) == pytest.approx(np.mean(path), rel=1e-5)
    assert np.log(posterior.mean().value) == pytest.approx(np.mean(path), rel=1e-5)
    sd = np.sqrt(0.5 * np.var(path) + 0.5 * np.sum(posterior.deviations**2))
    exact = stats.lognorm(sd, scale=np.exp(np.mean(path))).logpdf(2.0)
    assert posterior.log_prob(Constant(jnp.asarray(2.0))) == pytest.approx(
        exact, rel=1e-3
    )


@pytest.mark.slow
def test_bounded_positive_and_ordered_parameters_by_quadrature():
    """A share, a scale and two ordered means at once, under HMC."""

    class Three(eqx.Module):
        share: jax.Array
        scale: jax.Array
        means: jax.Array

        def __call__(self, x):
            return self.share, self.scale, self.means

    @dataclasses.dataclass(frozen=True)
    class Independent:
        """Rows are hits, centred numbers, and numbers around two means."""

        def __call__(self, output):
            share, scale, means = output
            loc = jnp.concatenate([jnp.stack([share, 0.0 * share]), means])
            wide = jnp.stack([jnp.ones(()) * 0.3, scale, *jnp.ones(2)])
            return dist.Normal(loc, wide).to_event(1)

    rng = np.random.default_rng(2)
    y = rng.normal([0.9, 0.0, 0.1, 0.3], [0.3, 0.7, 1.0, 1.0], (5, 4))
    y = y.astype(np.float32)
    ordered = dist.TransformedDistribution(
        dist.Normal(0.0, 1.0).expand([2]).to_event(1),
        dist.transforms.OrderedTransform(),
    )
    prior = bnn.PriorByPath(
        {"share": dist.Beta(2.0, 3.0), "scale": dist.HalfNormal(1.0), "means": ordered}
    )
    joint = bnn.LogJoint(Independent(), prior, 5)
    model = Three(jnp.asarray(0.5), jnp.asarray(1.0), jnp.array([-0.5, 0.5]))
    method = hmc(joint)
    x = np.zeros((5, 1), np.float32)
    draws = bnn.run_chains(method, model, (x, y), key=KEY, progress=False).draws

    def moments(density, low, high):
        values = [
            integrate.quad(lambda w, k=k: w**k * density(w), low, high)[0]
            for k in range(3)
        ]
        mean = values[1] / values[0]
        return mean, np.sqrt(values[2] / values[0] - mean**2)

    def likelihood(column, loc, scale):
        return np.exp(stats.norm(loc, scale).logpdf(y[:, column]).sum() + 2.0)

    share = moments(lambda w: stats.beta(2, 3).pdf(w) * likelihood(0, w, 0.3), 0.0, 1.0)
    scale = moments(
        lambda w: stats.halfnorm().pdf(w) * likelihood(1, 0.0, w), 0.01, 8.0
    )
    for found, (mean, sd) in ((draws.share, share), (draws.scale, scale)):
        assert np.mean(found) == pytest.approx(mean, abs=0.07 * sd)
        assert np.std(found) == pytest.approx(sd, rel=0.08)
    # The ordered means on a grid: w_1 = u_1 and w_2 = u_1 + exp(u_2).
    first, gap = np.meshgrid(np.linspace(-4, 4, 400), np.linspace(1e-3, 8, 800))
    log_density = stats.norm().logpdf(first) + stats.norm().logpdf(np.log(gap))
    log_density -= np.log(gap)
    for column, loc in ((2, first), (3, first + gap)):
        for value in y[:, column]:
            log_density += stats.norm().logpdf(value - loc)
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    assert np.all(draws.means[..., 1] > draws.means[..., 0])
    for index, loc in enumerate((first, first + gap)):
        mean = (weights * loc).sum()
        sd = np.sqrt((weights * (loc - mean) ** 2).sum())
        assert np.mean(draws.means[..., index]) == pytest.approx(mean, abs=0.08 * sd)
        assert np.std(draws.means[..., index]) == pytest.approx(sd, rel=0.08)


ALPHA = np.array([1.0, 2.0, 0.5])
LABELS = np.repeat(np.arange(3), [5, 3, 4]).astype(np.int32)


def dirichlet():
    prior = dist.Dirichlet(jnp.asarray(ALPHA, jnp.float32))

    def likelihood(probs) -> Any:
        return dist.Categorical(probs=probs)

    joint = bnn.LogJoint(likelihood, prior, len(LABELS))
    model = Constant(jnp.ones(3) / 3)
    return joint, model, (np.zeros((len(LABELS), 1), np.float32), LABELS)


@pytest.mark.slow
def test_a_simplex_has_its_dirichlet_posterior():
    joint, model, data = dirichlet()
    method = hmc(joint)
    draws = bnn.run_chains(method, model, data, key=KEY, progress=False).draws.value
    assert np.allclose(np.sum(draws, -1), 1.0, atol=1e-5)
    exact = stats.dirichlet(ALPHA + np.bincount(LABELS))
    assert np.allclose(np.mean(draws, (0, 1)), exact.mean(), atol=0.01)
    assert np.allclose(np.var(draws, (0, 1)), exact.var(), rtol=0.12)


def test_laplace_of_a_simplex_is_diagonal_in_the_sticks():
    """Stick k has the logit of a Beta(a_k, a_{k+1} + ...), in closed form."""
    joint, model, data = dirichlet()
    method = bnn.Laplace(bnn.MAP(joint, optax.adam(5e-2)), kind="hessian")
    state = fitted(method, 600, model, data)
    posterior = method.posterior(state, [data])
    a = ALPHA + np.bincount(LABELS)
    # In these coordinates the mode is the posterior mean.
    assert np.allclose(posterior.mean().value, a / a.sum(), rtol=1e-4)
    rest = a[::-1].cumsum()[::-1][1:]
    assert isinstance(posterior.curvature, bnn.FullCurvature)
    precision = np.asarray(posterior.curvature.matrix) + np.diag(posterior.tau())
    exact = np.diag(a[:-1] * rest / (a[:-1] + rest))
    assert np.allclose(precision, exact, atol=2e-3)
    sample = posterior.sample(key=KEY).value
    assert sample.shape == (3,)
    assert np.sum(sample) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.slow
def test_a_correlation_matrix_has_its_posterior_by_quadrature():
    rng = np.random.default_rng(3)
    y = (rng.normal(size=(8, 2)) @ np.array([[1.0, 0.5], [0.0, 0.8]])).astype(
        np.float32
    )
    with jax.numpy_dtype_promotion("standard"):
        prior = dist.LKJ(2, 1.5)
    joint = bnn.LogJoint(
        lambda r: dist.MultivariateNormal(jnp.zeros(2), r), prior, len(y)
    )
    method = hmc(joint)
    data = np.zeros((8, 1), np.float32), y
    model = Constant(jnp.eye(2))
    draws = bnn.run_chains(method, model, data, key=KEY, progress=False).draws.value
    assert np.allclose(draws[..., 0, 0], 1.0, atol=1e-5)
    assert np.allclose(draws[..., 0, 1], draws[..., 1, 0], atol=1e-6)
    r = np.linspace(-0.9999, 0.9999, 4001)
    squares, product = (y**2).sum(), (y[:, 0] * y[:, 1]).sum()
    log_density = 0.5 * np.log(1 - r**2) - 4 * np.log(1 - r**2)
    log_density -= (squares - 2 * r * product) / (2 * (1 - r**2))
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    mean = (weights * r).sum()
    sd = np.sqrt((weights * (r - mean) ** 2).sum())
    assert np.mean(draws[..., 0, 1]) == pytest.approx(mean, abs=0.06 * sd)
    assert np.std(draws[..., 0, 1]) == pytest.approx(sd, rel=0.08)


class Hybrid(eqx.Module):
    """A network between a positive and a simplex-valued parameter."""

    layer: eqx.nn.Linear
    scale: jax.Array
    share: jax.Array

    def __call__(self, x):
        return self.scale * jnp.tanh(self.layer(x)) @ self.share


SGD = optax.sgd(1e-3)
SHORT: dict[str, Any] = {"num_warmup": 0, "num_draws": 2, "num_chains": 2}
METHODS = {
    "MAP": lambda joint: bnn.MAP(joint, SGD),
    "MeanFieldVI": lambda joint: bnn.MeanFieldVI(joint, SGD, stick_the_landing=True),
    "MeanFieldVI, local": lambda joint: bnn.MeanFieldVI(joint, SGD, estimator="local"),
    "FullRankVI": lambda joint: bnn.FullRankVI(joint, SGD, stick_the_landing=False),
    "DeepEnsemble": lambda joint: bnn.DeepEnsemble(bnn.MAP(joint, SGD), 2),
    "Laplace": lambda joint: bnn.Laplace(bnn.MAP(joint, SGD)),
    "SWAG": lambda joint: bnn.SWAG(bnn.MAP(joint, SGD), num_warmup=0, thin=1, rank=2),
    "HMC": lambda joint: bnn.HMC(joint, num_leapfrog=2, step_size=1e-3, **SHORT),
    "SGLD": lambda joint: bnn.SGLD(joint, 1e-4, thin=1, **SHORT),
    "Blocks": lambda joint: bnn.Blocks(
        bnn.MAP(joint, SGD),
        {
            "scale": bnn.Laplace(bnn.MAP(joint, SGD)),
            "share": bnn.FullRankVI(joint, SGD),
        },
        num_steps=3,
    ),
    "low precision": lambda joint: bnn.MAP(joint, SGD).in_low_precision(jnp.bfloat16),
}


def hybrid():
    x = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    prior = bnn.PriorByPath(
        {
            "scale": dist.HalfNormal(1.0),
            "share": dist.Dirichlet(jnp.ones(3)),
            "*": bnn.FanInNormal(),
        }
    )
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), prior, 8)
    layer = eqx.nn.Linear(2, 3, key=KEY)
    return joint, Hybrid(layer, jnp.array(1.0), jnp.ones(3) / 3), (x, np.sin(x[:, 0]))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(moved in|further apart).*:UserWarning")
def test_models_that_are_handed_back_are_constrained(name, tmp_path):
    joint, model, data = hybrid()
    method = METHODS[name](joint)
    state = method.init(model, key=KEY)
    update = eqx.filter_jit(method.update)
    for key in jax.random.split(KEY, 2):
        state, info = update(state, data, key=key)
    assert np.isfinite(info["loss"])
    posterior = method.posterior(state, [data], key=KEY)
    draw, mean = posterior.sample(key=KEY), posterior.mean()
    for found in (draw, mean, method.model(state)):
        assert jax.tree.structure(found) == jax.tree.structure(model)
        assert found.share.shape == (3,)
        assert np.sum(found.share) == pytest.approx(1.0, abs=1e-5)
        assert found.scale > 0
    assert np.all(np.isfinite(jax.vmap(posterior.sample_function(key=KEY))(data[0])))
    bnn.save_posterior(tmp_path / "q.safetensors", posterior)
    again = bnn.load_posterior(tmp_path / "q.safetensors", model=model)
    assert eqx.tree_equal(again.sample(key=KEY), draw)
    for wrapped in (bnn.Mixture([posterior, posterior]), again):
        assert np.sum(wrapped.mean().share) == pytest.approx(1.0, abs=1e-5)


def test_what_a_method_cannot_do_with_an_edge_is_named():
    joint, model, _ = hybrid()
    point = bnn.MAP(joint, SGD)
    with pytest.raises(TypeError, match=r"scale is HalfNormal.*or a LogNormal"):
        bnn.IVON(joint, 1e-2).init(model, key=KEY)
    with pytest.raises(TypeError, match=r"scale is HalfNormal.*DeepEnsemble"):
        bnn.AnchoredMAP(joint, SGD).init(model, key=KEY)
    random = eqx.tree_at(lambda m: m.scale, model, bnn.Gaussian.of(model.scale, 0.1))
    with pytest.raises(ValueError, match=r"scale, HalfNormal.*reaches all real"):
        bnn.MeanFieldVI(joint, SGD).init(random, key=KEY)
    below = eqx.tree_at(lambda m: m.scale, model, -model.scale)
    for method in (point, bnn.NUTS(joint), bnn.SWAG(point, num_warmup=0, thin=1)):
        with pytest.raises(ValueError, match=r"prior of scale.*Start inside"):
            method.init(below, key=KEY)
    correlated = bnn.PriorByPath({"share": CORRELATED, "*": bnn.IsotropicNormal(1.0)})
    joint = eqx.tree_at(lambda j: j.prior, joint, correlated)
    ordered = eqx.tree_at(lambda m: m.share, model, jnp.array([0.1, 0.5, 0.9]))
    laplace = bnn.Laplace(bnn.MAP(joint, SGD))
    state = laplace.init(ordered, key=KEY)
    data = hybrid()[2]
    with pytest.raises(ValueError, match="prior of share correlates its coordinates"):
        laplace.posterior(state, [data])


CORRELATED = dist.TransformedDistribution(
    dist.MultivariateNormal(jnp.zeros(3), 0.5 * jnp.eye(3) + 0.5),
    dist.transforms.OrderedTransform(),
)


class Normalised(eqx.Module):
    norm: eqx.nn.BatchNorm
    scale: jax.Array

    def __init__(self):
        self.norm = eqx.nn.BatchNorm(2, axis_name="batch", mode="ema")
        self.scale = jnp.asarray(0.7)

    def __call__(self, x, state, key=None):
        x, state = self.norm(x, state)
        return self.scale * jnp.sum(x), state


@pytest.mark.parametrize("name", ["SWAG", "SGLD"])
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(moved in|further apart).*:UserWarning")
def test_running_statistics_beside_an_edge(name):
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), dist.HalfNormal(1.0), 8)
    model = bnn.Stateful(*eqx.nn.make_with_state(Normalised)())
    data = hybrid()[2]
    method = METHODS[name](joint)
    state = method.init(model, key=KEY)
    for key in jax.random.split(KEY, 2):
        state, _ = eqx.filter_jit(method.update)(state, data, key=key)
    posterior = method.posterior(state, [data], key=KEY)
    assert posterior.sample(key=KEY).net.scale > 0
    assert np.allclose(posterior.mean().net.scale, 0.7, atol=0.2)
