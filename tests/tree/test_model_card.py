"""The model card: counts by part and by role."""

import equinox as eqx
import jax
import pytest

import jaxprob
from jaxprob import bnn


def network():
    return eqx.nn.Sequential(
        [
            eqx.nn.Linear(2, 16, key=jax.random.key(0)),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Linear(16, 1, key=jax.random.key(1)),
        ]
    )


def test_a_card_counts_the_leaves_of_the_tree():
    card = jaxprob.tree.summary(network(), depth=3)
    counts = {part.path: part.total for part in card.parts}
    assert counts["layers.0"] == 48
    assert counts["layers.0.weight"] == 32
    assert counts["layers.2"] == 17
    assert counts["layers"] == card.total.total == 65
    assert card.total.nbytes == 4 * 65
    # What holds no parameters has no row.
    assert "layers.1" not in counts
    assert [part.path for part in jaxprob.tree.summary(network(), depth=1).parts] == [
        "layers"
    ]
    everything = jaxprob.tree.summary(network(), depth=None)
    assert everything.parts == card.parts


def test_roles_are_told_apart():
    card = jaxprob.tree.summary(
        network(), random="*.weight", frozen="layers.2.bias", depth=2
    )
    assert card.total.counts == {"random": 48, "point": 16, "frozen": 1}
    text = str(card)
    assert "random" in text
    assert "frozen" in text
    assert text.splitlines()[-1].split()[0] == "all"
    assert "260 B" in text
    # A role that no leaf has is no column.
    assert "frozen" not in str(jaxprob.tree.summary(network()))


def test_gaussian_leaves_are_random():
    model = bnn.bayesianize(network())
    card = jaxprob.tree.summary(model, random=bnn.Gaussian)
    assert card.total.counts["random"] == 2 * 65
    assert card.total.counts["point"] == 0


def test_running_statistics_are_memory_and_no_parameters():
    model, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, "batch", mode="ema")
    card = jaxprob.tree.summary((model, state))
    assert card.total.total == 8
    assert card.total.nbytes > 4 * 8


def test_a_leaf_has_one_role():
    with pytest.raises(ValueError, match=r"both mean the leaf layers\.0\.weight"):
        jaxprob.tree.summary(network(), random=True, frozen="layers.0")
