"""What must not change a log joint, and what must move every random leaf."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxprob
from jaxprob import bnn, tree

from .modules import MODULES, ROWS, make


@pytest.fixture
def scene(x64):
    keys = jax.random.split(jax.random.key(0), 3)
    model = eqx.nn.MLP(2, "scalar", 6, 1, key=keys[0], dtype=jnp.float64)
    data = jax.random.normal(keys[1], (9, 2)), jax.random.normal(keys[2], (9,))
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=9)
    return model, data, joint


def value(joint, model, data):
    return joint(model, data, key=jax.random.key(1))


@pytest.mark.slow
def test_exchanging_hidden_units_changes_nothing(scene):
    model, data, joint = scene
    order = jnp.array([4, 2, 0, 5, 1, 3])
    first, last = model.layers
    other = eqx.tree_at(
        lambda m: (m.layers[0].weight, m.layers[0].bias, m.layers[1].weight),
        model,
        (first.weight[order], first.bias[order], last.weight[:, order]),
    )
    assert np.allclose(value(joint, model, data), value(joint, other, data), rtol=1e-13)
    assert np.allclose(
        jax.vmap(model)(data[0]), jax.vmap(other)(data[0]), rtol=0.0, atol=1e-13
    )
    # The prior alone tells a unit scaled up and down again from the one before.
    scaled = eqx.tree_at(
        lambda m: (m.layers[0].weight, m.layers[0].bias, m.layers[1].weight),
        model,
        (2 * first.weight, 2 * first.bias, last.weight / 2),
    )
    assert np.allclose(
        jax.vmap(model)(data[0]), jax.vmap(scaled)(data[0]), rtol=0.0, atol=1e-13
    )
    assert abs(value(joint, model, data) - value(joint, scaled, data)) > 0.1


@pytest.mark.slow
def test_rows_compilation_and_precision_change_nothing(scene):
    model, (x, y), joint = scene
    plain = value(joint, model, (x, y))
    order = jnp.array([8, 0, 3, 1, 2, 7, 6, 5, 4])
    assert np.allclose(value(joint, model, (x[order], y[order])), plain, rtol=1e-13)
    jitted = eqx.filter_jit(lambda m: value(joint, m, (x, y)))(model)
    assert np.allclose(jitted, plain, rtol=1e-13)

    def single(part):
        return jax.tree.map(
            lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, part
        )

    short = value(single(joint), single(model), single((x, y)))
    assert short.dtype == jnp.float32
    assert np.allclose(short, plain, rtol=1e-5)


class Named(eqx.Module):
    """A perceptron whose layers are known by names; their order in the tree follows."""

    layers: dict[str, eqx.nn.Linear]
    order: tuple[str, str] = eqx.field(static=True)

    def __call__(self, x):
        first, last = (self.layers[name] for name in self.order)
        return last(jnp.tanh(first(x)))


@eqx.filter_jit
def shown(posterior, x):
    return posterior.log_evidence(), *posterior.output_distribution(x)


@pytest.mark.slow
def test_the_order_of_the_layers_names_changes_nothing(scene):
    model, data, joint = scene
    results = []
    for order in (("a", "b"), ("b", "a")):
        named = Named(dict(zip(order, model.layers, strict=True)), order)
        prior = bnn.PriorByPath(
            {f"layers.{order[0]}.*": dist.Normal(0.0, 0.5), "*": dist.Normal(0.0, 2.0)}
        )
        own = bnn.LogJoint(joint.likelihood, prior, num_data=joint.num_data)
        method = bnn.MAP(own, optax.adam(0.05))
        state, _ = jaxprob.fit(
            method, named, data, key=jax.random.key(2), num_steps=60, progress=False
        )
        found = [value(own, named, data), state.model.layers[order[0]].weight]
        for structure in ("full", "kronecker", "low_rank", "diagonal"):
            laplace = bnn.Laplace(method, structure=structure)
            posterior = laplace.posterior(state, [data])
            found += shown(posterior, data[0])
        results.append(found)
    for one, other in zip(*results, strict=True):
        assert np.allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("module", [name for name in MODULES if name != "batch norm"])
def test_every_random_leaf_has_a_gradient(module):
    model, data = make(module)
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), num_data=ROWS)
    random = bnn.bayesianize(model).tree
    params, rest = eqx.partition(random, eqx.is_inexact_array)

    def loss(params):
        drawn = bnn.sample_leaves(eqx.combine(params, rest), key=jax.random.key(3))
        return joint.log_likelihood(drawn, data, key=jax.random.key(4))

    grads = jax.jit(jax.grad(loss))(params)
    leaves = bnn.random_leaves(random)
    assert leaves
    for path in leaves:
        for part in ("mean", "rho"):
            grad = np.asarray(tree.get(grads, f"{path}.{part}"))
            assert np.all(np.isfinite(grad))
            # The bias of attention's keys would be one more; Equinox has none.
            assert np.any(np.abs(grad) > 0), f"{path}.{part}"
