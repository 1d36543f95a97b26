"""Class probabilities of Gaussian logits without sampling."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxprob import bnn


def gaussian(num, scale, seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(num, num)) * np.sqrt(scale / num)
    return jnp.asarray(2 * rng.normal(size=num)), jnp.asarray(root @ root.T)


def total_variation(p, q):
    return 0.5 * float(np.sum(np.abs(np.asarray(p) - np.asarray(q))))


def test_two_classes_are_one_logit(x64):
    mean, covariance = gaussian(2, 5.0, seed=0)
    direction = jnp.array([-1.0, 1.0])
    binary = bnn.probit(
        (direction @ mean)[None],
        (direction @ covariance @ direction)[None, None],
        binary=True,
    )
    assert np.allclose(bnn.probit(mean, covariance)[1], binary[0], atol=1e-14)


@pytest.mark.parametrize("num", [2, 3, 10])
def test_uncertainty_common_to_all_logits_changes_nothing(x64, num):
    mean, covariance = gaussian(num, 3.0, seed=1)
    plain = bnn.probit(mean, covariance)
    assert np.allclose(bnn.probit(mean + 7.0, covariance + 100.0), plain, atol=1e-12)


@pytest.mark.parametrize(("num", "bound"), [(3, 0.06), (10, 0.12)])
def test_close_to_draws_where_logits_share_a_shift(x64, num, bound):
    """Means over 20 problems: .03 and .08 with standard errors of .005, and by raw
    variances .14 and .29 with .013.
    """
    found, raw = [], []
    for seed in range(20):
        mean, covariance = gaussian(num, 2.0, seed)
        covariance = covariance + 20.0
        draws = jax.random.multivariate_normal(
            jax.random.key(seed), mean, covariance, (10_000,), method="svd"
        )
        exact = jnp.mean(jax.nn.softmax(draws), 0)
        scaled = mean / jnp.sqrt(1 + jnp.pi / 8 * jnp.diag(covariance))
        found.append(total_variation(bnn.probit(mean, covariance), exact))
        raw.append(total_variation(jax.nn.softmax(scaled), exact))
    assert np.mean(found) < bound < np.mean(raw)


@pytest.mark.slow
@pytest.mark.parametrize("link", ["probit", "bridge"])
def test_several_labels_are_normalised_each_by_itself(getkey, link):
    class TwoLabels(eqx.Module):
        net: eqx.nn.Linear

        def __call__(self, x):
            return self.net(x).reshape(2, 3)

    x = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    y = np.stack([np.arange(12) % 3, np.arange(12) // 4], 1)
    joint = bnn.LogJoint(bnn.CategoricalLikelihood(), bnn.IsotropicNormal(1.0), 12)
    method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)), structure="full")
    state = method.init(TwoLabels(eqx.nn.Linear(2, 6, key=getkey())), key=getkey())
    posterior = method.posterior(state, [(x, y)])
    probs = posterior.class_probs(x, link=link)
    assert probs.shape == (12, 2, 3)
    assert np.allclose(jnp.sum(probs, -1), 1.0, atol=1e-6)
    predictive = bnn.predict(
        posterior, joint.likelihood, x, key=getkey(), num_samples=(num := 10_000)
    )
    # What the approximation is off by, and five standard errors of the draws.
    bound = (0.01 if link == "probit" else 0.1) + 5 * 0.5 / np.sqrt(num)
    assert np.all(np.abs(probs - predictive.probs) < bound)
