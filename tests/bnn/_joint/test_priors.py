"""Priors of every kind: their densities, their draws, and what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from jaxprob import bnn

from ...unhooked import unhooked


@pytest.mark.slow
def test_the_scale_mixture_is_its_formula(x64, getkey):
    prior = bnn.ScaleMixtureNormal(0.3, 2.0, 0.1)
    leaf = jax.random.normal(getkey(), (3, 2))
    w = np.asarray(leaf)

    def normal(s):
        return np.exp(-0.5 * (w / s) ** 2) / (s * np.sqrt(2 * np.pi))

    expected = np.log(0.3 * normal(2.0) + 0.7 * normal(0.1)).sum()
    assert np.allclose(bnn.log_prior(prior, {"w": leaf}), expected)
    drawn = bnn.sample_prior({"w": jnp.zeros((100, 400))}, prior, key=getkey())["w"]
    variance = 0.3 * 2.0**2 + 0.7 * 0.1**2
    fourth = 3 * (0.3 * 2.0**4 + 0.7 * 0.1**4)
    error = np.sqrt((fourth - variance**2) / drawn.size)
    assert abs(np.mean(drawn**2) - variance) < 5 * error


@pytest.mark.slow
def test_a_mixture_prior_trains(getkey):
    model = eqx.nn.Linear(2, "scalar", key=getkey())
    x = jax.random.normal(getkey(), (8, 2))
    for prior in (
        bnn.ScaleMixtureNormal(),
        dist.MixtureSameFamily(
            dist.CategoricalProbs(jnp.array([0.5, 0.5])),
            dist.Normal(jnp.zeros(2), jnp.array([0.1, 1.0])),
        ),
    ):
        joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), prior, num_data=8)
        method = bnn.MeanFieldVI(joint, optax.adam(1e-2))
        state = method.init(model)
        _, info = eqx.filter_jit(method.update)(state, (x, x[:, 0]), key=getkey())
        assert np.isfinite(info["kl"])


@pytest.mark.slow
def test_patterns_keep_their_order_in_every_transformation():
    """JAX sorts the keys of dictionaries, and "*" is before all letters."""
    model = eqx.nn.MLP(2, "scalar", 3, 1, key=jax.random.key(0))
    prior = bnn.PriorByPath(
        {"layers.0": bnn.IsotropicNormal(0.1), "*": bnn.IsotropicNormal(1.0)}
    )
    params = eqx.filter(model, eqx.is_inexact_array)
    first, last = (eqx.filter(layer, eqx.is_array) for layer in model.layers)
    expected = bnn.log_prior(dist.Normal(0.0, 0.1), first)
    expected += bnn.log_prior(dist.Normal(0.0, 1.0), last)
    mapped = jax.tree.map(lambda a: a, prior)
    assert list(mapped.priors) == ["layers.0", "*"]
    for found in (
        bnn.log_prior(prior, params),
        bnn.log_prior(mapped, params),
        eqx.filter_jit(bnn.log_prior)(prior, params),
    ):
        assert np.allclose(found, expected, rtol=1e-5)
    x = jax.random.normal(jax.random.key(1), (8, 2))
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), prior, num_data=8)
    method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.0)))
    posterior = method.posterior(method.init(model), [(x, x[:, 0])])
    tuned = bnn.tune_prior(posterior)
    assert tuned.log_evidence() > posterior.log_evidence()


@pytest.mark.slow
def test_the_prior_predictive_of_a_linear_model(x64, getkey):
    """Mean 0, variance s^2 |x|^2 plus the noise's; frozen leaves stay."""
    model = eqx.nn.Linear(2, "scalar", key=getkey())
    prior = bnn.PriorModels(model, bnn.IsotropicNormal(1.5), where="weight")
    x = jnp.array([[1.0, 2.0], [0.5, -1.0]])
    num = 4000
    predictive = bnn.predict(
        prior, bnn.NormalLikelihood(0.4), x, key=getkey(), num_samples=num
    )
    spread = 1.5**2 * np.sum(np.asarray(x) ** 2, 1)
    assert model.bias is not None
    mean = np.asarray(predictive.mean) - model.bias
    assert np.all(np.abs(mean) < 5 * np.sqrt(spread / num))
    ratio = np.asarray(predictive.variance - 0.4**2) / spread
    assert np.all(np.abs(ratio - 1) < 5 * np.sqrt(2 / num))
    assert jnp.array_equal(prior.mean().weight, jnp.zeros((1, 2)))
    assert jnp.array_equal(prior.mean().bias, model.bias)
    drawn = prior.sample(key=getkey())
    expected = dist.Normal(0.0, 1.5).log_prob(drawn.weight).sum()
    assert np.allclose(prior.log_prob(drawn), expected)


def methods(joint):
    adam = optax.adam(1e-2)
    return {
        "MAP": bnn.MAP(joint, adam),
        "MeanFieldVI": bnn.MeanFieldVI(joint, adam),
        "FullRankVI": bnn.FullRankVI(joint, adam),
        "LowRankVI": bnn.LowRankVI(joint, adam),
        "IVON": bnn.IVON(joint, 0.1),
        "Laplace": bnn.Laplace(bnn.MAP(joint, adam)),
    }


METHODS = ("MAP", "MeanFieldVI", "FullRankVI", "LowRankVI", "IVON", "Laplace")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_refuses_what_it_cannot_be_right_about(getkey, name):
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=8)
    whole = {"count": jnp.arange(3)}
    method = methods(joint)[name]
    with pytest.raises(
        ValueError, match=r"no floating-point array|makes no leaf random"
    ):
        method.init(whole, key=getkey())
    model = {"w": jnp.ones(2), "table": jnp.arange(3)}
    where = "where" if name == "Laplace" else "random"
    of_integers = eqx.tree_at(
        lambda m: getattr(m, where), method, "table", is_leaf=lambda n: n is None
    )
    with pytest.raises(ValueError, match="table is int32"):
        of_integers.init(model, key=getkey())
    empty = eqx.tree_at(
        lambda m: getattr(m, where), method, False, is_leaf=lambda n: n is None
    )
    with pytest.raises(ValueError, match="makes no leaf random"):
        empty.init(model, key=getkey())
    outside = bnn.LogJoint(joint.likelihood, dist.Gamma(2.0, 1.0), num_data=8)
    with pytest.raises((ValueError, TypeError), match="prior of w"):
        methods(outside)[name].init({"w": -jnp.ones(2)}, key=getkey())


@pytest.mark.slow
def test_num_data_has_no_default():
    with unhooked():
        with pytest.raises(TypeError, match="num_data"):
            bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal())  # pyright: ignore
        with pytest.raises(ValueError, match=r"number of rows .* len\(x\)"):
            bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), None)  # pyright: ignore
    with pytest.raises(ValueError, match=r"mixing_weight=1\.5"):
        bnn.ScaleMixtureNormal(1.5)
