"""Tricks can be turned off, in a block or by the environment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob._jaxpr import switches
from jaxprob._jaxpr.batch_second import batch_second
from jaxprob._jaxpr.examples_last import vmap_last
from jaxprob._jaxpr.switches import TRICKS, is_on, without


def test_a_block_turns_some_off_and_on_again():
    with without("convolutions"):
        assert [is_on(trick) for trick in TRICKS] == [True, False, True]
        with without(*TRICKS):
            assert not any(map(is_on, TRICKS))
        assert is_on("batch_second")
        assert not is_on("convolutions")
    assert all(map(is_on, TRICKS))


@pytest.mark.parametrize(
    ("text", "off"),
    [
        ("", set()),
        ("all", set(TRICKS)),
        ("convolutions,batch_second", {"convolutions", "batch_second"}),
    ],
)
def test_the_environment_names_tricks(monkeypatch, text, off):
    monkeypatch.setenv("JAXPROB_PLAIN", text)
    assert switches._from_environment() == off


def test_a_name_of_no_trick_is_rejected(monkeypatch):
    monkeypatch.setenv("JAXPROB_PLAIN", "convolutions,vmap")
    with pytest.raises(ValueError, match=r"JAXPROB_PLAIN='vmap' names no trick"):
        switches._from_environment()


def test_programs_are_plain_when_they_are_off():
    weight = jnp.ones((3, 2))

    def affine(x):
        return weight @ x

    rows = jnp.arange(8.0).reshape(4, 2)
    plain = str(jax.make_jaxpr(jax.vmap(affine))(rows))
    assert str(jax.make_jaxpr(vmap_last(affine))(rows)) != plain
    with without("examples_last"):
        assert str(jax.make_jaxpr(vmap_last(affine))(rows)) == plain

    def mixed(x, left):
        return jnp.einsum("ij,jbk->ibk", left, x)

    block = batch_second(mixed, 1, "mixed")
    x, left = jnp.arange(30.0).reshape(5, 2, 3), jnp.ones((2, 2))
    name = "mixed["
    assert " mixed " in str(jax.make_jaxpr(jax.vmap(block, (0, None)))(x, left))
    found = jax.vmap(block, (0, None))(x, left)
    with without("batch_second"):
        jaxpr = str(jax.make_jaxpr(jax.vmap(block, (0, None)))(x, left))
        assert name not in jaxpr
        assert " mixed " not in jaxpr
        assert np.allclose(jax.vmap(block, (0, None))(x, left), found)
