"""A link inside the model predicts as the same link inside the likelihood does."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from jaxprob import bnn
from jaxprob.bnn._joint.output_link import output_link


class Linked(eqx.Module):
    """A network that ends in a function."""

    net: eqx.nn.MLP
    link: Callable = eqx.field(static=True)

    def __call__(self, x):
        return self.link(self.net(x))


def pair(z):
    return z[0], jnp.exp(z[1])


def stacked(p):
    return jnp.stack([1.0 - p[0], p[0]])


def events(distribution):
    return distribution.to_event(1)


# Name: outputs, link, likelihood of the linked outputs.
CASES = {
    "softmax": (3, jax.nn.softmax, lambda p: dist.Categorical(probs=p)),
    "clipped": (
        3,
        jax.nn.softmax,
        lambda p: dist.Categorical(probs=jnp.clip(p, 1e-7, 1.0)),
    ),
    "sigmoid": (1, jax.nn.sigmoid, lambda p: dist.Bernoulli(probs=p[0])),
    "two classes": (
        1,
        jax.nn.sigmoid,
        lambda p: dist.Categorical(probs=stacked(p)),
    ),
    "rate": (1, jnp.exp, lambda r: dist.Poisson(r[0])),
    "scale beside a mean": (2, pair, lambda o: dist.Normal(*o)),
    "an event": (1, jnp.exp, lambda r: events(dist.Exponential(r))),
    "mixture": (
        3,
        jax.nn.softmax,
        lambda p: dist.MixtureSameFamily(
            dist.Categorical(probs=p), dist.Normal(jnp.arange(3.0), 0.3)
        ),
    ),
}


def posterior_of(joint, model, x, y, **kwargs):
    method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)), **kwargs)
    return method.posterior(method.init(model), [(x, y)])


@pytest.mark.parametrize("name", CASES)
def test_a_straight_line_is_one_before_the_link(name, x64):
    """Linearised outside of the model, the link moves as what it is applied to."""
    outputs, link, likelihood = CASES[name]
    z, move = jnp.linspace(-0.5, 1.0, outputs), jnp.linspace(3.0, -9.0, outputs)
    found = output_link(likelihood, jax.eval_shape(link, z))
    assert found is not None
    out, tangent = jax.jvp(lambda z: found.inverse(link(z)), (z,), (move,))
    moved = found.forward(jax.tree.map(jnp.add, out, tangent))
    pairs = zip(jax.tree.leaves(moved), jax.tree.leaves(link(z + move)), strict=True)
    assert all(np.allclose(a, b, rtol=1e-6, atol=1e-12) for a, b in pairs)


@pytest.mark.slow
def test_the_place_of_the_softmax_changes_nothing(x64):
    """Predictions, drawn functions and the evidence."""
    key = jax.random.key(0)
    net = eqx.nn.MLP(2, 3, 4, 1, jnp.tanh, key=key)
    x = jax.random.normal(key, (12, 2))

    def likelihood(p) -> Any:
        return dist.Categorical(probs=p)

    found = []
    places: tuple[tuple[Callable, Any], ...] = (
        (jax.nn.softmax, likelihood),
        (lambda z: z, bnn.CategoricalLikelihood()),
    )
    for link, family in places:
        joint = bnn.LogJoint(family, bnn.IsotropicNormal(1.0), num_data=12)
        posterior = posterior_of(joint, Linked(net, link), x, jnp.arange(12) % 3)
        predictive = bnn.predict(posterior, family, 5 * x, key=key, num_samples=20)
        drawn = jax.vmap(posterior.sample_function(key=key))(5.0 * x)
        found.append((predictive.outputs, drawn, posterior.log_evidence()))
    (inside, drawn_inside, first), (outside, drawn_outside, second) = found
    assert np.allclose(inside, jax.nn.softmax(outside), rtol=1e-6, atol=1e-9)
    assert np.allclose(drawn_inside, jax.nn.softmax(drawn_outside), rtol=1e-6)
    assert np.allclose(first, second, rtol=1e-8)
    # Inside jit predictions are another program, a loop.
    model = Linked(net, jax.nn.softmax)
    joint = bnn.LogJoint(likelihood, bnn.IsotropicNormal(1.0), num_data=12)
    posterior = posterior_of(joint, model, x, jnp.arange(12) % 3)
    compiled = eqx.filter_jit(
        lambda x: bnn.predict(posterior, likelihood, x, key=key, num_samples=20).probs
    )
    assert np.allclose(compiled(5 * x), inside.mean(1), rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_outputs_that_nothing_can_link_are_an_error(x64):
    """Mean and variance of a Gamma distribution, whose arguments are their ratios."""
    key = jax.random.key(0)
    net = eqx.nn.MLP(2, 2, 4, 1, jnp.tanh, key=key)
    model = Linked(net, jax.nn.softplus)

    def likelihood(o):
        return dist.Gamma(o[0] ** 2 / o[1], o[0] / o[1])

    x = jax.random.normal(key, (12, 2))
    joint = bnn.LogJoint(likelihood, bnn.IsotropicNormal(1.0), num_data=12)
    posterior = posterior_of(joint, model, x, 0.5 + x[:, 0] ** 2)
    with pytest.raises(
        ValueError, match=r"concentration of Gamma has to be .*linearized=False"
    ):
        bnn.predict(posterior, likelihood, 9.0 * x, key=key, num_samples=50)
    sampled = bnn.predict(
        posterior, likelihood, 9.0 * x, key=key, num_samples=50, linearized=False
    )
    assert np.all(np.isfinite(sampled.mean))


def test_a_gaussian_over_probabilities_is_told_of():
    key = jax.random.key(0)
    model = Linked(eqx.nn.MLP(2, 3, 4, 1, jnp.tanh, key=key), jax.nn.softmax)

    def likelihood(p) -> Any:
        return dist.Categorical(probs=p)

    joint = bnn.LogJoint(likelihood, bnn.IsotropicNormal(1.0), num_data=4)
    x = jax.random.normal(key, (4, 2))
    posterior = posterior_of(joint, model, x, jnp.arange(4) % 3)
    with pytest.warns(UserWarning, match="probabilities, rates or scales"):
        posterior.output_distribution(x)


def test_which_outputs_are_constrained():
    """By what the likelihood does with them, not by its class."""
    vector = jax.ShapeDtypeStruct((3,), jnp.float32)

    def columns(likelihood, output: Any = vector):
        link = output_link(likelihood, output)
        return None if link is None else link.columns

    assert columns(lambda z: dist.Categorical(logits=z)) is None
    assert columns(lambda z: dist.Categorical(probs=jax.nn.softmax(z))) is None
    assert columns(lambda z: dist.Normal(z[0], jnp.exp(z[1]))) is None
    assert columns(lambda z: dist.Normal(z[0], 0.3)) is None
    assert columns(bnn.HeteroscedasticNormal(), (vector, vector)) is None
    assert columns(bnn.PoissonLikelihood()) is None
    assert columns(lambda z: dist.Normal(z[0], z[2])) == [2]
    assert columns(lambda z: dist.Normal(z[0], 0.1 + z[2]).to_event(0)) == [2]
    assert columns(lambda p: dist.Categorical(probs=p)) == [0, 1, 2]
    assert columns(lambda p: dist.Categorical(probs=jnp.append(p, 1 - p.sum()))) == [
        0,
        1,
        2,
    ]
    assert columns(lambda z: dist.Gamma(z[0], z[1])) == [0, 1]
    assert columns(lambda z: dist.ZeroInflatedPoisson(z[0], jnp.exp(z[1]))) == [0]
