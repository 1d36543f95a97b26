"""A dict of likelihoods: one model for targets of several kinds."""

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

LIKELIHOOD = {
    "size": bnn.NormalLikelihood(0.3),
    "kind": bnn.CategoricalLikelihood(),
    "count": bnn.PoissonLikelihood(),
}


class Heads(eqx.Module):
    trunk: eqx.nn.Linear
    heads: dict[str, eqx.nn.Linear]

    def __init__(self, key):
        keys = jax.random.split(key, 4)
        self.trunk = eqx.nn.Linear(2, 4, key=keys[0])
        sizes = {"size": "scalar", "kind": 3, "count": 2}
        self.heads = {
            name: eqx.nn.Linear(4, size, key=k)
            for k, (name, size) in zip(keys[1:], sizes.items(), strict=True)
        }

    def __call__(self, x):
        hidden = jnp.tanh(self.trunk(x))
        return {name: head(hidden) for name, head in self.heads.items()}


def rows(num=12):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num, 2)).astype(np.float32)
    y = {
        "size": x[:, 0] + 0.3 * rng.normal(size=num).astype(np.float32),
        "kind": rng.integers(0, 3, num).astype(np.int32),
        "count": rng.poisson(2.0, (num, 2)).astype(np.int32),
    }
    return x, y


def test_the_likelihood_is_the_product_of_the_parts(getkey):
    x, y = rows()
    observed = np.arange(12) % 3 > 0
    y["kind"] = (y["kind"], observed)
    joint = bnn.LogJoint(LIKELIHOOD, bnn.FanInNormal(), num_data=12)
    model = Heads(getkey())
    found = eqx.filter_jit(joint.log_likelihood)(model, (x, y), key=getkey())
    out = jax.vmap(model)(x)
    expected = jnp.sum(dist.Normal(out["size"], 0.3).log_prob(y["size"]))
    kinds = dist.CategoricalLogits(out["kind"]).log_prob(y["kind"][0])
    expected += jnp.sum(jnp.where(observed, kinds, 0.0))
    expected += jnp.sum(dist.Poisson(jnp.exp(out["count"])).log_prob(y["count"]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_the_predictive_has_the_same_shape(getkey):
    x, y = rows()
    joint = bnn.LogJoint(LIKELIHOOD, bnn.FanInNormal(), num_data=12)
    method = bnn.Laplace(bnn.MAP(joint, optax.adam(1e-2)), "diagonal")
    state, _ = jaxprob.fit(method, Heads(getkey()), (x, y), key=getkey(), num_steps=4)
    posterior = method.posterior(state, [(x, y)])
    key = getkey()
    predictive: Any = bnn.predict(posterior, LIKELIHOOD, x, key=key, num_samples=6)
    out = predictive.outputs
    alone: Any = {
        name: bnn.Predictive(out[name], part) for name, part in LIKELIHOOD.items()
    }
    np.testing.assert_allclose(predictive["size"].mean, alone["size"].mean)
    np.testing.assert_allclose(
        predictive["size"].interval(0.9), alone["size"].interval(0.9), rtol=1e-5
    )
    np.testing.assert_allclose(predictive["kind"].entropy, alone["kind"].entropy)
    np.testing.assert_allclose(predictive["kind"].probs, alone["kind"].probs)
    np.testing.assert_allclose(predictive["count"].mean, alone["count"].mean)
    # The joint density of a mixture is not the product of its marginals.
    terms = [
        jax.vmap(
            jax.vmap(
                lambda f, y, p=LIKELIHOOD[name]: jnp.sum(p(f).log_prob(y)), (0, None)
            )
        )(out[name], y[name])
        for name in LIKELIHOOD
    ]
    expected = jax.nn.logsumexp(sum(terms), 1) - jnp.log(6.0)
    np.testing.assert_allclose(predictive.log_prob(y), expected, rtol=1e-5)
    draw = predictive.sample(key=getkey())
    assert {k: v.shape for k, v in draw.items()} == {k: v.shape for k, v in y.items()}
    with pytest.raises(
        TypeError, match=r"targets count, kind, size.*predictive\['count'\]"
    ):
        predictive.mean  # noqa: B018
    with pytest.raises(KeyError, match="'sise' is none of the targets"):
        predictive["sise"]
    with pytest.raises(TypeError, match="this likelihood has one target"):
        predictive["size"]["size"]


@pytest.mark.slow
def test_two_gaussian_targets_have_the_evidence_of_both(getkey, x64):
    """Two regressions of one linear model: the posterior of each is exact."""
    first = LinearGaussian.random(key=getkey(), num_data=9, dim=2, noise=0.5)
    second = LinearGaussian(first.x, jnp.sin(3.0 * first.y), 0.2)

    class Both(eqx.Module):
        heads: dict[str, eqx.nn.Linear]

        def __call__(self, x):
            return {name: head(x) for name, head in self.heads.items()}

    def head(problem):
        return eqx.tree_at(
            lambda m: (m.weight, m.bias),
            problem.model(key=jax.random.key(0)),
            (problem.mean[None, :2], problem.mean[2:]),
        )

    model = Both({"b": head(first), "a": head(second)})
    likelihood = {"b": bnn.NormalLikelihood(0.5), "a": bnn.NormalLikelihood(0.2)}
    joint = bnn.LogJoint(likelihood, dist.Normal(0.0, 1.0), num_data=9)
    method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)))
    data = first.x, {"b": first.y, "a": second.y}
    posterior = method.posterior(method.init(model), [data])
    exact = first.log_evidence + second.log_evidence
    np.testing.assert_allclose(posterior.log_evidence(), exact, rtol=1e-8)
    precision = jax.scipy.linalg.block_diag(second.precision, first.precision)
    assert isinstance(posterior.curvature, bnn.FullCurvature)
    found = posterior.curvature.matrix + jnp.diag(posterior.tau())
    np.testing.assert_allclose(found, precision, rtol=1e-8, atol=1e-9)


def test_wrong_targets_are_named():
    x, y = rows()
    joint = bnn.LogJoint(LIKELIHOOD, bnn.FanInNormal(), num_data=12)
    method = bnn.MAP(joint, optax.sgd(0.1))
    model = Heads(jax.random.key(0))
    with pytest.raises(
        TypeError, match=r"y is a ndarray, .* give a dict with the names"
    ):
        method.check(model, (x, y["size"]))
    with pytest.raises(ValueError, match="y has the names size, kind, and the"):
        method.check(model, (x, {k: y[k] for k in ("size", "kind")}))
    with pytest.raises(TypeError, match="y is float32 where class labels") as error:
        method.check(model, (x, y | {"kind": y["kind"].astype(np.float32)}))
    assert error.value.__notes__ == ["This is about the target 'kind'."]
    with pytest.raises(TypeError, match="of target 'a': likelihood=3"):
        bnn.LogJoint({"a": 3}, bnn.FanInNormal(), num_data=12)
    with pytest.raises(ValueError, match="parts is empty"):
        bnn.JointLikelihood({})
