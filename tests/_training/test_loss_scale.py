"""float16: the loss is scaled, and a step whose gradient is not finite is left out."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn

INF, NAN = float("inf"), float("nan")


def run(optimizer, gradients, params=0.0):
    """What each step sees and leaves, from the true gradients of scaled losses."""
    params = jnp.asarray(params)
    state = optimizer.init(params)
    seen = []

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(
            gradient * state.scale, state, params, scale=state.scale
        )
        return optax.apply_updates(params, updates), state

    for gradient in gradients:
        params, state = step(params, state, jnp.asarray(gradient))
        seen.append((float(params), float(state.scale), bool(state.finite)))
    return seen, state


def test_the_rule_by_hand():
    """Rate 1/2; two good steps double the scale, a bad one halves it."""
    optimizer = jaxprob.dynamic_loss_scale(
        optax.sgd(0.5), initial=8.0, growth_interval=2, minimum=4.0
    )
    found, _ = run(optimizer, [2.0, INF, 2.0, 2.0, NAN, 2.0, -INF, NAN, NAN, 2.0])
    assert found == [
        (-1.0, 8.0, True),
        (-1.0, 4.0, False),  # the count of good steps begins anew
        (-2.0, 4.0, True),
        (-3.0, 8.0, True),
        (-3.0, 4.0, False),
        (-4.0, 4.0, True),
        (-4.0, 4.0, False),  # no lower than the minimum
        (-4.0, 4.0, False),
        (-4.0, 4.0, False),
        (-5.0, 4.0, True),
    ]


def test_the_rule_is_torchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    gradients = np.where(rng.uniform(size=60) < 0.15, INF, rng.normal(size=60))
    ours = jaxprob.dynamic_loss_scale(
        optax.sgd(0.1), initial=2.0**10, growth_interval=4
    )
    found, _ = run(ours, gradients.astype(np.float32))

    weight = torch.nn.Parameter(torch.zeros(()))
    theirs = torch.optim.SGD([weight], 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4)
    expected = []
    for gradient in gradients.astype(np.float32):
        theirs.zero_grad()
        scaler.scale(weight * float(gradient)).backward()
        scaler.step(theirs)
        scaler.update()
        expected.append(
            (weight.item(), scaler.get_scale(), bool(np.isfinite(gradient)))
        )
    # Sums of numbers around 0.1 in float32, some of which cancel.
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    assert len({scale for _, scale, _ in found}) > 3


def test_the_scale_does_not_overflow():
    optimizer = jaxprob.dynamic_loss_scale(
        optax.sgd(0.5), initial=2.0**127, growth_interval=1
    )
    found, _ = run(optimizer, [0.25, 0.25])
    assert [scale for _, scale, _ in found] == [2.0**127, 2.0**127]


@pytest.mark.slow
def test_the_optimiser_inside_sees_neither_the_scale_nor_a_step_left_out():
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))
    scaled = jaxprob.dynamic_loss_scale(inner, growth_interval=1)
    good = [3.0, -0.5, 2.0, 0.1]
    state: Any
    params: Any
    found, state = run(scaled, [good[0], INF, *good[1:3], NAN, good[3]])
    params, plain = jnp.asarray(0.0), inner.init(jnp.asarray(0.0))
    for gradient in good:
        updates, plain = inner.update(jnp.asarray(gradient), plain, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(found[-1][0], params, rtol=1e-6)
    assert jax.tree.all(
        jax.tree.map(lambda a, b: np.allclose(a, b, rtol=1e-6), state.inner, plain)
    )


def test_its_place_is_outermost():
    learner = jaxprob.GradientDescent(
        jaxprob.mean_loss(lambda model, x, *, key: model * x),
        optax.chain(optax.clip(1.0), jaxprob.dynamic_loss_scale(optax.sgd(0.1))),
    )
    state = learner.init(jnp.asarray(1.0))
    with pytest.raises(ValueError, match="stands inside"):
        learner.update(state, jnp.ones(3), key=jax.random.key(0))


def test_a_gradient_without_its_scale_is_refused():
    optimizer = jaxprob.dynamic_loss_scale(optax.sgd(0.1))
    state = optimizer.init(jnp.asarray(0.0))
    with pytest.raises(TypeError, match="without the scale"):
        optimizer.update(jnp.asarray(1.0), state)


@pytest.mark.parametrize(
    "settings",
    [{"factor": 1.0}, {"growth_interval": 0}, {"minimum": 0.0}, {"initial": 0.5}],
)
def test_settings_that_could_not_work_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        jaxprob.dynamic_loss_scale(optax.sgd(0.1), **settings)


@jaxprob.mean_loss
def squared_error(model, example, *, key):
    x, y = example
    return jnp.sum((model(x) - y) ** 2)


def small_regression():
    """Gradients of 1e-9, which float16 does not have: its least number is 6e-8."""
    rng = np.random.default_rng(0)
    x = (3e-5 * rng.normal(size=(64, 4))).astype(np.float32)
    y = x @ np.asarray([[1.0], [-2.0], [0.5], [3.0]], np.float32)
    model = eqx.nn.Linear(4, 1, use_bias=False, key=jax.random.key(0))
    return eqx.tree_at(lambda m: m.weight, model, jnp.zeros((1, 4))), (x, y)


def trained(loss, optimizer, model, data, num_steps, **options):
    learner = jaxprob.GradientDescent(loss, optimizer, **options)
    return jaxprob.fit(
        learner,
        model,
        data,
        key=jax.random.key(1),
        num_steps=num_steps,
        batch_size=64,
        progress=False,
    )[0]


@pytest.fixture(scope="module")
def weights():
    """After training in float32, in float16, and in float16 with a scaled loss."""
    model, data = small_regression()
    low = jaxprob.LowPrecisionLoss(squared_error, "float16")
    adam = optax.adam(optax.cosine_decay_schedule(0.05, 400), eps=1e-16)
    runs = {
        "float32": (squared_error, adam),
        "float16": (low, optax.sgd(1e5)),
        "scaled": (low, jaxprob.dynamic_loss_scale(adam, growth_interval=50)),
    }
    return {
        name: trained(loss, optimizer, model, data, 400)
        for name, (loss, optimizer) in runs.items()
    }


@pytest.mark.slow
def test_float16_alone_has_no_gradient_here(weights):
    np.testing.assert_array_equal(weights["float16"].model.weight, 0.0)


@pytest.mark.slow
def test_with_a_scaled_loss_it_learns_as_float32_does(weights):
    truth = [[1.0, -2.0, 0.5, 3.0]]
    np.testing.assert_allclose(weights["float32"].model.weight, truth, atol=0.02)
    # float16 has eleven bits, and the inputs are among them.
    np.testing.assert_allclose(weights["scaled"].model.weight, truth, atol=0.03)
    state = weights["scaled"].opt_state
    assert weights["scaled"].model.weight.dtype == jnp.float32
    # The loss is a number of float16, and so is the scale that its cotangent is: it
    # grows to the largest, and when it tries the next one that step is left out.
    assert float(state.scale) in (2.0**15, 2.0**16)


def test_a_step_left_out_leaves_everything_but_the_scale():
    """Running statistics and the average too, which saw an overflow."""
    norm, statistics = eqx.nn.make_with_state(eqx.nn.BatchNorm)(2, "batch", mode="ema")
    model = bnn.Stateful(norm, statistics)
    joint = bnn.LogJoint(bnn.NormalLikelihood(1.0), bnn.FanInNormal(), num_data=8)
    method = bnn.MAP(
        joint,
        jaxprob.dynamic_loss_scale(optax.adam(0.1)),
        random=True,
        ema=jaxprob.EMA(0.9),
    )
    before = method.init(model)
    x = jax.random.normal(jax.random.key(0), (8, 2))
    update = eqx.filter_jit(method.update)
    after, _ = update(before, (x, x), key=jax.random.key(1))
    assert after.opt_state.finite
    assert not eqx.tree_equal(after.model, before.model)

    bad = jnp.full_like(x, INF)
    left, _ = update(after, (x, bad), key=jax.random.key(2))
    assert not left.opt_state.finite
    assert float(left.opt_state.scale) == float(after.opt_state.scale) / 2
    for part in ("model", "ema", "step"):
        assert eqx.tree_equal(getattr(left, part), getattr(after, part))
    assert eqx.tree_equal(left.opt_state.inner, after.opt_state.inner)


@pytest.mark.slow
def test_each_member_of_an_ensemble_has_a_scale():
    model = eqx.nn.MLP(1, 1, 4, 1, key=jax.random.key(0))
    joint = bnn.LogJoint(bnn.NormalLikelihood(1.0), bnn.FanInNormal(), num_data=8)
    x = jnp.linspace(-1.0, 1.0, 8)[:, None]

    def members(optimizer):
        method = bnn.DeepEnsemble(bnn.MAP(joint, optimizer), 3)
        state = eqx.filter_jit(method.init)(model, key=jax.random.key(1))
        update = eqx.filter_jit(method.update)
        for step in range(3):
            state, _ = update(state, (x, x), key=jax.random.key(step))
        return state

    plain = members(optax.sgd(0.1))
    scaled = members(jaxprob.dynamic_loss_scale(optax.sgd(0.1)))
    assert scaled.opt_state.scale.shape == (3,)
    for a, b in zip(
        jax.tree.leaves(eqx.filter(plain.model, eqx.is_inexact_array)),
        jax.tree.leaves(eqx.filter(scaled.model, eqx.is_inexact_array)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
