"""A Gaussian posterior as the next prior: streams of conjugate data are exact."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from scipy import stats

import jaxprob
from jaxprob import bnn
from jaxprob.testing import LinearGaussian

KEY = jax.random.key(3)
NOISE = 0.5
MIX = np.array([[1.0, 0.4, 0.0], [0.0, 1.0, -0.6], [0.3, 0.0, 1.0]])


def make_problem():
    x = np.random.default_rng(0).normal(size=(30, 3)) @ MIX
    y = x @ np.array([1.0, -0.5, 0.3]) + np.sin(5.0 * x[:, 0])
    return LinearGaussian(jnp.asarray(x), jnp.asarray(y), NOISE)


def part(problem, rows):
    """The same regression from some of its rows."""
    return LinearGaussian(
        problem.x[rows], problem.y[rows], problem.noise, problem.prior_scale
    )


def at(problem, mean):
    return jaxprob.tree.ravel(problem.model(key=KEY))[1](mean)


def joint_of(problem, prior, **settings):
    likelihood = bnn.NormalLikelihood(problem.noise)
    return bnn.LogJoint(likelihood, prior, len(problem.y), **settings)


def laplace_at(problem, prior, mean, structure: Any = "full", **settings):
    """Laplace at a given mode of the rows of a problem."""
    joint = joint_of(problem, prior, **settings)
    method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)), structure)
    return method.posterior(method.init(at(problem, mean)), [(problem.x, problem.y)])


def scaled():
    """Weights and bias have priors of different scales."""
    return bnn.PriorByPath(
        {"weight": bnn.IsotropicNormal(0.7), "bias": bnn.IsotropicNormal(3.0)}
    )


def design_of(x):
    return np.concatenate([np.asarray(x), np.ones((len(x), 1))], axis=1)


def exact(problem, prior_precision, prior_mean):
    """Mean and precision of linear regression under any Gaussian prior, by NumPy."""
    design, y = design_of(problem.x), np.asarray(problem.y)
    precision = prior_precision + design.T @ design / NOISE**2
    right = design.T @ y / NOISE**2 + prior_precision @ prior_mean
    return np.linalg.solve(precision, right), precision


def close(a, b, atol=1e-8):
    return np.allclose(a, b, rtol=0.0, atol=atol)


@pytest.mark.parametrize(
    "structure",
    ["full", "kronecker", pytest.param("low_rank", marks=pytest.mark.slow)],
)
def test_two_halves_are_the_batch_posterior(x64, structure):
    """Density, evidence and joint covariance of outputs, beside closed forms."""
    problem = make_problem()
    first, second = part(problem, slice(0, 15)), part(problem, slice(15, None))
    tau = np.array([0.7, 0.7, 0.7, 3.0]) ** -2.0
    mean_1, precision_1 = exact(first, np.diag(tau), np.zeros(4))
    mean, precision = exact(problem, np.diag(tau), np.zeros(4))
    assert close(mean, exact(second, precision_1, mean_1)[0])
    early = laplace_at(first, scaled(), jnp.asarray(mean_1), structure)
    late = laplace_at(second, early.as_prior(), jnp.asarray(mean), structure)

    x = jnp.linspace(-2.0, 2.0, 6).reshape(2, 3)
    outputs, covariance = late.joint_output_distribution(x)
    spread = design_of(x) @ np.linalg.solve(precision, design_of(x).T)
    assert close(outputs[:, 0], design_of(x) @ mean)
    assert close(covariance[:, 0, :, 0], spread)
    inverse: Any = np.linalg.inv(precision)
    truth = stats.multivariate_normal(mean, inverse)
    model = at(problem, jnp.asarray(mean + 0.1))
    assert close(late.log_prob(model), truth.logpdf(mean + 0.1))
    assert close(late.as_prior().log_prob(model), truth.logpdf(mean + 0.1))
    # log p(second | first) is what the second half adds to the evidence.
    design = design_of(problem.x)
    marginal: Any = NOISE**2 * np.eye(30) + design / tau @ design.T
    evidence = stats.multivariate_normal(np.zeros(30), marginal).logpdf(problem.y)
    assert close(early.log_evidence() + late.log_evidence(), evidence)


def test_diagonal_structure_is_exact_for_orthogonal_inputs(x64):
    x = jnp.concatenate([jnp.eye(3), 2.0 * jnp.eye(3)])
    y = jnp.linspace(-1.0, 1.0, 6)
    problem = LinearGaussian(x, y, NOISE, 1.0, bias=False)
    model = problem.model(key=KEY)

    def fit(rows, prior, mean):
        joint = bnn.LogJoint(bnn.NormalLikelihood(NOISE), prior, len(y[rows]))
        method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)), "diagonal")
        start = jaxprob.tree.ravel(model)[1](mean)
        return method.posterior(method.init(start), [(x[rows], y[rows])])

    prior = bnn.IsotropicNormal(1.0)
    first = LinearGaussian(x[:2], y[:2], NOISE, 1.0, bias=False)
    early = fit(slice(0, 2), prior, first.mean)
    late = fit(slice(2, None), early.as_prior(), problem.mean)
    assert early.as_prior().is_diagonal
    whole = late.output_distribution(x)[1]
    expected = jnp.einsum("ni,ij,nj->n", x, problem.covariance, x)
    assert close(whole[:, 0, 0], expected)


def test_the_log_joint_of_the_second_half_is_that_of_all_rows(x64):
    """Up to a constant, which is all that samplers and optimisers use, at one T."""
    problem, temperature = make_problem(), 0.5
    first, second = part(problem, slice(0, 12)), part(problem, slice(12, None))
    prior = dist.Normal(0.0, problem.prior_scale)
    early = laplace_at(first, prior, first.mean, temperature=temperature)
    joint = joint_of(second, early.as_prior(), temperature=temperature)
    whole = problem.log_joint(temperature=temperature)

    def gap(mean):
        model = at(problem, mean)
        data = (second.x, second.y), (problem.x, problem.y)
        return joint(model, data[0]) - whole(model, data[1])

    assert close(jax.jit(jax.grad(gap))(problem.mean + 1.0), np.zeros(4))


class Two(eqx.Module):
    """A model with a free and a positive leaf."""

    weight: jax.Array
    scale: jax.Array

    def __call__(self, x):
        return self.scale * jnp.tanh(self.weight @ x)


MODEL = Two(jnp.array([0.3, -0.2]), jnp.array(1.5))
X = np.linspace(-1.0, 1.0, 16, dtype=np.float32).reshape(8, 2)
Y = np.linspace(-0.5, 0.7, 8, dtype=np.float32)
WITH_EDGE = bnn.PriorByPath(
    {"scale": dist.LogNormal(0.0, 0.5), "*": dist.Normal(0.0, 1.0)}
)
EDGE_JOINT = bnn.LogJoint(bnn.NormalLikelihood(0.3), WITH_EDGE, 8)
FREE = bnn.unconstrained(MODEL, WITH_EDGE)
ROOT = np.array([[0.9, 0.0, 0.0], [0.5, 0.7, 0.0], [-0.3, 0.2, 0.6]], np.float32)
ROWS = np.array([[0.4, -0.2, 0.1], [0.1, 0.5, -0.6]], np.float32)
NAMES = [
    *("full", "low_rank", "diagonal"),
    *("mean_field", "full_rank", "low_rank_vi", "swag", "diagonal_swag"),
]


@pytest.fixture(scope="module")
def posteriors():
    """One of each form, over the same unconstrained coordinates."""
    zero, size = jnp.zeros(()), jnp.array([0.5, 0.3, 0.2])
    none = jax.tree.map(lambda a: None, FREE)

    def laplace(curvature):
        facts = (bnn.NormalLikelihood(0.3), zero, zero, jnp.asarray(8.0))
        return bnn.LaplacePosterior(FREE, none, curvature, WITH_EDGE, *facts, 0.5)

    matrix = jnp.asarray(ROOT @ ROOT.T)
    rows = jnp.asarray(ROWS)
    return {
        "full": laplace(bnn.FullCurvature(matrix)),
        "low_rank": laplace(bnn.LowRankCurvature(rows.T, jnp.zeros(3), zero)),
        "diagonal": laplace(bnn.DiagonalCurvature(jnp.diag(matrix))),
        "mean_field": bnn.bayesianize(FREE, scale=0.4),
        "full_rank": bnn.FullRankPosterior(FREE, none, jnp.asarray(ROOT)),
        "low_rank_vi": bnn.LowRankPosterior(FREE, none, size, rows),
        "swag": bnn.SWAGPosterior(FREE, none, size, rows),
        "diagonal_swag": bnn.SWAGPosterior(FREE, none, size, rows[:0]),
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_prior_has_the_density_of_the_posterior(posteriors, name):
    """Of constrained models, and of coordinates with their Jacobian."""
    posterior = posteriors[name]
    prior = posterior.as_prior(temperature=1.0)
    for model in (MODEL, posterior.mean()):
        expected = posterior.log_prob(model)
        assert np.allclose(prior.log_prob(model), expected, atol=1e-4)
        free = bnn.unconstrained(model, prior)
        assert isinstance(free.scale, bnn.Unconstrained)
        volume = free.scale.log_volume()
        assert np.allclose(prior.log_prob(free), expected + volume, atol=1e-4)
        cold = prior.log_prob(free, temperature=0.5)
        assert np.allclose(cold, expected + 0.5 * volume, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_forms_of_the_covariance_agree(posteriors, name):
    """Draws, variance, precision, determinant and quadratic form, beside NumPy's."""
    covariance = posteriors[name].as_prior(temperature=1.0).covariance
    precision = np.asarray(covariance.precision(), np.float64)
    dense = np.linalg.inv(precision)
    assert np.allclose(covariance.variance(), np.diag(dense), rtol=1e-3)
    assert np.allclose(covariance.precision_diagonal(), np.diag(precision), rtol=1e-4)
    assert np.allclose(covariance.log_det(), np.linalg.slogdet(dense)[1], atol=1e-3)
    delta = np.array([0.3, -1.0, 0.2], np.float32)
    assert np.allclose(
        covariance.quadratic(jnp.asarray(delta)), delta @ precision @ delta, rtol=1e-3
    )
    keys = jax.random.split(KEY, 4000)
    draws = np.asarray(jax.vmap(lambda key: covariance.draw(key=key))(keys))
    scale = np.sqrt(np.diag(dense))
    found = np.cov(draws.T) / scale[:, None] / scale
    assert np.allclose(found, dense / scale[:, None] / scale, atol=0.1)
    # The joint density that has the prior divides its logarithm by T.
    cold = posteriors[name].as_prior(temperature=0.25).covariance
    assert np.allclose(cold.variance(), 4 * covariance.variance(), rtol=1e-4)
    half = covariance.scaled(0.25)
    assert np.allclose(half.variance(), covariance.variance() / 4, rtol=1e-5)
    assert np.allclose(half.precision(), 4 * covariance.precision(), rtol=1e-4)


def test_divergence_of_independent_leaves_is_in_closed_form(x64):
    matrix = jnp.array([[1.0, 0.4, 0.1], [0.4, 0.8, -0.2], [0.1, -0.2, 0.5]])
    model = Two(jnp.array([0.3, -0.2]), jnp.array(0.5))
    centre = Two(jnp.array([0.1, 0.2]), jnp.array(0.0))
    prior = bnn.GaussianPrior(centre, matrix)
    tree = bnn.bayesianize(model, scale=lambda path, leaf: 0.3).tree
    precision, delta = np.linalg.inv(matrix), np.array([0.2, -0.4, 0.5])
    log_ratio = np.linalg.slogdet(matrix)[1] - 3 * np.log(0.09)
    quadratic = delta @ precision @ delta
    expected = 0.5 * (0.09 * np.trace(precision) + quadratic - 3 + log_ratio)
    entropy = 1.5 * np.log(2 * np.pi * np.e * 0.09)
    assert close(bnn.kl(tree, prior), expected)
    # E_q[log q - log p / T] at another temperature.
    cold = bnn.kl(tree, prior, temperature=0.5)
    assert close(cold, 2.0 * expected + entropy)


def test_draws_of_the_prior_are_correlated():
    matrix = jnp.array([[1.0, 0.9], [0.9, 1.0]])
    model = (jnp.zeros(()), jnp.ones(()))
    prior = bnn.GaussianPrior(model, matrix)
    keys = jax.random.split(KEY, 2000)
    first, second = jax.vmap(lambda key: bnn.sample_prior(model, prior, key=key))(keys)
    assert abs(np.corrcoef(first, second)[0, 1] - 0.9) < 0.03
    assert abs(np.mean(second) - 1.0) < 0.1


@pytest.mark.slow
def test_anchors_under_a_correlated_prior_are_exact_draws(x64):
    """The optimum of a linear model moves by P^-1 P_0 times the anchor's step."""
    problem = make_problem()
    first, second = part(problem, slice(0, 12)), part(problem, slice(12, None))
    prior = dist.Normal(0.0, problem.prior_scale)
    early = laplace_at(first, prior, first.mean).as_prior()
    method = bnn.AnchoredMAP(joint_of(second, early), optax.sgd(0.1))
    state = method.init(at(problem, problem.mean), key=KEY)
    anchor = jaxprob.tree.ravel(state.anchor)[0]
    drawn = early.mean_vector() + _one_draw(early, KEY)
    assert close(anchor, drawn)
    found = method.gradient(state, (second.x, second.y), key=KEY)
    # The prior's part of the gradient, in nats per row.
    moved = eqx.tree_at(lambda s: s.anchor, state, eqx.filter(state.train.model, True))
    other = method.gradient(moved, (second.x, second.y), key=KEY)
    part_of_prior = jaxprob.tree.ravel(found)[0] - jaxprob.tree.ravel(other)[0]
    step = problem.mean - anchor
    assert close(part_of_prior, early.covariance.precision() @ step / len(second.y))


def _one_draw(prior, key):
    prior_key, _ = jax.random.split(key)
    return prior.covariance.draw(key=prior_key)


@pytest.mark.slow
def test_variational_methods_and_chains_run_with_it(posteriors):
    """Each finds the density of the next joint; their targets are tested above."""
    joint = bnn.LogJoint(
        bnn.NormalLikelihood(0.3), posteriors["full"].as_prior(), num_data=8
    )
    for method in (
        bnn.MeanFieldVI(joint, optax.adam(1e-2)),
        bnn.FullRankVI(joint, optax.adam(1e-2)),
        bnn.SGLD(joint, 1e-4, num_warmup=2, num_draws=2, thin=1),
    ):
        state, _ = jaxprob.fit(method, MODEL, (X, Y), key=KEY, num_steps=4)
        assert np.asarray(method.posterior(state).mean().scale) > 0


def test_a_posterior_with_such_a_prior_is_saved(posteriors, tmp_path):
    joint = bnn.LogJoint(
        bnn.NormalLikelihood(0.3), posteriors["full"].as_prior(), num_data=8
    )
    method = bnn.Laplace(bnn.MAP(joint, optax.adam(1e-2)))
    posterior = method.posterior(method.init(MODEL), [(X, Y)])
    path = tmp_path / "posterior.safetensors"
    bnn.save_posterior(path, posterior)
    found = bnn.load_posterior(path, model=MODEL)
    assert np.array_equal(found.log_prob(MODEL), posterior.log_prob(MODEL))


@pytest.mark.slow
def test_expected_improvement_by_predict_is_that_of_the_exact_moments(x64):
    """Its value and its slope in x, under jit, beside the closed form."""
    problem = make_problem()
    prior = dist.Normal(0.0, problem.prior_scale)
    posterior = laplace_at(problem, prior, problem.mean)

    def improvement(mean, variance):
        std = jnp.sqrt(variance)
        z, normal = (mean - 0.5) / std, jax.scipy.stats.norm
        return (mean - 0.5) * normal.cdf(z) + std * normal.pdf(z)

    def by_predict(x):
        predictive = bnn.predict(
            posterior, posterior.likelihood, x[None], key=KEY, num_samples=20_000
        )
        return improvement(predictive.mean[0], predictive.epistemic[0])

    def in_closed_form(x):
        design = jnp.append(x, 1.0)
        return improvement(design @ problem.mean, design @ problem.covariance @ design)

    x = jnp.array([0.3, -0.2, 1.5])
    found = jax.jit(jax.value_and_grad(by_predict))(x)
    expected = jax.value_and_grad(in_closed_form)(x)
    for a, b in zip(found, expected, strict=True):
        assert np.allclose(a, b, atol=0.01)


def test_wrong_arguments_are_named(posteriors):
    prior = posteriors["full"].as_prior()
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), prior, num_data=8)
    with pytest.raises(ValueError, match="correlates the leaf scale with others"):
        bnn.MAP(joint, optax.sgd(0.1), random="weight").init(MODEL)
    other = eqx.nn.Linear(2, 1, key=KEY)
    with pytest.raises(ValueError, match="no prior for the leaf bias"):
        bnn.MAP(joint, optax.sgd(0.1)).init(other)
    with pytest.raises(ValueError, match=r"structure='diagonal'.*structure='full'"):
        bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)), "diagonal").init(MODEL)
    with pytest.raises(TypeError, match="IVON is for independent"):
        bnn.IVON(joint, 0.1).init(MODEL)
    with pytest.raises(ValueError, match=r"shape \(2, 2\).*\(3, 3\)"):
        bnn.GaussianPrior(MODEL, jnp.eye(2))
    with pytest.raises(ValueError, match="not positive definite"):
        bnn.GaussianPrior(MODEL, -jnp.eye(3))
    with pytest.raises(NotImplementedError, match="PointPosterior is no Gaussian"):
        bnn.PointPosterior(MODEL).as_prior()
    method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)))
    posterior = method.posterior(method.init(MODEL), [(X, Y)])
    with pytest.raises(ValueError, match="tune_prior tunes priors"):
        bnn.tune_prior(posterior)


def test_the_nearest_kronecker_product_is_that_of_the_singular_pair(x64):
    """Beside NumPy's decomposition of the rearranged sum, for unequal factors."""
    rng = np.random.default_rng(0)

    def block():
        roots = rng.normal(size=(3, 5)), rng.normal(size=(2, 4))
        inputs, outputs = (jnp.asarray(r @ r.T) for r in roots)
        return bnn.KroneckerBlock(inputs[None], outputs[None], "weight", 0)

    blocks = block(), block()
    from jaxprob.bnn._laplace.sum_of_curvatures import dense, sum_of_curvatures

    curvatures = [bnn.KroneckerCurvature((b,)) for b in blocks]
    total: Any = sum(np.kron(b.outputs[0], b.inputs[0]) for b in blocks)
    assert close(dense(curvatures[0]) + dense(curvatures[1]), total)
    rearranged = total.reshape(2, 3, 2, 3).transpose(0, 2, 1, 3).reshape(4, 9)
    u, s, v = np.linalg.svd(rearranged)
    nearest = s[0] * np.kron(u[:, 0].reshape(2, 2), v[0].reshape(3, 3))
    found: Any = sum_of_curvatures(*curvatures)
    assert close(dense(found), nearest)
    assert np.linalg.eigvalsh(found.blocks[0].outputs).min() > 0
