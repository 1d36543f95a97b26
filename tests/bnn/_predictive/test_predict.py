"""The predictive mixture: its algebra, its independence of chunks, its exact cases."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

from jaxprob import bnn
from jaxprob.bnn._predictive import predict as _predict
from jaxprob.testing import LinearGaussian

ROWS, SAMPLES = 11, 13


def regression(getkey, **kwargs):
    model = bnn.LearnedNoise(eqx.nn.MLP(2, 2, 8, 1, key=getkey()), shape=(2,))
    posterior = eqx.filter_jit(bnn.bayesianize)(model, True)
    x = jax.random.normal(getkey(), (ROWS, 2))
    predictive = bnn.predict(
        posterior,
        bnn.HeteroscedasticNormal(),
        x,
        key=jax.random.key(5),
        num_samples=SAMPLES,
        **kwargs,
    )
    return posterior, x, predictive


def classification(getkey, **kwargs):
    model = eqx.nn.MLP(2, 3, 8, 1, key=getkey())
    posterior = eqx.filter_jit(lambda m: bnn.bayesianize(m, scale=1.0))(model)
    x = jax.random.normal(getkey(), (ROWS, 2))
    return bnn.predict(
        posterior,
        bnn.CategoricalLikelihood(),
        x,
        key=jax.random.key(5),
        num_samples=SAMPLES,
        **kwargs,
    )


@pytest.fixture
def by_hand(x64, getkey):
    """A predictive, and the means and scales of its parts as NumPy arrays."""
    _, _, predictive = regression(getkey)
    mean, raw = (np.asarray(a) for a in predictive.outputs)
    return predictive, mean, 1e-4 + np.log1p(np.exp(raw))


@pytest.mark.slow
def test_the_outputs_are_those_of_the_sampled_models(getkey):
    posterior, x, predictive = regression(getkey)
    mean, raw = predictive.outputs
    assert mean.shape == raw.shape == (ROWS, SAMPLES, 2)

    @eqx.filter_jit
    def output(s):
        model_key, _ = jax.random.split(jax.random.fold_in(jax.random.key(5), s))
        return jax.vmap(posterior.sample(key=model_key))(x)

    for s in (0, 7, SAMPLES - 1):
        assert np.allclose(mean[:, s], output(np.uint32(s))[0], atol=1e-6)


@pytest.mark.slow
def test_variance_is_the_law_of_total_variance(by_hand):
    predictive, mean, scale = by_hand
    assert np.allclose(predictive.mean, mean.mean(1), rtol=0.0, atol=1e-12)
    assert np.allclose(predictive.epistemic, mean.var(1), rtol=0.0, atol=1e-12)
    assert np.allclose(predictive.aleatoric, (scale**2).mean(1), rtol=0.0, atol=1e-12)
    second = (mean**2 + scale**2).mean(1) - mean.mean(1) ** 2
    assert np.allclose(predictive.variance, second, rtol=0.0, atol=1e-10)
    assert np.allclose(predictive.std, np.sqrt(second), rtol=0.0, atol=1e-10)


@pytest.mark.slow
def test_log_prob_is_the_mixtures_and_beats_the_mean_member(by_hand):
    predictive, mean, scale = by_hand
    y = np.random.default_rng(0).normal(size=(ROWS, 2))
    members = scipy.stats.norm.logpdf(y[:, None], mean, scale).sum(-1)
    expected = np.log(np.mean(np.exp(members), axis=1))
    value = predictive.log_prob(y)
    assert np.allclose(value, expected, rtol=0.0, atol=1e-10)
    assert np.all(np.asarray(value) >= members.mean(1))


def test_log_prob_far_out_is_finite():
    posterior = bnn.PointPosterior(lambda x: x)
    p = bnn.predict(
        posterior, bnn.NormalLikelihood(1e-3), jnp.zeros(2), key=jax.random.key(0)
    )
    assert np.all(np.isfinite(p.log_prob(jnp.array([50.0, -50.0]))))


@pytest.mark.slow
def test_quantiles_invert_the_mixtures_cdf(by_hand):
    predictive, mean, scale = by_hand
    for q in (0.001, 0.05, 0.5, 0.9):
        at = predictive.quantile(q)
        cdf = scipy.stats.norm.cdf(np.asarray(at)[:, None], mean, scale).mean(1)
        assert np.allclose(cdf, q, rtol=0.0, atol=1e-10)
        assert np.allclose(predictive.cdf(at), q, rtol=0.0, atol=1e-10)
    lower, upper = predictive.interval(0.8)
    assert np.allclose(
        predictive.cdf(upper) - predictive.cdf(lower), 0.8, rtol=0.0, atol=1e-10
    )
    # A mean of the parts' quantiles would be something else.
    wrong = scipy.stats.norm.ppf(0.95, mean, scale).mean(1)
    assert not np.allclose(predictive.quantile(0.95), wrong, atol=1e-4)


@pytest.mark.slow
def test_quantiles_of_a_likelihood_without_icdf(x64):
    """Student's t: numpyro has no inverse here, so the bracket is Cantelli's."""
    predictive = bnn.predict(
        bnn.PointPosterior(lambda x: x),
        lambda out: dist.StudentT(5.0, out, 2.0),
        jnp.array([0.0, 3.0]),
        key=jax.random.key(0),
    )
    for q in (0.02, 0.5, 0.99):
        expected = scipy.stats.t.ppf(q, 5.0, [0.0, 3.0], 2.0)
        assert np.allclose(predictive.quantile(q), expected, rtol=0.0, atol=1e-6)


@pytest.mark.slow
def test_a_support_with_an_edge_has_nothing_beyond_it():
    def gamma(out):
        return dist.Gamma(2.0, jnp.exp(out))

    model = eqx.nn.Linear(2, 1, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(2), (3, 2))
    predictive = bnn.predict(bnn.PointPosterior(model), gamma, x, key=jax.random.key(3))
    np.testing.assert_array_equal(predictive.cdf(-predictive.mean), np.zeros((3, 1)))
    rates = np.exp(np.asarray(jax.vmap(model)(x)))
    exact = scipy.stats.gamma.ppf(0.3, 2.0, scale=1.0 / rates)
    np.testing.assert_allclose(predictive.quantile(0.3), exact, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [bnn.NormalLikelihood, bnn.StudentTLikelihood])
def test_quantiles_have_the_derivatives_of_differences(x64, kind):
    members = bnn.Mixture(
        [bnn.PointPosterior(eqx.nn.Linear(2, 1, key=jax.random.key(i))) for i in (0, 1)]
    )
    x = jax.random.normal(jax.random.key(2), (1, 2))

    def upper(at):
        scale, x = at
        found = bnn.predict(members, kind(scale), x, key=jax.random.key(3))
        return found.quantile(0.8)[0, 0]

    at = (jnp.asarray(0.4), x)
    scale_slope, x_slope = jax.grad(upper)(at)
    step = 1e-4
    for slope, move in (
        (scale_slope, (jnp.asarray(step), 0.0 * x)),
        (x_slope[0, 0], (jnp.asarray(0.0), jnp.array([[step, 0.0]]))),
    ):
        right = upper(jax.tree.map(jnp.add, at, move))
        left = upper(jax.tree.map(jnp.subtract, at, move))
        np.testing.assert_allclose(slope, (right - left) / (2 * step), rtol=1e-5)


@pytest.mark.slow
def test_entropy_is_the_mean_entropy_and_the_mutual_information(x64, getkey):
    predictive = classification(getkey)
    probs = np.asarray(jax.nn.softmax(predictive.outputs, axis=-1))
    mixture = probs.mean(1)
    assert np.allclose(predictive.probs, mixture, rtol=0.0, atol=1e-12)
    total = -(mixture * np.log(mixture)).sum(-1)
    each = -(probs * np.log(probs)).sum(-1).mean(1)
    assert np.allclose(predictive.entropy, total, rtol=0.0, atol=1e-10)
    assert np.allclose(
        predictive.mutual_information, total - each, rtol=0.0, atol=1e-10
    )
    assert np.all(np.asarray(predictive.mutual_information) > 0)
    y = np.arange(ROWS) % 3
    assert np.allclose(
        predictive.log_prob(y.astype(np.int32)),
        np.log(mixture[np.arange(ROWS), y]),
        rtol=0.0,
        atol=1e-10,
    )


def test_bernoulli_entropy_and_moments(x64):
    outputs = jnp.array([-800.0, 0.0, 1.5])
    predictive = bnn.predict(
        bnn.PointPosterior(lambda x: x),
        bnn.BernoulliLikelihood(),
        outputs,
        key=jax.random.key(0),
    )
    p = np.asarray(jax.nn.sigmoid(outputs))
    assert np.allclose(predictive.probs, p)
    assert np.allclose(predictive.variance, p * (1 - p))
    assert np.allclose(predictive.entropy, scipy.stats.bernoulli.entropy(p))
    assert np.allclose(predictive.mutual_information, 0.0, rtol=0.0, atol=1e-12)


def statistics(p):
    y = jnp.zeros((ROWS, 2))
    return {
        "mean": p.mean,
        "epistemic": p.epistemic,
        "log_prob": p.log_prob(y),
        "cdf": p.cdf(y),
        "quantile": p.quantile(0.3),
        "sample": p.sample(key=jax.random.key(3)),
        "outputs": p.outputs[0],
    }


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("keep", [True, False])
def test_chunks_and_blocks_change_no_number(getkey, monkeypatch, batch_size, keep):
    expected = statistics(regression(getkey)[2])
    getkey.count = 0
    monkeypatch.setattr(_predict, "KEEP_BYTES", 2**24 if keep else 0)
    chunked = regression(getkey, batch_size=batch_size, model_batch_size=3)[2]
    for name, value in statistics(chunked).items():
        assert np.allclose(value, expected[name], atol=2e-6), name


def test_more_samples_begin_with_the_same_models(getkey):
    posterior, x, few = regression(getkey)
    more = bnn.predict(
        posterior,
        bnn.HeteroscedasticNormal(),
        x,
        key=jax.random.key(5),
        num_samples=SAMPLES + 8,
    )
    assert np.allclose(more.outputs[0][:, :SAMPLES], few.outputs[0], atol=1e-6)


@pytest.mark.slow
def test_posterior_samples_of_a_linear_model_match_the_exact_predictive(x64, getkey):
    """Draws of the exact posterior, so that the mixture is all that is tested."""
    make = jax.jit(lambda key: LinearGaussian.random(key=key, num_data=30, dim=3))
    problem = make(getkey())

    class Exact(bnn.AbstractPosterior):
        root: jax.Array
        center: jax.Array

        def sample(self, *, key):
            w = self.center + self.root @ jax.random.normal(key, self.center.shape)
            return lambda x: x @ w[:-1] + w[-1]

        def mean(self):
            return lambda x: x @ self.center[:-1] + self.center[-1]

    posterior = Exact(jnp.linalg.cholesky(problem.covariance), problem.mean)
    num = 20_000
    x = 3 * jax.random.normal(getkey(), (6, 3))
    predictive = bnn.predict(
        posterior,
        bnn.NormalLikelihood(problem.noise),
        x,
        key=getkey(),
        num_samples=num,
        model_batch_size=500,
    )
    mean, variance = problem.predictive(x)
    epistemic = variance - problem.noise**2
    assert np.all(
        np.abs(predictive.mean - mean) < 5 * np.sqrt(np.asarray(epistemic) / num)
    )
    ratio = np.asarray(predictive.epistemic / epistemic)
    assert np.all(np.abs(ratio - 1) < 5 * np.sqrt(2 / num))
    for q in (0.05, 0.5, 0.975):
        # At most that of a plain sample, whose share below has variance q (1 - q) / n.
        exact: Any = scipy.stats.norm(mean, np.sqrt(variance))
        error = np.sqrt(q * (1 - q) / num) / exact.pdf(exact.ppf(q))
        assert np.all(np.abs(predictive.quantile(q) - exact.ppf(q)) < 5 * error)


@pytest.mark.slow
def test_joint_samples_share_the_model_between_rows(getkey):
    """The difference of two rows that are equal is pure noise, whatever the model."""
    posterior = eqx.filter_jit(lambda m: bnn.bayesianize(m, scale=5.0))(
        eqx.nn.Linear(1, "scalar", key=getkey())
    )
    predictive = bnn.predict(
        posterior,
        bnn.NormalLikelihood(0.1),
        jnp.ones((2, 1)),
        key=getkey(),
        num_samples=400,
    )
    draws = jax.jit(jax.vmap(lambda k: predictive.sample(key=k)))(
        jax.random.split(getkey(), 2000)
    )
    ratio = np.std(draws[:, 0] - draws[:, 1]) / (0.1 * np.sqrt(2))
    assert abs(ratio - 1) < 5 / np.sqrt(2 * 2000)
    assert np.std(draws[:, 0]) > 3.0


@pytest.mark.slow
def test_statistics_may_be_asked_for_inside_jit_first(getkey):
    posterior, x, eager = regression(getkey)
    predictive = bnn.predict(
        posterior,
        bnn.HeteroscedasticNormal(),
        x,
        key=jax.random.key(5),
        num_samples=SAMPLES,
    )
    inside = jax.jit(lambda y: predictive.log_prob(y))(jnp.zeros((ROWS, 2)))
    assert np.allclose(inside, eager.log_prob(jnp.zeros((ROWS, 2))), atol=1e-5)
    assert np.allclose(predictive.mean, eager.mean, atol=1e-6)

    @jax.jit
    def traced(x):
        p = bnn.predict(
            posterior,
            bnn.HeteroscedasticNormal(),
            x,
            key=jax.random.key(5),
            num_samples=SAMPLES,
        )
        return p.mean, p.epistemic

    mean, epistemic = traced(x)
    assert np.allclose(mean, eager.mean, atol=1e-6)
    assert np.allclose(epistemic, eager.epistemic, atol=1e-6)


def test_a_point_posterior_is_one_model_once():
    calls = bnn.predict(
        bnn.PointPosterior(lambda x: 2 * x),
        bnn.NormalLikelihood(1.0),
        jnp.arange(3.0),
        key=jax.random.key(0),
    )
    assert calls.num_samples == 1
    assert np.array_equal(calls.mean, [0.0, 2.0, 4.0])
    assert np.array_equal(calls.epistemic, np.zeros(3))


def test_dropout_is_off(getkey):
    model = eqx.nn.Sequential([eqx.nn.Dropout(0.5)])
    predictive = bnn.predict(
        bnn.PointPosterior(model),
        bnn.NormalLikelihood(1.0),
        jnp.ones((3, 4)),
        key=getkey(),
    )
    assert np.array_equal(predictive.mean, np.ones((3, 4)))


@pytest.mark.slow
def test_what_has_no_meaning_is_refused(getkey):
    _, x, predictive = regression(getkey)
    with pytest.raises(ValueError, match="probs, entropy and mutual_information are"):
        _ = predictive.entropy
    with pytest.raises(ValueError, match=r"one number inside \(0, 1\)"):
        predictive.quantile(1.0)
    with pytest.raises(ValueError, match=r"level=0.0"):
        predictive.interval(0.0)
    with pytest.raises(ValueError, match="y has shape"):
        predictive.log_prob(jnp.zeros((3, 2)))
    with pytest.raises(
        ValueError, match=r"targets of these predictions have the shape \(11, 2\)"
    ):
        predictive.log_prob(jnp.zeros((ROWS, 1)))
    classes = classification(getkey)
    with pytest.raises(ValueError, match="class labels have no mean"):
        _ = classes.mean
    with pytest.raises(ValueError, match="class labels have no quantile"):
        classes.quantile(0.5)
    bad = np.asarray(x).copy()
    bad[2, 1] = np.nan
    with pytest.raises(
        ValueError, match=r"x holds 1 non-finite value.* row 2, column 1"
    ):
        bnn.predict(
            bnn.PointPosterior(lambda x: x),
            bnn.NormalLikelihood(1.0),
            bad,
            key=getkey(),
        )
    with pytest.raises(ValueError, match="num_samples=0"):
        bnn.predict(
            bnn.PointPosterior(lambda x: x),
            bnn.NormalLikelihood(1.0),
            x,
            key=getkey(),
            num_samples=0,
        )
