"""Missing entries of a target: as if they were not in the data set."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob.testing import LinearGaussian

NAN = np.nan


def two_columns(key):
    """Two regressions on the same inputs, with missing entries in both columns."""
    problem = LinearGaussian.random(key=key, num_data=10, dim=2, bias=False)
    y = np.stack([problem.y, -problem.y + problem.x[:, 0]], 1)
    y[[1, 4], 0] = NAN
    y[[4, 5, 6], 1] = NAN
    return problem.x, y


def parts(x, y):
    """Each column alone with the rows that it has, in closed form."""
    keep = ~np.isnan(y)
    columns = [(x[keep[:, i]], jnp.asarray(y[keep[:, i], i])) for i in (0, 1)]
    return [LinearGaussian(*column, bias=False) for column in columns]


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["full", "diagonal", "low_rank"])
def test_laplace_of_missing_entries_is_exact(structure, getkey, x64):
    x, y = two_columns(getkey())
    exact = parts(x, y)
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), dist.Normal(0.0, 1.0), num_data=10)
    model = eqx.nn.Linear(2, 2, use_bias=False, dtype=float, key=getkey())
    mode = jnp.stack([part.mean for part in exact])
    model = eqx.tree_at(lambda m: m.weight, model, mode)
    method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)), structure, rank=4)
    posterior = method.posterior(method.init(model), [(x, bnn.masked_targets(y))])
    precision = jax.scipy.linalg.block_diag(*(part.precision for part in exact))
    curvature: Any = posterior.curvature
    if structure == "diagonal":
        found = curvature.diagonal + posterior.tau()
        np.testing.assert_allclose(found, jnp.diag(precision), rtol=1e-8)
        return
    evidence = sum(part.log_evidence for part in exact)
    np.testing.assert_allclose(posterior.log_evidence(), evidence, rtol=1e-8)
    assert posterior.num_targets == 15
    if structure == "full":
        found = curvature.matrix + jnp.diag(posterior.tau())
        np.testing.assert_allclose(found, precision, rtol=1e-8)


def test_missing_entries_enter_neither_value_nor_gradient(getkey, x64):
    x, y = two_columns(getkey())
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), dist.Normal(0.0, 1.0), num_data=10)
    model = eqx.nn.Linear(2, 2, use_bias=False, dtype=float, key=getkey())
    key = getkey()

    def value(weight, target):
        moved = eqx.tree_at(lambda m: m.weight, model, weight)
        return joint(moved, (x, target), key=key)

    both = eqx.filter_jit(jax.value_and_grad(value))
    log_prob, slope = both(model.weight, bnn.masked_targets(y))
    exact = parts(x, y)
    expected = sum(
        jnp.sum(dist.Normal(part.x @ w, 0.5).log_prob(part.y))
        + jnp.sum(dist.Normal(0.0, 1.0).log_prob(w))
        for part, w in zip(exact, model.weight, strict=True)
    )
    np.testing.assert_allclose(log_prob, expected)
    for part, w, found in zip(exact, model.weight, slope, strict=True):
        np.testing.assert_allclose(found, part.precision @ (part.mean - w))
    # What lies below the mask is never read.
    values, observed = bnn.masked_targets(y)
    other = np.where(observed, values, 1e30), observed
    np.testing.assert_array_equal(both(model.weight, other)[1], slope)


def test_labels_can_be_missing(getkey):
    x = np.asarray(jax.random.normal(getkey(), (6, 2)))
    labels = np.array([0, 2, -1, 1, -1, 0], np.int32)
    joint = bnn.LogJoint(bnn.CategoricalLikelihood(), dist.Normal(0.0, 1.0), num_data=6)
    method = bnn.MAP(joint, optax.adam(0.1))
    model = eqx.nn.Linear(2, 3, key=getkey())
    key = getkey()
    fits = [
        jaxprob.fit(method, model, (x, target), key=key, num_steps=3, batch_size=6)[0]
        for target in (
            (labels, labels >= 0),
            bnn.masked_targets(np.ma.masked_less(labels, 0)),
        )
    ]
    assert eqx.tree_equal(*fits)
    predictive = bnn.predict(
        method.posterior(fits[0]), joint.likelihood, x, key=getkey()
    )
    assert predictive.probs.shape == (6, 3)
    assert predictive.entropy.shape == (6,)
    found = predictive.log_prob((labels, labels >= 0))
    expected = np.log(predictive.probs)[np.arange(6), labels]
    np.testing.assert_allclose(found, np.where(labels >= 0, expected, 0.0), rtol=1e-5)


def test_a_masked_label_outside_of_the_classes_is_named():
    net = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    x, labels = np.zeros((4, 2), np.float32), np.array([0, 5, 1, -1], np.int32)
    likelihood = bnn.CategoricalLikelihood()
    bnn.check_data(
        x, (labels, (labels >= 0) & (labels < 3)), likelihood=likelihood, model=net
    )
    with pytest.raises(ValueError, match="y row 1 is 5, outside the classes"):
        bnn.check_data(x, (labels, labels >= 0), likelihood=likelihood, model=net)


def test_wrong_masks_are_rejected():
    net = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    x, y = np.zeros((4, 2), np.float32), np.zeros((4, 2), np.float32)

    def check(*target, likelihood: Any = bnn.NormalLikelihood(0.5)):
        bnn.check_data(x, target, likelihood=likelihood, model=net)

    with pytest.raises(
        TypeError, match=r"is float32: in .values, observed. it is bool"
    ):
        check(y, y)
    with pytest.raises(ValueError, match=r"`observed` has shape \(\) where \(2,\)"):
        check(y, np.ones(4, bool))

    def correlated(output):
        return dist.MultivariateNormal(output, jnp.eye(2))

    with pytest.raises(ValueError, match=r"MultivariateNormal is over .* together"):
        check(y, np.ones((4, 2), bool), likelihood=correlated)
    check(y, np.ones(4, bool), likelihood=correlated)
    with pytest.raises(TypeError, match="y is int64, which has no NaN: give the pair"):
        bnn.masked_targets(np.arange(3))
    with pytest.raises(ValueError, match="y row 1 is infinite"):
        bnn.masked_targets(np.array([0.0, np.inf]))


def test_a_likelihood_that_masks_keeps_its_statistics(getkey):
    """A mask that is part of the output, as of padded sequences."""
    keep = jnp.array([True, False])
    logits = jax.random.normal(getkey(), (5, 3, 2, 4))  # rows, samples, labels, classes

    def masked(output):
        return dist.CategoricalLogits(output).mask(keep)

    found = bnn.Predictive(logits, masked)
    plain = bnn.Predictive(logits, bnn.CategoricalLikelihood())
    np.testing.assert_array_equal(found.probs, plain.probs)
    np.testing.assert_array_equal(found.entropy, plain.entropy)
    reals = bnn.Predictive(
        logits[..., 0], lambda f: dist.Normal(f, 1.0).mask(keep).to_event(1)
    )
    known = bnn.Predictive(logits[..., 0], bnn.NormalLikelihood(1.0))
    np.testing.assert_array_equal(reals.interval(0.9), known.interval(0.9))
    y = jnp.zeros((5, 2))
    np.testing.assert_array_equal(reals.cdf(y), known.cdf(y))
    first = bnn.Predictive(logits[..., :1, 0], bnn.NormalLikelihood(1.0))
    np.testing.assert_allclose(reals.log_prob(y), first.log_prob(y[:, :1]), rtol=1e-6)


def test_the_error_about_nan_says_how_targets_can_be_missing():
    x = np.zeros((3, 2), np.float32)
    y = np.array([0.0, NAN, 1.0], np.float32)
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), dist.Normal(0.0, 1.0), num_data=3)
    method = bnn.MAP(joint, optax.sgd(0.1))
    net = eqx.nn.Linear(2, "scalar", key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"row 1: nan.*bnn\.masked_targets\(y\)"):
        jaxprob.fit(method, net, (x, y), key=jax.random.key(0), num_steps=1)
    masked = np.ma.masked_invalid(y)
    with pytest.raises(ValueError, match=r"masked array.*bnn\.masked_targets\(y\)"):
        jaxprob.fit(method, net, (x, masked), key=jax.random.key(0), num_steps=1)


@pytest.mark.slow
def test_posteriors_of_several_targets_are_saved(tmp_path, getkey):
    likelihood = {"a": bnn.KnownNoiseLikelihood(), "b": bnn.VonMisesLikelihood(2.0)}

    class Both(eqx.Module):
        net: eqx.nn.Linear

        def __call__(self, x):
            out = self.net(x)
            return {"a": (out[0], jnp.asarray(0.3)), "b": out[1:]}

    x = np.asarray(jax.random.normal(getkey(), (6, 2)))
    y = {"a": x[:, 0], "b": bnn.masked_targets(np.clip(x[:, 1], -1.0, 1.0))}
    joint = bnn.LogJoint(likelihood, dist.Normal(0.0, 1.0), num_data=6)
    method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)))
    model = Both(eqx.nn.Linear(2, 3, key=getkey()))
    posterior = method.posterior(method.init(model), [(x, y)])
    bnn.save_posterior(tmp_path / "p.safetensors", posterior)
    loaded = bnn.load_posterior(tmp_path / "p.safetensors", model=model)
    assert isinstance(loaded, bnn.LaplacePosterior)
    key = getkey()
    found, expected = (
        bnn.predict(p, p.likelihood, x, key=key, num_samples=3).log_prob(y)
        for p in (loaded, posterior)
    )
    np.testing.assert_array_equal(found, expected)
