"""The log joint: scaling by N/B, temperature, priors by leaf, errors that teach."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import jaxprob
from jaxprob import bnn

from ...unhooked import unhooked


@pytest.fixture
def data(getkey):
    x = jax.random.normal(getkey(), (12, 3))
    return x, jnp.sin(x[:, 0])


@pytest.fixture
def model(getkey):
    return eqx.nn.Linear(3, "scalar", key=getkey())


@pytest.mark.slow
def test_the_log_joint_is_the_sum_by_hand(data, model, getkey):
    joint = bnn.LogJoint(
        bnn.NormalLikelihood(0.3), dist.Normal(0.0, 2.0), 120, temperature=0.5
    )
    x, y = data
    out = np.asarray(x @ model.weight[0] + model.bias[0])
    log_likelihood = 10 * scipy.stats.norm.logpdf(y, out, 0.3).sum()
    weights = np.concatenate([model.weight[0], model.bias])
    log_prior = scipy.stats.norm.logpdf(weights, 0.0, 2.0).sum()
    key = getkey()
    assert np.allclose(
        joint.log_likelihood(model, data, key=key), log_likelihood, rtol=1e-5
    )
    assert np.allclose(joint.log_prior(model), log_prior, rtol=1e-5)
    expected = (log_likelihood + log_prior) / 0.5
    assert np.allclose(joint(model, data, key=key), expected, rtol=1e-5)


LIKELIHOODS = {
    "categorical": (bnn.CategoricalLikelihood(), (4,), jnp.array([0, 3, 1])),
    "bernoulli": (bnn.BernoulliLikelihood(), (), jnp.array([0, 1, 1])),
    "bernoulli bools": (bnn.BernoulliLikelihood(), (), jnp.array([False, True, True])),
    "bernoulli floats": (bnn.BernoulliLikelihood(), (), jnp.array([0.0, 1.0, 1.0])),
    "pair": (bnn.HeteroscedasticNormal(), (4,), jnp.ones((3, 2))),
    "poisson": (lambda out: dist.Poisson(jnp.exp(out)), (), jnp.array([0, 5, 2])),
    "student": (lambda out: dist.StudentT(3.0, out), (), jnp.ones(3)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_any_numpyro_distribution_is_a_likelihood(name, getkey):
    likelihood, shape, y = LIKELIHOODS[name]
    x = jax.random.normal(getkey(), (3, *shape))
    joint = bnn.LogJoint(likelihood, dist.Normal(0.0, 1.0), 3)
    value = joint.log_likelihood(lambda x: x, (x, y), key=getkey())
    if name.startswith("bernoulli"):
        y = y.astype(jnp.float32)
    with jax.numpy_dtype_promotion("standard"):  # numpyro's Bernoulli mixes kinds
        by_hand = sum(
            jnp.sum(likelihood(a).log_prob(b)) for a, b in zip(x, y, strict=True)
        )
    assert np.allclose(value, by_hand, rtol=1e-5)


def test_heteroscedastic_output_may_be_a_pair_or_halves(getkey):
    likelihood = bnn.HeteroscedasticNormal(min_scale=0.01)
    mean, raw = jnp.array([1.0, 2.0]), jnp.array([-1.0, 3.0])
    p = likelihood((mean, raw))
    q = likelihood(jnp.concatenate([mean, raw]))
    assert np.array_equal(p.loc, q.loc)
    assert np.array_equal(p.scale, q.scale)
    assert np.allclose(p.scale, 0.01 + np.log1p(np.exp(raw)), rtol=1e-6)
    with pytest.raises(ValueError, match="last axis of even"):
        likelihood(jnp.zeros(3))
    with pytest.raises(ValueError, match="LearnedNoise"):
        likelihood(jnp.zeros(()))


def test_learned_noise_starts_where_asked_and_is_one_number(getkey):
    model = bnn.LearnedNoise(eqx.nn.Linear(3, 2, key=getkey()), scale=0.25)
    out = model(jnp.ones(3))
    assert np.allclose(bnn.HeteroscedasticNormal()(out).scale, 0.25, rtol=1e-5)
    assert np.allclose(model.scale, 0.25, rtol=1e-5)
    with pytest.raises(ValueError, match="exceed"):
        bnn.LearnedNoise(model, scale=0.0)


def test_a_prior_sees_path_and_leaf(model):
    seen = {}

    def prior(path, leaf):
        seen[path] = leaf.shape
        return dist.Normal(0.0, 1.0)

    bnn.log_prior(prior, model)
    assert seen == {"weight": (1, 3), "bias": (1,)}


@pytest.mark.slow
def test_prior_scales(model):
    wide = eqx.nn.Conv2d(4, 8, 3, key=jax.random.key(0))
    assert np.allclose(bnn.FanInNormal(2.0)("w", wide.weight).scale, 2.0 / 6.0)
    assert np.allclose(bnn.FanInNormal(2.0)("b", wide.bias).scale, 2.0)
    assert np.allclose(bnn.IsotropicNormal(0.3)("w", wide.weight).scale, 0.3)
    by_path = bnn.PriorByPath(
        {"layers.0": bnn.IsotropicNormal(0.1), "*.bias": dist.Laplace(0.0, 1.0)}
    )
    first = by_path("layers.0.bias", model.bias)
    assert isinstance(first, dist.Normal)
    assert np.allclose(first.scale, 0.1)
    assert isinstance(by_path("layers.1.bias", model.bias), dist.Laplace)
    with pytest.raises(ValueError, match=r"no prior for the leaf layers.1.weight"):
        by_path("layers.1.weight", model.weight)


@pytest.mark.slow
@pytest.mark.parametrize(
    "prior",
    [dist.Normal(0.5, 2.0), dist.Normal(jnp.zeros(3), 2.0).to_event(1)],
    ids=["scalar", "event"],
)
def test_prior_samples_have_the_priors_moments(prior, getkey):
    model = {"w": jnp.zeros((500, 3)), "n": jnp.arange(3)}
    # numpyro adds a location of rank 1 to noise of rank 2.
    with jax.numpy_rank_promotion("allow"):
        drawn = bnn.sample_prior(model, prior, key=getkey())
    assert np.array_equal(drawn["n"], model["n"])
    assert drawn["w"].shape == (500, 3)
    mean = 0.5 if prior.event_dim == 0 else 0.0
    assert abs(drawn["w"].mean() - mean) < 5 * 2.0 / np.sqrt(1500)
    assert abs(drawn["w"].std() / 2.0 - 1) < 5 / np.sqrt(3000)


def joint_with(prior=None, likelihood=None, **kwargs):
    likelihood = likelihood or bnn.NormalLikelihood(0.3)
    return bnn.LogJoint(likelihood, prior or dist.Normal(0.0, 1.0), 12, **kwargs)


def test_outputs_and_targets_are_never_broadcast(data, getkey):
    x, y = data
    column = eqx.nn.Linear(3, 1, key=getkey())
    with pytest.raises(ValueError, match=r"shape \(1,\) and y has shape \(\)"):
        joint_with().log_likelihood(column, (x, y), key=getkey())
    scalar = eqx.nn.Linear(3, "scalar", key=getkey())
    with pytest.raises(ValueError, match=r"shape \(\) and y has shape \(1,\)"):
        joint_with().log_likelihood(scalar, (x, y[:, None]), key=getkey())


def test_wrong_kinds_of_targets_are_refused(data, model, getkey):
    x, _ = data
    whole = jnp.zeros(12, jnp.int32)
    with pytest.raises(TypeError, match=r"y is int32 and Normal is over real"):
        joint_with().log_likelihood(model, (x, whole), key=getkey())
    classes = eqx.nn.Linear(3, 4, key=getkey())
    joint = joint_with(likelihood=bnn.CategoricalLikelihood())
    with pytest.raises(TypeError, match="over integers"):
        joint.log_likelihood(classes, (x, jnp.zeros(12)), key=getkey())
    with pytest.raises(TypeError, match="a batch is a pair"):
        joint_with().log_likelihood(model, {"x": x, "y": x}, key=getkey())
    joint = joint_with(likelihood=lambda out: out)
    with pytest.raises(TypeError, match="where a numpyro distribution"):
        joint.log_likelihood(model, (x, jnp.zeros(12)), key=getkey())


def test_bad_settings_are_refused():
    make: Any = bnn.LogJoint
    with unhooked():
        with pytest.raises(TypeError, match="num_data"):
            make(bnn.NormalLikelihood(1.0), dist.Normal(0.0, 1.0))
        for bad in (0, -3, 2.5, None):
            with pytest.raises(ValueError, match="rows of the training set"):
                make(bnn.NormalLikelihood(1.0), dist.Normal(0.0, 1.0), bad)
        with pytest.raises(ValueError, match="temperature=0"):
            joint_with(temperature=0.0)
        with pytest.raises(TypeError, match="likelihood='normal'"):
            joint_with(likelihood="normal")
        with pytest.raises(ValueError, match="scale=-1"):
            bnn.NormalLikelihood(-1.0)


def test_a_prior_that_excludes_the_start_is_refused(model):
    params = eqx.filter(model, eqx.is_inexact_array)
    with pytest.raises(ValueError, match=r"the prior of weight, HalfNormal"):
        bnn.check_prior(dist.HalfNormal(1.0), params)
    random = bnn.bayesianize(model).tree
    with pytest.raises(ValueError, match=r"prior of weight.*reaches all real"):
        bnn.check_prior(dist.HalfNormal(1.0), random)
    bnn.check_prior(dist.Laplace(0.0, 1.0), random)

    def no_prior(path, leaf) -> Any:
        return 3

    with pytest.raises(TypeError, match="the prior of weight is 3"):
        bnn.check_prior(no_prior, params)
    with pytest.raises(ValueError, match=r"the prior of weight has shape \(5,\)"):
        bnn.check_prior(dist.Normal(jnp.zeros(5), 1.0), params)


def check(x, y, likelihood=None, model=None):
    likelihood = likelihood or bnn.NormalLikelihood(1.0)
    bnn.check_data(x, y, likelihood=likelihood, model=model)


def test_check_data(data, model, getkey):
    x, y = (np.asarray(a) for a in data)
    check(x, y)
    check(x, y, model=model)
    check(x, y, model=bnn.bayesianize(model).tree)
    bad = x.copy()
    bad[4, 1] = np.inf
    with pytest.raises(ValueError, match=r"x holds 1 non-finite .* row 4, column 1"):
        check(bad, y)
    with pytest.raises(ValueError, match="y holds 12 non-finite"):
        check(x, y * np.nan)
    with pytest.raises(ValueError, match="x has 12 rows and y has 11"):
        check(x, y[:-1])
    check(x[:1], y[:1], model=model)
    with pytest.raises(TypeError, match=r"y is int32 .* y.astype\(np.float32\)"):
        check(x, np.zeros(12, np.int32))
    with pytest.raises(ValueError, match="broadcasting"):
        check(x, y[:, None], model=model)
    classes = eqx.nn.Linear(3, 4, key=getkey())
    labels = np.arange(12, dtype=np.int32) % 4
    check(x, labels, bnn.CategoricalLikelihood(), classes)
    labels[7] = 4
    with pytest.raises(
        ValueError, match=r"y row 7 is 4, outside the classes 0, ..., 3"
    ):
        check(x, labels, bnn.CategoricalLikelihood(), classes)
    labels[7] = -1
    with pytest.raises(ValueError, match="y row 7 is -1"):
        check(x, labels, bnn.CategoricalLikelihood())
    with pytest.raises(ValueError, match="y row 7 is -1, outside the support of Poi"):
        check(x, labels, lambda out: dist.Poisson(jnp.exp(out)), model)


@pytest.mark.slow
def test_padding_may_hold_anything(data, model, getkey):
    x, y = data
    key = getkey()
    joint = joint_with()
    pad = jaxprob.Batch(
        (jnp.concatenate([x, x * jnp.nan]), jnp.concatenate([y, y * jnp.nan])),
        jnp.arange(24) < 12,
    )

    @jax.jit
    @jax.value_and_grad
    def value(model, batch):
        return joint.log_likelihood(model, batch, key=key)

    plain, padded = value(model, data), value(model, pad)
    assert np.allclose(plain[0], padded[0], rtol=1e-6)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(padded), strict=True):
        assert np.allclose(a, b, rtol=1e-5)
