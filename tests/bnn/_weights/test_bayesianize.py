"""Any module can be made Bayesian: a table of modules, and which leaves are chosen."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from jaxprob import bnn, tree


class Own(eqx.Module):
    """A class of a user's own: a matrix, a scalar, a count, a function, a submodule."""

    matrix: jax.Array
    gain: jax.Array
    count: jax.Array
    activation: Callable
    head: eqx.nn.Linear
    name: str = eqx.field(static=True)

    def __call__(self, x):
        return self.head(self.activation(self.gain * (self.matrix @ x)))


def own(key):
    return Own(
        matrix=jax.random.normal(key, (4, 3)),
        gain=jnp.asarray(1.5),
        count=jnp.asarray(7),
        activation=jnp.tanh,
        head=eqx.nn.Linear(4, 2, key=key),
        name="own",
    )


def attend(model, x):
    return model(x, x, x)


def recur(model, x):
    return model(x, jnp.ones(5))


MODULES = {
    "Linear": (lambda k: eqx.nn.Linear(3, 2, key=k), (3,), None),
    "MLP": (lambda k: eqx.nn.MLP(3, 2, 8, 2, key=k), (3,), None),
    "scan MLP": (lambda k: eqx.nn.MLP(3, 2, 8, 3, scan=True, key=k), (3,), None),
    "Conv1d": (lambda k: eqx.nn.Conv1d(2, 3, 3, key=k), (2, 7), None),
    "Conv2d": (lambda k: eqx.nn.Conv2d(1, 3, 3, key=k), (1, 6, 6), None),
    "ConvTranspose2d": (
        lambda k: eqx.nn.ConvTranspose2d(1, 2, 3, key=k),
        (1, 4, 4),
        None,
    ),
    "MultiheadAttention": (
        lambda k: eqx.nn.MultiheadAttention(2, 4, key=k),
        (5, 4),
        attend,
    ),
    "GRUCell": (lambda k: eqx.nn.GRUCell(3, 5, key=k), (3,), recur),
    "Embedding": (lambda k: eqx.nn.Embedding(6, 4, key=k), (), None),
    "own class": (own, (3,), None),
}


@pytest.fixture(params=MODULES)
def case(request, getkey):
    make, shape, apply = MODULES[request.param]
    model = make(getkey())
    x = jnp.asarray(2) if shape == () else jax.random.normal(getkey(), shape)
    return model, x, apply or (lambda model, x: model(x))


@pytest.mark.slow
def test_a_draw_is_a_model_of_the_same_class_that_runs(case, getkey):
    model, x, apply = case
    posterior = eqx.filter_jit(bnn.bayesianize)(model)
    apply = eqx.filter_jit(apply)
    drawn = eqx.filter_jit(posterior.sample)(key=getkey())
    assert type(drawn) is type(model)
    assert jax.tree.structure(drawn) == jax.tree.structure(model)
    out, expected = apply(drawn, x), apply(model, x)
    assert out.shape == expected.shape
    assert out.dtype == expected.dtype
    assert not np.allclose(out, expected)
    assert np.array_equal(apply(posterior.mean(), x), expected)
    narrow = eqx.filter_jit(lambda: bnn.bayesianize(model, scale=1e-7))()
    drawn = eqx.filter_jit(narrow.sample)(key=getkey())
    assert np.allclose(apply(drawn, x), expected, atol=1e-5)


@pytest.mark.slow
def test_every_random_leaf_gets_a_gradient_in_mean_and_scale(case, getkey):
    model, x, apply = case
    posterior = eqx.filter_jit(bnn.bayesianize)(model)

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(posterior, key):
        # A random direction: the entries of an output may sum to a constant.
        out = apply(posterior.sample(key=key), x)
        return jnp.sum(out * jax.random.normal(key, out.shape))

    grads = gradient(posterior, getkey())
    leaves = bnn.random_leaves(grads.tree)
    assert list(leaves) == list(bnn.random_leaves(posterior.tree))
    for path, leaf in leaves.items():
        assert np.any(np.asarray(leaf.mean)), path
        assert np.any(np.asarray(leaf.rho)), path


@pytest.mark.slow
def test_integers_functions_and_static_fields_stay(getkey):
    posterior = bnn.bayesianize(own(getkey()))
    assert set(bnn.random_leaves(posterior.tree)) == {
        "matrix",
        "gain",
        "head.weight",
        "head.bias",
    }
    drawn = posterior.sample(key=getkey())
    assert drawn.count.dtype == jnp.int32
    assert drawn.activation is jnp.tanh


WHERES = {
    "path": ("layers.1", {"layers.1.weight", "layers.1.bias"}),
    "pattern": ("*.bias", {"layers.0.bias", "layers.1.bias"}),
    "predicate": (
        lambda path, leaf: eqx.is_array(leaf) and leaf.ndim == 2,
        {"layers.0.weight", "layers.1.weight"},
    ),
    "tuple": (
        ("layers.0.bias", "layers.1.weight"),
        {"layers.0.bias", "layers.1.weight"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WHERES)
def test_where_chooses(getkey, name):
    where, expected = WHERES[name]
    model = eqx.nn.MLP(3, 2, 8, 1, key=getkey())
    assert set(bnn.random_leaves(bnn.bayesianize(model, where).tree)) == expected


class Normed(eqx.Module):
    linear: eqx.nn.Linear
    layer: eqx.nn.LayerNorm
    rms: eqx.nn.RMSNorm
    group: eqx.nn.GroupNorm
    batch: eqx.nn.BatchNorm

    def __init__(self, key):
        self.linear = eqx.nn.Linear(4, 4, key=key)
        self.layer = eqx.nn.LayerNorm(4)
        self.rms = eqx.nn.RMSNorm(4)
        self.group = eqx.nn.GroupNorm(2, 4)
        self.batch = eqx.nn.BatchNorm(4, "batch", mode="batch")


def test_normalisation_and_noise_stay_points_unless_asked_for(getkey):
    model = bnn.LearnedNoise(Normed(getkey()))
    default = bnn.random_leaves(bnn.bayesianize(model).tree)
    assert set(default) == {"model.linear.weight", "model.linear.bias"}
    everything = set(bnn.random_leaves(bnn.bayesianize(model, True).tree))
    assert {"raw_scale", "model.layer.weight", "model.group.bias"} <= everything


@pytest.mark.slow
def test_the_initial_scale_is_relative_to_the_fan_in(getkey):
    model = eqx.nn.Conv2d(3, 8, 5, key=getkey())
    tree = bnn.bayesianize(model, scale=0.2).tree
    assert jnp.allclose(tree.weight.scale, 0.2 / jnp.sqrt(75.0), rtol=1e-5)
    assert jnp.allclose(tree.bias.scale, 0.2, rtol=1e-5)
    own = bnn.bayesianize(model, scale=lambda path, leaf: 0.01 * jnp.abs(leaf) + 1e-3)
    assert jnp.allclose(
        own.tree.weight.scale, 0.01 * jnp.abs(model.weight) + 1e-3, rtol=1e-4
    )


@pytest.mark.slow
def test_random_leaves_that_are_there_are_kept(getkey):
    layer = bnn.BayesianLinear(3, 4, key=getkey(), scale=0.7)
    model = eqx.nn.Sequential([layer, eqx.nn.Linear(4, 1, key=getkey())])
    twice = bnn.bayesianize(model, scale=0.01).tree
    assert isinstance(layer.weight, bnn.Gaussian)
    assert jnp.array_equal(twice.layers[0].weight.rho, layer.weight.rho)
    assert len(bnn.random_leaves(twice)) == 4
    again = bnn.bayesianize(twice, scale=0.3).tree
    assert eqx.tree_equal(again, twice)


def test_complex_leaves_and_empty_choices_are_refused(getkey):
    with pytest.raises(TypeError, match=r"\['w'\]|w is complex64"):
        bnn.bayesianize({"w": jnp.ones(3, jnp.complex64)})
    with pytest.raises(ValueError, match="makes no leaf random"):
        bnn.bayesianize(eqx.nn.Linear(2, 2, key=getkey()), False)
    with pytest.raises(ValueError, match="scale=0"):
        bnn.bayesianize(eqx.nn.Linear(2, 2, key=getkey()), scale=0.0)
    for wrong in (0.0, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"for bias: .* leave it out of `where`"):
            bnn.bayesianize(
                eqx.nn.Linear(2, 2, key=getkey()),
                scale=lambda path, leaf, s=wrong: s if path == "bias" else 0.1,
            )


@pytest.mark.slow
def test_log_prob_of_a_model_is_the_sum_over_its_random_leaves(getkey):
    model = eqx.nn.MLP(3, 2, 8, 1, key=getkey())
    posterior = bnn.bayesianize(model, "layers.0")
    drawn = posterior.sample(key=getkey())
    first = posterior.tree.layers[0]
    expected = first.weight.log_prob(drawn.layers[0].weight) + first.bias.log_prob(
        drawn.layers[0].bias
    )
    assert jnp.allclose(posterior.log_prob(drawn), expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Conv1d", "MultiheadAttention", "GRUCell"])
def test_any_module_trains_by_variational_inference(name, getkey):
    make, shape, apply = MODULES[name]
    apply = apply or (lambda model, x: model(x))
    model, teacher = make(getkey()), make(getkey())
    x = jax.random.normal(getkey(), (32, *shape))
    y = jax.vmap(lambda x: apply(teacher, x))(x)
    log_joint = bnn.LogJoint(
        bnn.NormalLikelihood(0.1),
        dist.Normal(0.0, 1.0),
        num_data=32,
        apply=lambda model, x, *, key: apply(model, x),
    )
    method = bnn.MeanFieldVI(log_joint, optax.adam(1e-2), scale=0.02)
    state = method.init(model)
    step = eqx.filter_jit(lambda s, k: method.update(s, (x, y), key=k))
    state, first = step(state, getkey())
    for _ in range(60):
        state, info = step(state, getkey())
    assert info["loss"] < first["loss"]
    before, after = tree.paths(model), tree.paths(method.model(state))
    moved = [p for p, v in before.items() if eqx.is_array(v)]
    assert all(not jnp.array_equal(before[p], after[p]) for p in moved)


def test_a_leaf_of_numpys_double_precision_is_taken_without_a_warning(getkey):
    tree = bnn.bayesianize({"w": np.ones(3)}).tree
    assert tree["w"].dtype == jnp.float32
    drawn = bnn.sample_leaves(tree, key=getkey())
    assert isinstance(drawn["w"], jax.Array)
