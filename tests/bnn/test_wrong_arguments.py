"""What a first try gets wrong: the error names the argument and what to write."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from jaxprob import bnn

from ..unhooked import unhooked

LIKELIHOOD = bnn.NormalLikelihood(0.3)
JOINT = bnn.LogJoint(LIKELIHOOD, bnn.FanInNormal(), num_data=8)
MAP = bnn.MAP(JOINT, optax.sgd(0.1))
X = np.asarray(jax.random.normal(jax.random.key(1), (8, 3)))
Y = np.sin(X[:, :1])
KEY = jax.random.key(2)


def mlp():
    return eqx.nn.MLP(3, 1, 4, 1, key=jax.random.key(0))


def predict(likelihood=LIKELIHOOD, x=X, **kwargs):
    return bnn.predict(bnn.PointPosterior(mlp()), likelihood, x, key=KEY, **kwargs)


def checked(x):
    MAP.check(mlp(), (x, Y))


WRONG = {
    "a distribution as likelihood": (
        lambda: bnn.LogJoint(dist.Normal(0.0, 1.0), bnn.FanInNormal(), 8),
        r"likelihood=.*NormalLikelihood\(0\.3\)",
    ),
    "the log joint in predict": (lambda: predict(JOINT), r"give log_joint\.likelihood"),
    "a class in predict": (
        lambda: predict(bnn.NormalLikelihood),
        r"likelihood=.*NormalLikelihood\(0\.3\)",
    ),
    "half a sample": (lambda: predict(num_samples=1.5), "num_samples=1.5: a whole"),
    "several levels": (
        lambda: predict().quantile(np.array([0.1, 0.9])),
        "one number: a quantile",
    ),
    "several intervals": (
        lambda: predict().interval(np.array([0.5, 0.9])),
        "one probability",
    ),
    "rows that are missing": (
        lambda: predict().log_prob(np.full_like(Y, np.nan)),
        "y holds 8 non-finite value",
    ),
    "a joint instead of a method": (
        lambda: bnn.Laplace(JOINT),
        r"Laplace goes round another method, such as MAP\(",
    ),
    "a method without a mode": (
        lambda: bnn.Laplace(bnn.MeanFieldVI(JOINT, optax.sgd(0.1))),
        r"Laplace goes round another method, such as MAP\(",
    ),
    "a class as method": (lambda: bnn.DeepEnsemble(bnn.MAP, 5), r"method=.*MAP\(log_j"),
    "members first": (lambda: bnn.DeepEnsemble(5, MAP), "num_members=MAP"),
    "an optimiser of a sampler": (
        lambda: bnn.SGLD(JOINT, optax.sgd(0.1), 0, 1, 2),
        "learning_rate=.*a positive number, or a schedule",
    ),
    "blocks without methods": (
        lambda: bnn.Blocks(MAP, ["layers.0"]),
        "blocks is a list: give a dict from leaves to methods",
    ),
    "a point estimate as chains": (
        lambda: bnn.run_chains(MAP, mlp(), (X, Y), key=KEY),
        "method is a MAP: run_chains.* are trained by jaxprob.fit",
    ),
    "strings": (lambda: checked(X.astype(str)), "x is <U.*no array of numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_and_what_to_write(name):
    make, message = WRONG[name]
    with unhooked(), pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize("x", [X[:, 0], X[:, :2]])
def test_a_model_that_fails_is_told_what_it_was_called_with(x):
    with pytest.raises(Exception) as caught:
        checked(x)
    assert str(x.shape[1:]) in caught.value.__notes__[-1]


def test_a_mixture_takes_all_of_what_can_be_gone_through_once():
    mixture = bnn.Mixture(bnn.PointPosterior(mlp()) for _ in range(2))
    assert len(mixture.components) == 2
    with pytest.raises(ValueError, match="at least one component"):
        bnn.Mixture(iter(()))


class Slope(eqx.Module):
    w: jax.Array

    def __call__(self, x):
        return jnp.abs(self.w) * x[:1]


def over(prior):
    return bnn.LogJoint(LIKELIHOOD, prior, num_data=8)


@pytest.mark.parametrize("prior", [dist.HalfNormal(1.0), dist.Beta(2.0, 2.0)])
def test_what_reaches_all_numbers_needs_a_prior_without_an_edge(prior):
    model, joint = Slope(jnp.asarray(0.5)), over(prior)
    point = bnn.MAP(joint, optax.sgd(1e-3))
    for method in (
        bnn.SGLD(joint, 1e-3, 0, 1, 2),
        bnn.SGHMC(joint, 1e-3, 0, 1, 2),
        bnn.Laplace(point),
        bnn.SWAG(point, 0, 1),
    ):
        with pytest.raises(ValueError, match=r"prior of w, .* let the leaf be its log"):
            method.init(model, key=KEY)
    with pytest.raises(ValueError, match=r"prior of w, .* Laplace's Gaussian reaches"):
        bnn.Laplace(point).posterior(point.init(model), [(X, Y)])
    for method in (point, bnn.NUTS(joint, 2, 2, 1, initial="model")):
        method.init(model, key=KEY)


def test_a_complex_leaf_has_no_prior():
    model = Slope(jnp.asarray(0.5 + 0.5j))
    with pytest.raises(TypeError, match="w is complex64, and a prior is over real"):
        bnn.MAP(over(bnn.IsotropicNormal(1.0)), optax.sgd(0.1)).init(model)


class Table:
    """Something that can be made an array, as tables of pandas and tensors of torch."""

    shape = X.shape

    def __array__(self, dtype=None, copy=None):
        return X

    def __len__(self):
        return len(X)


def test_what_can_be_made_an_array_is_predicted():
    with unhooked():
        np.testing.assert_array_equal(predict(x=Table()).mean, predict().mean)


@jax.custom_vjp
def tanh(x):
    return jnp.tanh(x)


tanh.defvjp(lambda x: (tanh(x), x), lambda x, g: (g / jnp.cosh(x) ** 2,))


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["full", "kronecker", "low_rank", "diagonal"])
def test_a_model_with_a_rule_for_backwards_alone_is_linearised(structure, x64):
    data = (jnp.asarray(X, float), jnp.asarray(Y, float))
    likelihood = bnn.NormalLikelihood(0.3)
    joint = bnn.LogJoint(likelihood, bnn.IsotropicNormal(1.0), num_data=8)

    def predicted(activation):
        model = eqx.nn.MLP(3, 1, 4, 1, activation, key=KEY)
        method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)), structure)
        posterior = method.posterior(method.init(model), [data])
        found = bnn.predict(posterior, likelihood, data[0], key=KEY)
        return found.mean, found.variance

    for found, expected in zip(predicted(tanh), predicted(jnp.tanh), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10)
