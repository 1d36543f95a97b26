"""A state split over devices: the numbers of one device, a part of it on each."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import Layout, bnn
from jaxprob._engine.state_shardings import split_axis
from jaxprob._training.accumulate import accumulate

from .test_layout import arrays, cast, difference
from .test_stepper import noisy_loss

JOINT = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=100)
METHODS: dict[str, Any] = {
    "accumulated": lambda: jaxprob.GradientDescent(
        noisy_loss,
        accumulate(optax.adam(1e-2), 3),
        ema=jaxprob.EMA(0.9),
    ),
    "MeanFieldVI": lambda: bnn.MeanFieldVI(JOINT, optax.adam(1e-2)),
    "IVON": lambda: bnn.IVON(JOINT, 0.01),
    "DeepEnsemble": lambda: bnn.DeepEnsemble(bnn.MAP(JOINT, optax.adam(1e-2)), 4),
}
FOUR = Layout(shard=4, min_shard_size=24)


def network(depth=2):
    return eqx.nn.MLP(3, 1, 8, depth, key=jax.random.key(0))


def trained(learner, layout, dtype: Any = np.float32, **kwargs):
    """Fifty steps: 100 rows in batches of 32, the last of which is masked."""
    settings: Any = {"num_steps": 50, "batch_size": 32, "steps_per_dispatch": 8}
    return jaxprob.fit(
        learner,
        cast(network(depth=1), dtype),
        arrays(100, dtype),
        key=jax.random.key(1),
        layout=layout,
        progress=False,
        **settings | kwargs,
    )


def stepper_of(learner, layout, **kwargs):
    state = learner.init(network(), key=jax.random.key(1))
    settings: Any = {"key": jax.random.key(2), "steps_per_dispatch": 4} | kwargs
    return jaxprob.Stepper(learner, state, layout=layout, **settings)


def batches(num):
    x, y = arrays(8 * num)
    return [(x[i::num], y[i::num]) for i in range(num)]


def parts(tree):
    """Into how many parts each array is cut, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_array))
    return {
        jax.tree_util.keystr(path): len(
            {str(shard.index) for shard in leaf.addressable_shards}
        )
        for path, leaf in leaves
    }


def is_split_where_it_is_large(tree, layout=FOUR):
    found = parts(tree)
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_array))
    wanted = {
        jax.tree_util.keystr(path): 1 if split_axis(layout, leaf) is None else 4
        for path, leaf in leaves
    }
    assert 4 in wanted.values()
    return found == wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype", "layout"),
    [
        ("accumulated", np.float64, FOUR),
        ("MeanFieldVI", np.float32, Layout(data=2, shard=2, min_shard_size=24)),
        ("IVON", np.float32, FOUR),
        ("DeepEnsemble", np.float64, Layout(shard=2, members=2, min_shard_size=24)),
    ],
)
def test_fifty_steps_of_a_split_state_are_those_on_one_device(name, dtype, layout):
    bound = 1e-6 if dtype is np.float64 else 1e-5
    with jax.enable_x64(dtype is np.float64):
        one, history = trained(METHODS[name](), None, dtype)
        many, history_ = trained(METHODS[name](), layout, dtype)
    losses = [[entry["loss"] for entry in h] for h in (history, history_)]
    np.testing.assert_allclose(*losses, rtol=bound)
    assert difference(one, many) < bound
    if name == "DeepEnsemble":
        first, last = many.model.layers
        assert tuple(first.weight.sharding.spec) == ("members", "shard")
        assert {part.data.shape for part in first.weight.addressable_shards} == {
            (2, 4, 3)
        }
        assert tuple(last.bias.sharding.spec) == ("members",)


@pytest.fixture(scope="module")
def learner():
    return METHODS["accumulated"]()


@pytest.fixture(scope="module")
def whole(learner):
    stepper = stepper_of(learner, FOUR)
    stepper(batches(12))
    return stepper


def test_a_leaf_and_its_averages_are_split_alike_and_small_ones_are_not(whole):
    state = whole.state
    assert is_split_where_it_is_large(state)
    weights = [
        leaf.sharding.spec
        for leaf in jax.tree.leaves(eqx.filter(state, eqx.is_array))
        if leaf.shape == (8, 8)
    ]
    assert len(weights) > 4  # weight, two moments, gradients, average
    assert {tuple(spec) for spec in weights} == {("shard",)}
    batch = FOUR.put(batches(1)[0])
    assert {s.data.shape for s in batch[0].addressable_shards} == {(2, 3)}


def test_copies_replays_and_results_of_a_split_state_stay_split(learner, whole):
    live = whole._live
    assert live.snapshot is not None
    for tree in (live.arrays, live.copy(), live.snapshot.arrays, whole.fetch()):
        assert is_split_where_it_is_large(tree)
    before = FOUR.fetch(whole.state)
    live.go_back(whole.step)
    assert is_split_where_it_is_large(live.arrays)
    assert eqx.tree_equal(FOUR.fetch(whole.state), before)
    state, _ = trained(learner, FOUR, num_steps=4)
    assert is_split_where_it_is_large(state)
    alone = FOUR.fetch(state)
    assert set(parts(alone).values()) == {1}
    for leaf in jax.tree.leaves(eqx.filter(alone, eqx.is_array)):
        assert len(leaf.sharding.device_set) == 1


def test_single_steps_and_resumes_give_the_bits_of_one_run(learner, whole):
    single = stepper_of(learner, FOUR)
    for batch in batches(12)[:7]:
        single([batch])
    other = stepper_of(learner, FOUR)
    other.resume(single.fetch(), key=jax.random.key(2), step=7)  # still split
    other(batches(12)[7:])
    assert eqx.tree_equal(FOUR.fetch(whole.state), FOUR.fetch(other.state))


def test_a_saved_split_state_loads_into_any_layout(tmp_path, learner, whole):
    path = tmp_path / "state.safetensors"
    jaxprob.save(path, whole.state)
    loaded = jaxprob.load(path, template=whole.state)
    assert eqx.tree_equal(loaded, FOUR.fetch(whole.state))
    for layout in (None, Layout(data=2, shard=2, min_shard_size=24)):
        other = stepper_of(learner, layout)
        other.resume(loaded, key=jax.random.key(2), step=12)
        assert eqx.tree_equal((layout or Layout()).fetch(other.state), loaded)


def train_and_check(stepper, data):
    stepper(data)
    stepper.check_state()


@jaxprob.mean_loss
def breaking(model, example, *, key):
    x, y = example
    return jnp.sum((model(x) - y) ** 2) * jnp.where(y[0] < 0, jnp.inf, 1.0)


def test_the_state_before_a_nan_stays_split():
    learner = jaxprob.GradientDescent(breaking, optax.sgd(0.01))
    stepper = stepper_of(learner, FOUR)
    good = stepper_of(learner, FOUR)
    data = batches(6)
    good(data[:3])
    x, y = data[3]
    data[3] = x, -1.0 - y
    with pytest.raises(jaxprob.NonFiniteError, match="step 3 broke the run") as caught:
        train_and_check(stepper, data)
    assert is_split_where_it_is_large(caught.value.state)
    assert eqx.tree_equal(FOUR.fetch(caught.value.state), FOUR.fetch(good.state))


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((8, 8), 0), ((4, 12), 1), ((6, 4), 1), ((6, 6), None), ((4, 4), None)],
)
def test_the_longest_axis_that_divides_is_split(shape, axis):
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
    assert split_axis(FOUR, leaf) == axis
    assert split_axis(FOUR, jax.ShapeDtypeStruct((64, *shape), jnp.float32), 1) == (
        {(6, 6): None, (4, 4): 1}.get(shape, None if axis is None else axis + 1)
    )


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Layout(shard=8), r"Layout\(shard=8\) needs 8 devices; JAX sees 4"),
        (
            Layout(data=2, shard=2),
            r"splits nothing: the largest .*, has 64 entries, and min_shard_size=16384"
            r".* Write Layout\(data=4\), or a smaller min_shard_size",
        ),
        (
            Layout(shard=3, min_shard_size=60),
            r"Layout\(shard=3\) divides no axis of .*layers.1.weight \[8, 8\]",
        ),
    ],
)
def test_layouts_that_split_nothing_are_refused(learner, layout, message):
    with pytest.raises(ValueError, match=message):
        stepper_of(learner, layout)


def test_a_large_leaf_that_no_axis_divides_is_named_and_stays_whole(learner):
    with pytest.warns(UserWarning, match=r"divides no axis of .*layers.1.weight"):
        stepper = stepper_of(learner, Layout(shard=3, min_shard_size=24))
    found = parts(stepper.state.model)
    assert found[".layers[1].weight"] == 1
    assert found[".layers[0].weight"] == 3


def test_a_size_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"Layout\(min_shard_size=0\): at least 1"):
        Layout(shard=2, min_shard_size=0)
