import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from jaxprob import tree


class Net(eqx.Module):
    trunk: list[eqx.nn.Linear]
    head: eqx.nn.Linear
    steps: jax.Array
    name: str = eqx.field(static=True)

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.trunk = [
            eqx.nn.Linear(3, 3, key=keys[0]),
            eqx.nn.Linear(3, 3, key=keys[1]),
        ]
        self.head = eqx.nn.Linear(3, 2, key=keys[2])
        self.steps = jnp.zeros((2,), jnp.int32)
        self.name = "net"


@pytest.fixture
def net(getkey):
    return Net(getkey())


def chosen(net, where):
    flags = tree.select(net, where)
    return {path for path, flag in tree.paths(flags).items() if flag}


TRUNK = {f"trunk.{i}.{leaf}" for i in (0, 1) for leaf in ("weight", "bias")}
HEAD = {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (True, TRUNK | HEAD),
        (False, set()),
        ("head", HEAD),
        ("head.bias", {"head.bias"}),
        ("*.bias", {"trunk.0.bias", "trunk.1.bias", "head.bias"}),
        ("trunk.*", TRUNK),
        (eqx.nn.Linear, TRUNK | HEAD),
        (
            lambda path, leaf: leaf.ndim == 1,
            {"trunk.0.bias", "trunk.1.bias", "head.bias"},
        ),
        (("head", "trunk.0.weight"), HEAD | {"trunk.0.weight"}),
    ],
)
def test_every_kind_of_where_means_the_leaves_it_says(net, where, expected):
    assert chosen(net, where) == expected


def test_a_tree_of_bools_is_a_where(net):
    assert chosen(net, tree.select(net, "head")) == HEAD


def test_integers_are_never_chosen(net):
    assert "steps" not in chosen(net, True)
    with pytest.raises(ValueError, match=r"steps is int32\[2\].*floating"):
        tree.select(net, "steps")


def test_a_path_that_is_not_there_is_named_with_what_is(net):
    with pytest.raises(ValueError, match=r"'haed' means no leaf.*trunk\.0\.weight"):
        tree.select(net, "haed")


def test_a_type_that_is_not_there_is_named(net):
    with pytest.raises(ValueError, match=r"LayerNorm.*no such module"):
        tree.select(net, eqx.nn.LayerNorm)


def test_a_filter_for_leaves_alone_is_refused(net):
    with pytest.raises(TypeError, match="where=True"):
        tree.select(net, eqx.is_inexact_array)


def test_what_is_no_choice_is_refused(net):
    with pytest.raises(TypeError, match="no choice of leaves"):
        tree.select(net, 3.5)


def test_partition_and_combine_round_trip(net):
    head, rest = tree.partition(net, "head")
    assert set(tree.paths(head)) == HEAD
    assert eqx.tree_equal(eqx.combine(head, rest), net)


def test_freeze_is_the_complement_among_what_can_train(net):
    flags = tree.freeze(net, "trunk")
    assert {path for path, flag in tree.paths(flags).items() if flag} == HEAD


def test_get_reads_inner_parts(net):
    assert tree.get(net, "trunk.1") is net.trunk[1]
    assert tree.get(net, "trunk.1.weight") is net.trunk[1].weight
    assert tree.get({"a": (1, [2, 3])}, "a.1.0") == 2
    with pytest.raises(ValueError, match=r"trunk \(list\) has no '7'"):
        tree.get(net, "trunk.7.weight")


def test_swap_by_path_changes_one_part_only(net, getkey):
    wider = eqx.nn.Linear(3, 5, key=getkey())
    swapped = tree.swap(net, "head", lambda old: wider)
    assert eqx.tree_equal(swapped.head, wider)
    assert eqx.tree_equal(swapped.trunk, net.trunk)
    assert net.head.out_features == 2


def test_swap_by_type_changes_every_part_of_it(net):
    swapped = tree.swap(net, eqx.nn.Linear, lambda old: eqx.nn.Identity())
    assert isinstance(swapped.head, eqx.nn.Identity)
    assert all(isinstance(part, eqx.nn.Identity) for part in swapped.trunk)
    with pytest.raises(ValueError, match="no such module"):
        tree.swap(net, eqx.nn.Conv2d, lambda old: old)


def test_ravel_round_trips_and_counts(net):
    vector, unravel = tree.ravel(net)
    assert vector.shape == (tree.count(net),) == (2 * (9 + 3) + 6 + 2,)
    assert eqx.tree_equal(unravel(vector), net)
    doubled = unravel(2 * vector)
    assert jnp.array_equal(doubled.head.bias, 2 * net.head.bias)
    assert jnp.array_equal(doubled.steps, net.steps)


@pytest.mark.slow
def test_select_works_on_tracers(net):
    @jax.jit
    def total(params):
        head, _ = tree.partition(params, "head")
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(head))

    params = eqx.filter(net, eqx.is_array)
    expected = jnp.sum(net.head.weight) + jnp.sum(net.head.bias)
    assert jnp.allclose(total(params), expected)
