"""Mixtures whose components differ in weight."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from jaxprob import bnn
from jaxprob.testing import LinearGaussian

WEIGHTS = np.array([0.2, 0.7, 0.1])
MEANS, SCALES = np.array([-1.0, 0.5, 3.0]), np.array([0.1, 0.3, 0.2])


def gaussians(**kwargs):
    parts = [
        bnn.bayesianize({"w": jnp.full((1,), mean)}, scale=lambda *_, s=scale: s)
        for mean, scale in zip(MEANS, SCALES, strict=True)
    ]
    return bnn.Mixture(parts, **kwargs)


def test_the_density_and_the_mean_are_weighted(x64):
    mixture = gaussians(weights=WEIGHTS)
    at = 0.37
    expected = np.log(WEIGHTS @ scipy.stats.norm.pdf(at, MEANS, SCALES))
    assert np.isclose(mixture.log_prob({"w": jnp.array([at])}), expected, rtol=1e-10)
    assert np.isclose(mixture.mean()["w"][0], WEIGHTS @ MEANS, rtol=1e-12)


def test_equal_weights_are_those_of_none(x64):
    equal, none = gaussians(weights=np.full(3, 1 / 3)), gaussians()
    model = {"w": jnp.array([0.2])}
    assert np.isclose(equal.log_prob(model), none.log_prob(model), rtol=1e-12)
    assert np.isclose(equal.mean()["w"][0], none.mean()["w"][0], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("linearized", [False, True])
def test_draws_come_from_each_component_as_often_as_it_weighs(linearized, getkey):
    mixture = gaussians(weights=WEIGHTS)
    num = 4000

    def draw(key):
        return (
            mixture.linearisation_point(key=key)[0]
            if linearized
            else mixture.sample(key=key)
        )["w"]

    draws = np.asarray(jax.vmap(draw)(jax.random.split(getkey(), num)))
    nearest = np.argmin(np.abs(draws - MEANS) / SCALES, 1)
    shares = np.bincount(nearest, minlength=3) / num
    error = np.sqrt(WEIGHTS * (1 - WEIGHTS) / num)
    assert np.all(np.abs(shares - WEIGHTS) < 5 * error)


def test_points_are_drawn_and_not_counted_once_each(getkey):
    points = [bnn.PointPosterior({"w": jnp.full((), value)}) for value in (0.0, 1.0)]
    weighted = bnn.Mixture(points, weights=[0.25, 0.75])
    assert weighted.num_atoms is None
    assert bnn.Mixture(points).num_atoms == 2
    with pytest.raises(NotImplementedError, match="no finite support"):
        weighted.atom(0)
    predictive = bnn.predict(
        weighted,
        bnn.NormalLikelihood(0.1),
        jnp.zeros(1),
        key=getkey(),
        num_samples=4000,
        apply=lambda model, x, *, key: model["w"] + x,
    )
    error = np.sqrt(0.25 * 0.75 / 4000)
    assert abs(float(predictive.mean[0]) - 0.75) < 5 * error


@pytest.mark.slow
def test_evidence_weighs_models_by_their_posterior_probability(x64, getkey):
    """Two priors of linear regression: the weights are p(prior | data)."""
    first = LinearGaussian.random(key=getkey(), num_data=12, dim=2, bias=False)
    problems = [
        LinearGaussian(first.x, first.y, first.noise, scale, bias=False)
        for scale in (0.3, 1.0)
    ]
    modes = []
    for problem in problems:
        model = problem.model(key=getkey())
        model = eqx.tree_at(lambda m: m.weight, model, problem.mean[None])
        method = bnn.Laplace(bnn.MAP(problem.log_joint(), optax.sgd(0.1)))
        modes.append(method.posterior(method.init(model), [(first.x, first.y)]))
    logs = np.array([float(problem.log_evidence) for problem in problems])
    evidence = jnp.stack([mode.log_evidence() for mode in modes])
    mixture = bnn.Mixture(modes, weights=jax.nn.softmax(evidence))
    assert mixture.weights is not None
    assert np.allclose(mixture.weights, np.exp(logs - np.logaddexp(*logs)), rtol=1e-9)


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ([0.5, 0.5], "give one positive number for each of the 3"),
        (np.array([1, 1, 1]), "int"),
        ([0.5, 0.5, 0.0], r"weights\[2\] = 0.0"),
        ([0.5, np.nan, 0.5], r"weights\[1\] = nan"),
        ([0.5, 0.5, 0.5], "sum to 1.5 and not to one"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights, match):
    with pytest.raises(ValueError, match=match):
        gaussians(weights=weights)
