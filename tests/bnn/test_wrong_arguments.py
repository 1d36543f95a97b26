"""What a first try gets wrong: the error names the argument and what to write."""

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

from ..unhooked import unhooked

LIKELIHOOD = bnn.NormalLikelihood(0.3)
JOINT = bnn.LogJoint(LIKELIHOOD, bnn.FanInNormal(), num_data=8)
MAP = bnn.MAP(JOINT, optax.sgd(0.1))
X = np.asarray(jax.random.normal(jax.random.key(1), (8, 3)))
Y = np.sin(X[:, :1])
KEY = jax.random.key(2)


def mlp():
    return eqx.nn.MLP(3, 1, 4, 1, key=jax.random.key(0))


def predict(likelihood: Any = LIKELIHOOD, x: Any = X, **kwargs) -> Any:
    return bnn.predict(bnn.PointPosterior(mlp()), likelihood, x, key=KEY, **kwargs)


def no_method(model, batch, *, key) -> Any:
    return 0.0


def checked(x):
    MAP.check(mlp(), (x, Y))


# As it is called without a type checker.
untyped: Any = bnn

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
        r"one number inside \(0, 1\)",
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
        lambda: untyped.Laplace(JOINT),
        r"Laplace takes a method of class MAP, such as MAP\(",
    ),
    "a method without a mode": (
        lambda: untyped.Laplace(bnn.MeanFieldVI(JOINT, optax.sgd(0.1))),
        r"Laplace takes a method of class MAP, such as MAP\(",
    ),
    "a class as method": (
        lambda: untyped.DeepEnsemble(bnn.MAP, 5),
        r"method is the class MAP: .* such as MAP\(log_j",
    ),
    "a loss as method": (
        lambda: untyped.DeepEnsemble(
            jaxprob.GradientDescent(no_method, optax.sgd(0.1)), 2
        ),
        r"method is a GradientDescent: .* by LogJoint\(.*DenoisingRows",
    ),
    "members first": (lambda: untyped.DeepEnsemble(5, MAP), "num_members=MAP"),
    "an optimiser of a sampler": (
        lambda: untyped.SGLD(JOINT, optax.sgd(0.1), num_warmup=0, thin=1, num_draws=2),
        "learning_rate=.*a positive number, or a schedule",
    ),
    "blocks without methods": (
        lambda: untyped.Blocks(MAP, ["layers.0"]),
        "blocks is a list: give a dict from leaves to methods",
    ),
    "a point estimate as chains": (
        lambda: untyped.run_chains(MAP, mlp(), (X, Y), key=KEY),
        "method is a MAP: run_chains.* jaxprob.fit trains other methods",
    ),
    "strings": (lambda: checked(X.astype(str)), "x is <U.*array of numbers is needed"),
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


class Trials(eqx.Module):
    linear: eqx.nn.Linear

    def __call__(self, x):
        return self.linear(x["x"]), x["n"]


def binomial(output):
    logits, n = output
    return dist.Binomial(total_count=n, logits=logits)


def trials():
    rng = np.random.default_rng(0)
    n = np.array([2, 5] * 20, np.int32)
    x = {"x": rng.normal(size=(40, 2)).astype(np.float32), "n": n}
    return x, np.minimum(rng.binomial(5, 0.6, 40), n).astype(np.int32)


def test_each_row_has_a_support_of_its_own():
    model = Trials(eqx.nn.Linear(2, "scalar", key=jax.random.key(0)))
    x, y = trials()
    y[1] = 5
    bnn.check_data(x, y, likelihood=binomial, model=model)
    y[4] = 3
    with pytest.raises(ValueError, match=r"y row 4 is 3, outside .*\(0, 2\)|upper.*2"):
        bnn.check_data(x, y, likelihood=binomial, model=model)


@pytest.fixture
def standard_promotion():
    """numpyro's binomial multiplies whole numbers by real ones."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_whole_numbers_of_an_output_stay_where_it_is_linearised(standard_promotion):
    model = Trials(eqx.nn.Linear(2, "scalar", key=jax.random.key(0)))
    x, y = trials()
    joint = bnn.LogJoint(binomial, dist.Normal(0.0, 1.0), num_data=40)
    method = bnn.Laplace(bnn.MAP(joint, optax.adam(0.05)))
    posterior = method.posterior(method.init(model), [(x, y)])
    predictive = bnn.predict(posterior, binomial, x, key=jax.random.key(1))
    assert (predictive.outputs[1] == x["n"][:, None]).all()
    assert ((predictive.mean > 0) & (predictive.mean < x["n"])).all()


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([0, 1, 3]), "row 2 is 3, outside the classes"),
        (np.array([0, -1, 2]), "row 1 is -1, outside the classes"),
        (np.array([0.0, 0.7, 2.0], "f"), "row 1 is 0.69"),
        (np.array([[0], [1], [2]]), r"y has shape \(3, 1\)"),
    ],
)
def test_a_label_that_is_none_has_no_probability(y, message):
    model = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    x = np.eye(3, 2, dtype=np.float32)
    predictive = bnn.predict(
        bnn.PointPosterior(model), bnn.CategoricalLikelihood(), x, key=jax.random.key(1)
    )
    calibrated = bnn.calibrate(predictive, predictive, np.array([0, 1, 2]))
    for each in (predictive, calibrated):
        with pytest.raises(ValueError, match=message):
            each.log_prob(y)


def test_masked_rows_are_refused():
    y = np.ma.masked_array(np.zeros(4, np.float32), mask=[True, False, False, False])
    x = np.ones((4, 2), np.float32)
    for call in (
        lambda: jaxprob.ArrayLoader((x, y), batch_size=2),
        lambda: bnn.check_data(x, y, likelihood=bnn.NormalLikelihood(0.3)),
    ):
        with pytest.raises(ValueError, match="1 of whose entries are masked"):
            call()
    jaxprob.ArrayLoader((x, np.ma.masked_array(y.data)), batch_size=2)


def test_a_distribution_without_moments_has_quantiles():
    def likelihood(f):
        return dist.TransformedDistribution(
            dist.Normal(f, 0.3), dist.transforms.ExpTransform()
        )

    x = np.linspace(-1.0, 1.0, 5, dtype=np.float32)[:, None]
    posterior = bnn.PointPosterior(eqx.nn.Linear(1, "scalar", key=jax.random.key(0)))
    predictive = bnn.predict(posterior, likelihood, x, key=jax.random.key(1))
    same = bnn.predict(
        posterior, lambda f: dist.LogNormal(f, 0.3), x, key=jax.random.key(1)
    )
    np.testing.assert_allclose(predictive.quantile(0.8), same.quantile(0.8), rtol=1e-4)
    with pytest.raises(NotImplementedError, match="has no mean or variance: use"):
        _ = predictive.mean


@pytest.mark.parametrize(
    ("y", "remedy"),
    [
        (np.eye(3, dtype=np.float32), "argmax"),
        (np.array(["a", "b", "c"]), "np.unique"),
        (np.zeros(3, np.float32), "astype"),
    ],
)
def test_the_remedy_for_labels_is_one(y, remedy):
    with pytest.raises(TypeError, match=remedy):
        bnn.check_data(np.ones((3, 2)), y, likelihood=bnn.CategoricalLikelihood())


def test_a_seed_is_no_key():
    method = bnn.NUTS(JOINT, num_warmup=1, num_draws=1)
    seed: Any = 3
    for call in (
        lambda: jaxprob.fit(MAP, mlp(), (X, Y), key=seed, num_steps=1),
        lambda: bnn.run_chains(method, mlp(), (X, Y), key=seed),
        lambda: bnn.predict(bnn.PointPosterior(mlp()), LIKELIHOOD, X, key=seed),
    ):
        with unhooked(), pytest.raises(TypeError, match=r"jax\.random\.key\(3\)"):
            call()
    old = jax.random.PRNGKey(0)
    with unhooked():
        bnn.predict(bnn.PointPosterior(mlp()), LIKELIHOOD, X, key=old)


@pytest.mark.parametrize(
    "make",
    [
        lambda joint: bnn.MAP(joint, optax.sgd(0.1)),
        bnn.NUTS,
        lambda j: bnn.IVON(j, 0.1),
    ],
)
def test_a_likelihood_is_no_log_joint(make):
    with unhooked(), pytest.raises(TypeError, match=r"LogJoint\(likelihood, prior"):
        make(LIKELIHOOD)


def test_a_model_with_state_is_told_to_carry_it():
    model, _ = eqx.nn.make_with_state(
        lambda: eqx.nn.BatchNorm(3, "batch", mode="ema")
    )()
    with pytest.raises(TypeError) as caught:
        MAP.check(model, (X, X))
    assert any("bnn.Stateful(" in note for note in caught.value.__notes__)
