"""Conditions of every kind: parts that are missing, images, sequences, trees."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob.diffusion import (
    DDIM,
    EDM,
    DenoisingLoss,
    Guided,
    Preconditioned,
    nn,
    sample,
)
from tests.unhooked import unhooked

from .test_networks import key_of, shuffled

C = jnp.asarray(0.3)
NAN = jnp.nan


def vector_reader():
    embedding = nn.Embedding(6, cond_dim=3, missing_entries=True, key=key_of(0))
    return shuffled(embedding, key_of(1))


def test_a_missing_entry_has_a_vector_of_its_own():
    reader = vector_reader()
    weight, bias = reader.vector.weight, reader.vector.bias
    expected = weight @ jnp.array([1.0, 0.0, 3.0]) + bias + reader.missing[1]
    np.testing.assert_allclose(reader.row(jnp.array([1.0, NAN, 3.0])), expected, 1e-5)
    mask = jnp.array([True, False, True])
    masked = nn.Condition(jnp.array([1.0, 99.0, 3.0]), mask)
    np.testing.assert_allclose(reader.row(masked), expected, 1e-5)
    whole = weight @ jnp.ones(3) + bias
    np.testing.assert_allclose(reader.row(jnp.ones(3)), whole, 1e-5)
    for nothing in (None, jnp.full(3, NAN), nn.no_condition(masked)):
        assert jnp.array_equal(reader.row(nothing), reader.nothing)


def test_a_missing_entry_gives_no_nan_to_gradients():
    def loss(reader, cond):
        return jnp.sum(reader.row(cond) ** 2)

    grads = eqx.filter_grad(loss)(vector_reader(), jnp.array([1.0, NAN, 3.0]))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert jnp.any(grads.missing[1] != 0.0)
    assert not jnp.any(grads.missing[0])


def small(conditions, **settings):
    return nn.ResidualMLP(
        2, width=8, depth=1, conditions=conditions, **settings, key=key_of(0)
    )


def test_missing_entries_are_named_where_a_network_has_none():
    rows = np.ones((4, 3), np.float32)
    rows[2, 1] = np.nan
    plain, missing = (small(nn.VectorCondition(3, missing=m)) for m in (False, True))
    remedy = r"row 2 is not finite, first in column 1.*VectorCondition\(3, missing=True"
    with pytest.raises(ValueError, match=remedy):
        nn.check_condition(plain, rows)
    with pytest.raises(ValueError, match="entries that may be missing"):
        nn.check_condition(plain, nn.Condition(rows, np.isfinite(rows)))
    nn.check_condition(missing, rows)
    nn.check_condition(missing, nn.Condition(rows, np.isfinite(rows)))
    rows[3, 0] = np.inf
    with pytest.raises(ValueError, match="row 3 is not finite, first in column 0"):
        nn.check_condition(missing, rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["UNet", "DiT"])
def test_an_image_condition_is_channels_beside_the_example(name):
    """The network of two channels in and one out, with the same weights."""
    settings = {"num_heads": 2, "key": key_of(0)}
    if name == "UNet":
        settings["widths"] = (4,)
    else:
        settings |= {"patch_size": 2, "width": 8, "depth": 1}
    make = getattr(nn, name)
    beside = make((1, 4, 5), in_channels=2, **settings)
    joined = make((2, 4, 5), out_channels=1, **settings)
    beside, joined = (
        eqx.tree_at(lambda net: net.conditions, shuffled(net, key_of(1)), reader)
        if reader is not None
        else shuffled(net, key_of(1))
        for net, reader in ((beside, beside.conditions), (joined, None))
    )
    # The reader of the image has a leaf more: draw the weights of one from the other.
    leaves = jax.tree.leaves(
        eqx.filter(eqx.tree_at(lambda n: n.conditions, beside, None), eqx.is_array)
    )
    params, rest = eqx.partition(joined, eqx.is_array)
    params = jax.tree.unflatten(jax.tree.structure(params), leaves)
    joined = eqx.combine(params, rest)
    x, image = jax.random.normal(key_of(2), (2, 1, 4, 5))
    out, expected = eqx.filter_jit(
        lambda: (beside(x, C, image), joined(jnp.concatenate([x, image]), C))
    )()
    assert jnp.std(out) > 0.1
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_missing_pixels_are_marked():
    reader = nn.ConditionReader(nn.ImageCondition(1, missing=True), 4, key=key_of(0))
    reader = eqx.tree_at(lambda r: r.parts["cond"].nothing, reader, jnp.array([7.0]))
    image = jnp.array([[1.0, NAN, 0.0]])
    read = reader(image, (3,), jnp.float32).channels
    assert jnp.array_equal(read, jnp.array([[1.0, 7.0, 0.0], [1.0, 0.0, 1.0]]))
    none = reader(None, (3,), jnp.float32).channels
    assert jnp.array_equal(none, jnp.array([[7.0] * 3, [0.0] * 3]))
    with pytest.raises(ValueError, match=r"shape \(1, 4\) is needed.*image.resize"):
        reader(image, (4,), jnp.float32)


def test_cross_attention_is_its_formula(x64):
    attention = shuffled(nn.CrossAttention(6, 4, 2, key=key_of(0)), key_of(1))
    attention = jax.tree.map(lambda leaf: leaf.astype(float), attention)
    rows = jax.random.normal(key_of(2), (5, 6))
    tokens = jax.random.normal(key_of(3), (3, 4))
    q = np.asarray(jax.vmap(attention.query)(rows))
    k, v = np.split(np.asarray(jax.vmap(attention.key_value)(tokens)), 2, axis=1)
    heads = []
    for part in (slice(0, 3), slice(3, 6)):
        weights = np.exp(q[:, part] @ k[:, part].T / 3**0.5)
        heads.append(weights / weights.sum(axis=1, keepdims=True) @ v[:, part])
    expected = jax.vmap(attention.out)(jnp.asarray(np.concatenate(heads, axis=1)))
    assert jnp.allclose(attention(rows, tokens), expected, rtol=1e-10)


@pytest.fixture(scope="module")
def read_sequence():
    """Networks that read a sequence as a set and in order, compiled."""

    def make(length):
        kind = nn.SequenceCondition(2, length)
        net = nn.DiT((1, 4), 2, width=8, depth=1, num_heads=2, conditions=kind,
                     key=key_of(0))  # fmt: skip
        return shuffled(net, key_of(1))

    x = jax.random.normal(key_of(2), (1, 4))
    run = eqx.filter_jit(lambda net, cond: net(x, C, cond))
    nets = {length: make(length) for length in (None, 3)}
    return lambda length, cond: run(nets[length], cond)


@pytest.mark.slow
def test_padding_of_a_sequence_is_never_read(read_sequence):
    present = jnp.array([True, True, False])
    value = jax.random.normal(key_of(3), (3, 2))
    out = read_sequence(3, nn.Condition(value, present))
    for other in (9.0, NAN):
        changed = nn.Condition(value.at[2].set(other), present)
        assert jnp.array_equal(read_sequence(3, changed), out)
    changed = nn.Condition(value.at[1].set(9.0), present)
    assert not jnp.allclose(read_sequence(3, changed), out)
    short = read_sequence(None, value[:2])
    np.testing.assert_allclose(
        short, read_sequence(None, nn.Condition(value, present)), rtol=1e-5, atol=1e-6
    )
    nothing = nn.Condition(value, jnp.zeros(3, bool))
    assert jnp.array_equal(read_sequence(3, nothing), read_sequence(3, None))


@pytest.mark.slow
def test_places_of_a_sequence_matter_where_it_has_a_length(read_sequence):
    value = jax.random.normal(key_of(3), (3, 2))
    sets, ordered = (
        [read_sequence(length, v) for v in (value, value[::-1])] for length in (None, 3)
    )
    np.testing.assert_allclose(*sets, rtol=1e-5, atol=1e-5)
    assert not jnp.allclose(*ordered, atol=1e-3)


KINDS = {
    "digit": nn.ClassCondition(3),
    "low": nn.ImageCondition(1),
    "meta": nn.VectorCondition(2, missing=True),
    "text": nn.SequenceCondition(2),
}
ROWS = {
    "digit": np.array([0, 2, 1, 1]),
    "low": np.ones((4, 1, 6), np.float32),
    "meta": nn.masked_condition(
        np.array([[0, np.nan], [1, 1], [2, 0], [3, 0]], np.float32)
    ),
    "text": nn.Condition(
        np.ones((4, 5, 2), np.float32), np.arange(5)[None] < np.arange(1, 5)[:, None]
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["UNet", "DiT"])
def test_every_part_of_a_tree_matters(name):
    settings = {"conditions": KINDS, "num_heads": 2, "key": key_of(0)}
    sizes = {"widths": (16,)} if name == "UNet" else {"width": 8, "depth": 1}
    net = shuffled(getattr(nn, name)((1, 6), **sizes, **settings), key_of(1))
    x = jax.random.normal(key_of(2), (1, 6))
    cond = nn.as_condition(jax.tree.map(lambda leaf: jnp.asarray(leaf[1]), ROWS))
    run = eqx.filter_jit(lambda net, cond: net(x, C, cond))
    whole = run(net, cond)
    for part in cond:
        absent = run(net, cond | {part: nn.no_condition(cond[part])})
        assert not jnp.allclose(absent, whole, atol=1e-3), part
    none = run(net, dict.fromkeys(cond))
    np.testing.assert_allclose(run(net, nn.no_condition(cond)), none, 1e-5, 1e-5)
    if name == "DiT":
        assert jnp.allclose(run(nn.LowPrecision(net), cond), whole, atol=0.2)


@pytest.mark.slow
def test_a_tree_of_conditions_is_trained_guided_and_sampled():
    net = nn.DiT(
        (1, 6), 3, width=8, depth=1, num_heads=2, conditions=KINDS, key=key_of(0)
    )
    denoiser = Preconditioned(net, EDM())
    x = np.random.default_rng(0).standard_normal((4, 1, 6)).astype(np.float32)
    with pytest.raises(ValueError, match="never trained"):
        Guided(denoiser, 1.0)
    learner = jaxprob.GradientDescent(
        DenoisingLoss(cond_dropout=dict.fromkeys(KINDS, 0.5)), optax.adam(1e-2)
    )
    state, _ = jaxprob.fit(
        learner, denoiser, (x, ROWS), key=key_of(1), num_steps=3, progress=False
    )
    guided = Guided(learner.model(state), 1.0)
    draws = sample(
        guided, DDIM(2), key=key_of(2), num_samples=4, shape=(1, 6), cond=ROWS
    )
    assert np.isfinite(draws.x_0).all()


BAD = {
    "class": ({"digit": np.array([0, 3])}, r"cond\['digit'\] row 1 is class 3"),
    "image": ({"low": np.ones((2, 6), np.float32)}, r"\(rows, 1, ...\) are needed"),
    "pixel": ({"low": np.full((2, 1, 6), np.nan, np.float32)}, r"'low'\] row 0 is not"),
    "text": ({"text": np.ones((2, 5, 3), np.float32)}, r"\(rows, length, 2\) are"),
    "name": ({"other": np.ones(2)}, "cond has the names"),
}


@pytest.mark.parametrize("name", BAD)
def test_conditions_that_do_not_fit_are_named(name):
    reader = nn.ConditionReader(KINDS, 4, key=key_of(0))
    wrong, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        nn.check_condition(reader, dict.fromkeys(KINDS) | wrong)
    with pytest.raises(TypeError, match="built for conditions named"):
        nn.check_condition(reader, np.ones(2))


def test_kinds_that_a_network_cannot_read_are_named():
    with pytest.raises(TypeError, match="low is ImageCondition: this network reads"):
        small({"low": nn.ImageCondition(1)})
    with unhooked(), pytest.raises(TypeError, match="conditions is ClassCondition: "):
        small(nn.ClassCondition)
    with pytest.raises(ValueError, match="give num_classes or cond_dim, or conditions"):
        small(nn.ClassCondition(3), num_classes=3)
    with pytest.raises(ValueError, match=r"VectorCondition\(dim=0\): at least 1"):
        nn.VectorCondition(0)
