"""What Equinox, optax and JAX already do, so that jaxprob need not: one test each.

`docs/coming-from.md` names these beside what users of other systems look for.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
import torch

import jaxprob


def test_filter_jit_takes_static_and_traced_arguments_together():
    traces = []

    @eqx.filter_jit
    def scaled(tree, mode):
        traces.append(mode)
        sign = -1.0 if mode == "down" else 1.0
        return {"out": tree["x"] * sign, "name": tree["name"]}

    tree = {"x": jnp.arange(3.0), "name": "a"}
    out = scaled(tree, "up")
    assert out["name"] == "a"
    np.testing.assert_array_equal(out["out"], [0.0, 1.0, 2.0])
    scaled({"x": jnp.ones(3), "name": "a"}, "up")
    assert traces == ["up"]
    np.testing.assert_array_equal(scaled(tree, "down")["out"], [0.0, -1.0, -2.0])
    scaled({**tree, "name": "b"}, "down")
    assert traces == ["up", "down", "down"]


def test_filter_jit_traces_anew_for_each_python_number_and_not_for_arrays():
    traces = []

    @eqx.filter_jit
    def twice(x):
        traces.append(x)
        return 2.0 * x

    for value in (1.0, 2.0, 3.0):
        twice(value)
    assert len(traces) == 3
    for value in (1.0, 2.0, 3.0):
        assert twice(jnp.asarray(value)) == 2 * value
    assert len(traces) == 4


def test_filter_vmap_takes_static_leaves():
    tree = {"x": jnp.arange(3.0), "mode": "square", "power": 2}

    def raised(tree):
        return {"out": tree["x"] ** tree["power"], "mode": tree["mode"]}

    out = eqx.filter_vmap(raised)(tree)
    np.testing.assert_array_equal(out["out"], [0.0, 1.0, 4.0])
    assert out["mode"] == "square"


@pytest.mark.slow
def test_gradients_come_with_other_outputs_and_of_any_argument():
    def loss(scale, model, x):
        out = scale * model(x)
        return jnp.sum(out), {"largest": jnp.max(out), "name": "linear"}

    model = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    x = jnp.ones(2)
    (value, aux), grad = eqx.filter_value_and_grad(loss, has_aux=True)(
        jnp.asarray(2.0), model, x
    )
    np.testing.assert_allclose(value, 2.0 * jnp.sum(model(x)), rtol=1e-6)
    np.testing.assert_allclose(grad, jnp.sum(model(x)), rtol=1e-6)
    assert aux["name"] == "linear"
    of_model, _ = eqx.filter_grad(
        lambda model: loss(jnp.asarray(2.0), model, x), has_aux=True
    )(model)
    np.testing.assert_allclose(of_model.bias, 2.0)


@pytest.mark.slow
def test_frozen_parameters_keep_their_bits():
    model = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    trained = jaxprob.tree.freeze(model, "layers.0")
    params, rest = eqx.partition(model, trained)

    def loss(params):
        net = eqx.combine(params, rest)
        return jnp.sum(jax.vmap(net)(jnp.ones((3, 2))) ** 2)

    gradients = eqx.filter_grad(loss)(params)
    after = eqx.apply_updates(params, jax.tree.map(lambda g: -0.1 * g, gradients))
    new = eqx.combine(after, rest)
    assert jnp.array_equal(new.layers[0].weight, model.layers[0].weight)
    assert not jnp.array_equal(new.layers[1].weight, model.layers[1].weight)


def test_stop_gradient_stops_it():
    def loss(x):
        return x * jax.lax.stop_gradient(x)

    assert jax.grad(loss)(3.0) == 3.0


def test_a_learning_rate_has_a_gradient():
    """x after a step of gradient descent on x^2 / 2 from 4 is 4 (1 - rate)."""

    def after(rate):
        optimizer = optax.sgd(rate)
        x = jnp.asarray(4.0)
        updates, _ = optimizer.update(x, optimizer.init(x))
        moved: Any = optax.apply_updates(x, updates)
        return 0.5 * moved**2

    np.testing.assert_allclose(jax.grad(after)(jnp.asarray(0.0)), -16.0, rtol=1e-6)


@pytest.mark.slow
def test_weights_are_initialised_by_surgery():
    model = eqx.nn.MLP(3, 2, 8, 2, key=jax.random.key(0))
    he = jax.nn.initializers.he_normal(in_axis=1, out_axis=0)
    keys = iter(jax.random.split(jax.random.key(1), 3))

    def fresh(linear):
        weight = he(next(keys), linear.weight.shape)
        return eqx.tree_at(lambda layer: layer.weight, linear, weight)

    new = jaxprob.tree.swap(model, eqx.nn.Linear, fresh)
    weight = new.layers[1].weight
    assert abs(float(jnp.std(weight)) - np.sqrt(2 / 8)) < 5 * 0.5 / np.sqrt(2 * 64)
    assert model.layers[1].bias is not None
    assert jnp.array_equal(new.layers[1].bias, model.layers[1].bias)


def test_parts_of_two_models_are_mixed_and_inner_outputs_read():
    one, other = (eqx.nn.MLP(2, 1, 4, 2, key=jax.random.key(i)) for i in range(2))
    mixed = jaxprob.tree.swap(one, "layers.0", lambda _: other.layers[0])
    x = jnp.ones(2)
    inner = jax.nn.relu(jaxprob.tree.get(mixed, "layers.0")(x))
    assert jnp.array_equal(inner, jax.nn.relu(other.layers[0](x)))
    rest = one.layers[2](jax.nn.relu(one.layers[1](inner)))
    np.testing.assert_allclose(mixed(x), rest, rtol=1e-6)


def test_binding_is_partition():
    model = eqx.nn.Dropout(0.5)
    net = eqx.nn.Sequential([eqx.nn.Linear(2, 2, key=jax.random.key(0)), model])
    params, static = eqx.partition(net, eqx.is_array)
    again = eqx.combine(params, static)
    assert eqx.tree_equal(again, net)
    calm = eqx.nn.inference_mode(net)
    assert jnp.array_equal(calm(jnp.ones(2)), net.layers[0](jnp.ones(2)))


@pytest.mark.slow
def test_the_multivariate_normal_density():
    mean, scale = np.asarray([0.3, -1.0]), np.asarray([[2.0, 0.5], [0.5, 1.0]])
    x = np.asarray([[0.0, 0.0], [1.0, -2.0]])
    found = jax.vmap(jax.scipy.stats.multivariate_normal.logpdf, (0, None, None))(
        jnp.asarray(x), jnp.asarray(mean), jnp.asarray(scale)
    )
    cov: Any = scale
    expected = scipy.stats.multivariate_normal(mean, cov).logpdf(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_a_scanned_cell_is_a_loop_over_it():
    cell = eqx.nn.GRUCell(2, 3, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (5, 2))

    def step(hidden, x):
        hidden = cell(x, hidden)
        return hidden, hidden

    _, found = jax.lax.scan(step, jnp.zeros(3), x)
    hidden = jnp.zeros(3)
    for place, value in enumerate(x):
        hidden = cell(value, hidden)
        np.testing.assert_allclose(found[place], hidden, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", ["plain", "smoothed", "some rows left out", "weights of classes"]
)
def test_cross_entropy_is_torchs(case):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 3)).astype(np.float32)
    labels = np.asarray([0, 2, 1, 1, 0, 2])
    weights = np.asarray([1.0, 5.0, 0.5], np.float32)
    options: dict[str, Any] = {}
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if case == "plain":
        found = jnp.mean(losses)
    elif case == "smoothed":
        target = optax.smooth_labels(jax.nn.one_hot(labels, 3), 0.1)
        found = jnp.mean(optax.softmax_cross_entropy(logits, target))
        options = {"label_smoothing": 0.1}
    elif case == "some rows left out":
        found = jaxprob.masked_mean(losses, labels != 1)
        options = {"ignore_index": 1}
    else:
        each = weights[labels]
        found = jnp.sum(each * losses) / jnp.sum(each)
        options = {"weight": torch.from_numpy(weights)}
    close(
        found,
        torch.nn.functional.cross_entropy(
            torch.from_numpy(logits), torch.from_numpy(labels), **options
        ),
    )


def given(module, **parts):
    """An Equinox layer with a torch layer's parameters."""
    for name, tensor in parts.items():
        if tensor is None:
            continue
        value = jnp.asarray(tensor.detach().numpy())
        like = getattr(module, name)
        module = eqx.tree_at(
            lambda m, name=name: getattr(m, name), module, value.reshape(like.shape)
        )
    return module


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.randn(5, 3, 8, 8)


def close(found, expected):
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5)


def test_linear_is_torchs():
    theirs = torch.nn.Linear(6, 4)
    x = torch.randn(5, 6)
    ours = eqx.nn.Linear(6, 4, key=jax.random.key(0))
    ours = given(ours, weight=theirs.weight, bias=theirs.bias)
    close(jax.vmap(ours)(jnp.asarray(x.numpy())), theirs(x))


@pytest.mark.slow
@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1)])
def test_convolution_is_torchs(images, stride, padding):
    theirs = torch.nn.Conv2d(3, 4, 3, stride, padding)
    ours = eqx.nn.Conv2d(3, 4, 3, stride, padding, key=jax.random.key(0))
    ours = given(ours, weight=theirs.weight, bias=theirs.bias)
    close(jax.vmap(ours)(jnp.asarray(images.numpy())), theirs(images))


@pytest.mark.slow
def test_layer_norm_is_torchs_over_all_axes(images):
    theirs = torch.nn.LayerNorm([3, 8, 8])
    torch.nn.init.normal_(theirs.weight)
    ours = given(eqx.nn.LayerNorm((3, 8, 8)), weight=theirs.weight, bias=theirs.bias)
    close(jax.vmap(ours)(jnp.asarray(images.numpy())), theirs(images))
    # A large mean beside a small spread: E[x^2] - E[x]^2 would have no digit left.
    far = 1000.0 + 0.1 * images
    found = jax.vmap(ours)(jnp.asarray(far.numpy()))
    exact = theirs.double()(far.double()).detach()
    np.testing.assert_allclose(found, exact, atol=5e-3)


def test_batch_norm_is_torchs(images):
    theirs = torch.nn.BatchNorm2d(3, momentum=0.1)
    ours, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        3, "batch", momentum=0.9, mode="ema"
    )
    expected = theirs(images)
    found, _ = jax.vmap(ours, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(
        jnp.asarray(images.numpy()), state
    )
    # In its mode "ema" the first batch stands for itself, as torch's does.
    close(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_torchs(causal):
    width, heads, length = 8, 2, 5
    theirs = torch.nn.MultiheadAttention(width, heads, batch_first=True)
    ours = eqx.nn.MultiheadAttention(
        heads, width, use_query_bias=True, use_key_bias=True, use_value_bias=True,
        use_output_bias=True, key=jax.random.key(0),
    )  # fmt: skip
    for name, weight, bias in zip(
        ("query_proj", "key_proj", "value_proj"),
        theirs.in_proj_weight.chunk(3),
        theirs.in_proj_bias.chunk(3),
        strict=True,
    ):
        part = given(getattr(ours, name), weight=weight, bias=bias)
        ours = eqx.tree_at(lambda m, name=name: getattr(m, name), ours, part)
    out = given(
        ours.output_proj, weight=theirs.out_proj.weight, bias=theirs.out_proj.bias
    )
    ours = eqx.tree_at(lambda m: m.output_proj, ours, out)
    x = torch.randn(1, length, width)
    mask = np.tril(np.ones((length, length), bool)) if causal else None
    blocked = None if mask is None else torch.tensor(~mask)
    expected, _ = theirs(x, x, x, attn_mask=blocked)
    q = jnp.asarray(x.numpy()[0])
    close(ours(q, q, q, mask=None if mask is None else jnp.asarray(mask)), expected[0])
