"""Facts about distributions: each is checked against the density that numpyro has."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from jax.scipy.stats import norm
from numpyro.distributions import constraints

from jaxprob import bnn
from jaxprob.bnn._ensembles.perturbation import perturbed_log_likelihood
from jaxprob.bnn._joint.class_logits import logit_family
from jaxprob.bnn._joint.expected_information import information_root
from jaxprob.bnn._joint.families import density_family, family_of
from jaxprob.bnn._predictive.check_linearised import can_leave


class UnknownProbit(dist.Distribution):
    """A label whose probability of 1 is the standard normal distribution function."""

    arg_constraints: ClassVar = {"score": constraints.real}
    support = constraints.boolean  # pyright: ignore[reportAssignmentType]

    def __init__(self, score, *, validate_args=None):
        self.score = jnp.asarray(score)
        super().__init__(jnp.shape(score), (), validate_args=validate_args)

    def sample(self, key: Any, sample_shape=()):
        shape = sample_shape + self.batch_shape
        return jax.random.bernoulli(key, norm.cdf(self.score), shape).astype(int)

    def log_prob(self, value):
        return norm.logcdf(jnp.where(value > 0.5, self.score, -self.score))


class Probit(UnknownProbit):
    """The same, registered below."""


def probit_log_probs(p):
    return norm.logcdf(jnp.stack([-p.score, p.score], -1))


def probit_root(p, at, moves):
    log_density = norm.logpdf(at.score)
    log_variance = norm.logcdf(at.score) + norm.logcdf(-at.score)
    return (jnp.exp(log_density - 0.5 * log_variance) * p.score)[..., None]


bnn.register_family(
    Probit,
    bnn.Family(
        information_root=probit_root, class_log_probs=probit_log_probs, is_binary=True
    ),
)


class ProbitLikelihood(bnn.AbstractLikelihood):
    accepts_any_output: ClassVar[bool] = True

    def __call__(self, output):
        return Probit(output)

    def check_targets(self, y):
        if y.dtype.kind == "f":
            raise TypeError("labels are whole numbers")


class GammaLikelihood(bnn.AbstractLikelihood):
    """A likelihood that declares nothing."""

    def __call__(self, output):
        return dist.Gamma(jax.nn.softplus(output[0]), jax.nn.softplus(output[1]))


class MyNormal(dist.Distribution):
    """A Gaussian that is not numpyro's class."""

    arg_constraints: ClassVar = {"loc": constraints.real, "s": constraints.positive}
    support = constraints.real  # pyright: ignore[reportAssignmentType]

    def __init__(self, loc, s, *, validate_args=None):
        self.loc, self.s = loc, s
        super().__init__(jnp.shape(loc), (), validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        return dist.Normal(self.loc, self.s).sample(key, sample_shape)

    def log_prob(self, value):
        return dist.Normal(self.loc, self.s).log_prob(value)


bnn.register_family(MyNormal, bnn.Family(gaussian_mean=lambda p: p.loc))


LABELS = {
    "bernoulli logits": dist.BernoulliLogits(jnp.array([-0.7, 1.9])),
    "bernoulli probs": dist.BernoulliProbs(jnp.array([0.2, 0.9])),
    "categorical logits": dist.CategoricalLogits(jnp.array([[0.1, 2.0, -1.0]])),
    "categorical probs": dist.CategoricalProbs(jnp.array([[0.1, 0.7, 0.2]])),
    "ordered": dist.OrderedLogistic(jnp.array([0.4]), jnp.array([-1.0, 0.5])),
    "user's": Probit(jnp.array([-0.3, 1.1])),
}


@pytest.mark.parametrize("name", LABELS)
def test_class_probabilities_are_those_of_the_density_in_the_order_of_classes(name):
    p = LABELS[name]
    family = family_of(p.to_event(1))
    found = family.log_probs(p)
    for label in range(found.shape[-1]):
        y = jnp.full(p.batch_shape, label)
        with jax.numpy_dtype_promotion("standard"):  # numpyro mixes bools and floats
            expected = p.log_prob(y.astype(float) if family.is_binary else y)
        np.testing.assert_allclose(found[..., label], expected, rtol=1e-5)
    probs = np.exp(found[..., 1] if family.is_binary else found)
    np.testing.assert_allclose(family.probs(p), probs, rtol=1e-5)


def test_a_registered_root_is_the_expected_information():
    scores = jnp.array([-0.8, 0.3])

    expected = jnp.zeros((2, 2))
    for label in (0.0, 1.0):

        def log_prob(f, y=jnp.full(2, label)):
            return Probit(f).log_prob(y)

        slopes = jnp.diag(jax.jacfwd(log_prob)(scores))
        expected += jnp.diag(jnp.exp(log_prob(scores)) * slopes**2)
    root = information_root(ProbitLikelihood(), lambda f: f, scores)
    assert root is not None
    np.testing.assert_allclose(root.T @ root, expected, rtol=1e-4)
    assert information_root(lambda f: UnknownProbit(f), lambda f: f, scores) is None


def test_a_registered_class_has_all_statistics_of_labels():
    draws = jnp.array([[0.3], [-1.2], [0.9]])
    posterior = bnn.DrawsPosterior({"w": draws[None]}, {"w": None})
    key, x = jax.random.key(0), jnp.array([1.0, -2.0])

    def predict(likelihood):
        return bnn.predict(
            posterior, likelihood, x, key=key, apply=lambda m, x, key: m["w"][0] * x
        )

    predictive = predict(ProbitLikelihood())
    each = norm.cdf(draws * x[None])
    probs = each.mean(0)
    np.testing.assert_allclose(predictive.probs, probs, rtol=1e-5)
    both = jnp.log(jnp.stack([1 - probs, probs], -1))
    np.testing.assert_allclose(predictive.class_log_probs, both, rtol=1e-5)

    def entropy(p):
        return -p * jnp.log(p) - (1 - p) * jnp.log(1 - p)

    np.testing.assert_allclose(predictive.entropy, entropy(probs), rtol=1e-5)
    gain = entropy(probs) - entropy(each).mean(0)
    np.testing.assert_allclose(predictive.mutual_information, gain, atol=1e-6)
    np.testing.assert_allclose(
        predictive.log_prob(np.array([1, 0])), [both[0, 1], both[1, 0]], rtol=1e-5
    )
    with pytest.raises(ValueError, match="y row 1 is 2"):
        predictive.log_prob(np.array([1, 2]))
    with pytest.raises(ValueError, match=r"bnn\.register_family"):
        _ = predict(lambda f: UnknownProbit(f)).probs


def test_a_registered_gaussian_is_perturbed_as_numpyros():
    y, key = jnp.array([0.4, -1.0]), jax.random.key(3)

    def value(kind, loc, scale):
        p = kind(loc, jnp.full(2, scale))
        return perturbed_log_likelihood(p, y, key=key, temperature=0.7)

    at = jnp.array([0.1, 0.2]), 0.5
    for argnum in (1, 2):
        slope = jax.grad(value, argnum)
        np.testing.assert_allclose(
            slope(MyNormal, *at), slope(dist.Normal, *at), rtol=1e-5
        )


def test_another_density_is_another_family():
    class Weighted(dist.BernoulliLogits):
        def log_prob(self, value):
            return 3.0 * super().log_prob(value)

    class Renamed(dist.BernoulliLogits):
        pass

    p = Weighted(jnp.zeros(2))
    assert family_of(p).is_binary
    assert density_family(p).information_root is None
    assert density_family(Renamed(jnp.zeros(2))).information_root is not None


def test_registration_rejects_what_cannot_be_looked_up():
    with pytest.raises(ValueError, match="Normal is registered already"):
        bnn.register_family(dist.Normal, bnn.Family())
    with pytest.raises(TypeError, match="Distribution"):
        bnn.register_family(bnn.NormalLikelihood, bnn.Family())  # pyright: ignore[reportArgumentType]


def test_a_likelihood_declares_what_it_accepts_and_checks_its_targets():
    output = jax.ShapeDtypeStruct((2,), jnp.float32)
    softplus = jax.nn.softplus
    assert not can_leave(ProbitLikelihood(), output)
    assert can_leave(lambda f: dist.Gamma(softplus(f[0]), softplus(f[1])), output)
    assert can_leave(GammaLikelihood(), output)
    with pytest.raises(TypeError, match="labels are whole"):
        bnn.check_data(np.ones((3, 1)), np.ones(3), likelihood=ProbitLikelihood())


def test_outputs_are_logits_where_the_likelihood_leaves_them_alone():
    output = jax.ShapeDtypeStruct((3,), jnp.float32)
    logits: list[tuple[Any, bool]] = [
        (bnn.CategoricalLikelihood(), False),
        (lambda f: dist.Categorical(logits=f), False),
        (bnn.BernoulliLikelihood(), True),
        (lambda f: dist.Bernoulli(logits=f).to_event(1), True),
    ]
    for likelihood, binary in logits:
        family = logit_family(likelihood, output)
        assert family is not None
        assert family.is_binary == binary
    others: list[Any] = [
        lambda f: dist.Categorical(logits=2.0 * f),
        lambda f: dist.Categorical(logits=f + 1.0),
        lambda f: dist.Categorical(logits=f**2),
        lambda f: dist.Categorical(probs=f),
        bnn.PoissonLikelihood(),
        ProbitLikelihood(),
    ]
    for likelihood in others:
        assert logit_family(likelihood, output) is None


@pytest.mark.slow
def test_laplace_takes_a_registered_likelihood(x64):
    """Its curvature is the sum of x x' times the registered information."""
    x = jnp.array([[1.0, 0.5], [-0.3, 2.0], [0.7, -1.0]])
    y = jnp.array([1, 0, 1])
    joint = bnn.LogJoint(
        ProbitLikelihood(),
        bnn.IsotropicNormal(1.0),
        num_data=3,
        apply=lambda m, x, key: m["w"] @ x,
    )
    method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)), structure="full")
    model = {"w": jnp.array([0.3, -0.2])}
    state = method.init(model, key=jax.random.key(0))
    posterior = method.posterior(state, [(x, y)])
    scores = x @ model["w"]
    information = jnp.exp(
        2 * norm.logpdf(scores) - norm.logcdf(scores) - norm.logcdf(-scores)
    )
    expected = jnp.einsum("n,ni,nj->ij", information, x, x)
    assert isinstance(posterior.curvature, bnn.FullCurvature)
    np.testing.assert_allclose(posterior.curvature.matrix, expected, rtol=1e-8)
