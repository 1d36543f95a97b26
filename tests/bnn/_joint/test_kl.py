"""The divergence: closed form against Monte Carlo and by hand, sums over leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jaxprob import bnn


@pytest.fixture
def leaf(getkey):
    mean = jax.random.normal(getkey(), (3, 2))
    return bnn.Gaussian.of(mean, jnp.exp(0.3 * jax.random.normal(getkey(), (3, 2))))


PRIORS = {
    "normal": dist.Normal(0.0, 1.0),
    "wide": dist.Normal(0.5, 2.0),
    "per entry": dist.Normal(jnp.zeros((3, 2)), jnp.full((3, 2), 0.7)),
    "event": dist.Normal(jnp.zeros((3, 2)), 0.7).to_event(2),
}


def monte_carlo(leaf, prior, key, num=20_000):
    def one(key):
        w = leaf.sample(key=key)
        return leaf.log_prob(w) - jnp.sum(prior.log_prob(w))

    values = jax.vmap(one)(jax.random.split(key, num))
    return values.mean(), values.std() / np.sqrt(num)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRIORS)
def test_closed_form_is_the_mean_over_draws(leaf, getkey, name):
    mean, error = monte_carlo(leaf, PRIORS[name], getkey())
    assert abs(leaf.kl(PRIORS[name]) - mean) < 5 * error


def test_closed_form_by_hand(leaf):
    mean, var = leaf.mean, leaf.scale**2
    by_hand = 0.5 * jnp.sum(var / 4 + (mean - 1) ** 2 / 4 - 1 - jnp.log(var / 4))
    assert jnp.allclose(leaf.kl(dist.Normal(1.0, 2.0)), by_hand, rtol=1e-5)


@pytest.mark.slow
def test_kl_sums_over_leaves_and_asks_the_prior_for_each_path(leaf):
    tree = {"a": leaf, "b": [leaf, jnp.ones(2)], "c": "no array"}
    seen = []

    def prior(path, node):
        seen.append((path, node.shape))
        return dist.Normal(0.0, 1.0 if path == "a" else 3.0)

    total = bnn.kl(tree, prior)
    expected = leaf.kl(dist.Normal(0.0, 1.0)) + leaf.kl(dist.Normal(0.0, 3.0))
    assert jnp.allclose(total, expected)
    assert seen == [("a", (3, 2)), ("b.0", (3, 2))]


def test_kl_without_random_leaves_is_zero():
    assert bnn.kl({"a": jnp.ones(3)}, dist.Normal(0.0, 1.0)) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("prior", [dist.Laplace(0.0, 1.0), dist.StudentT(4.0)])
def test_other_priors_are_estimated_without_bias(leaf, getkey, prior):
    exact, error = monte_carlo(leaf, prior, getkey(), 100_000)
    estimates = jax.vmap(lambda k: bnn.kl({"w": leaf}, prior, key=k, num_samples=4))(
        jax.random.split(getkey(), 4_000)
    )
    own = estimates.std() / np.sqrt(4_000)
    assert abs(estimates.mean() - exact) < 5 * np.hypot(error, own)
    with pytest.raises(ValueError, match=r"prior of w, .* give a key"):
        bnn.kl({"w": leaf}, prior)


@pytest.mark.slow
@pytest.mark.parametrize("prior", [dist.Normal(0.3, 0.8), dist.Laplace(0.0, 1.0)])
def test_the_temperature_stands_before_the_prior_only(leaf, getkey, prior):
    cold = bnn.kl(
        {"w": leaf}, prior, temperature=0.25, key=getkey(), num_samples=50_000
    )
    mean, error = monte_carlo(leaf, prior, getkey(), 50_000)
    # E[log q - log p / T] = KL / T + (1 / T - 1) H
    expected = 4 * mean + 3 * leaf.entropy()
    assert abs(cold - expected) < 4 * 5 * np.hypot(error, error)
