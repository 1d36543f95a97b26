"""Named streams of keys: no key twice, and no stream that changes another."""

import jax
import numpy as np
import pytest

import jaxprob


def bits(key):
    return bytes(np.asarray(jax.random.key_data(key)))


def streams(*names):
    return jaxprob.KeyStreams(jax.random.key(0), *names)


def test_no_key_comes_twice():
    keys = streams("params", "data")
    given = [bits(keys(name)) for name in ("params", "data") * 20]
    given += [bits(keys.at(name, i)) for name in ("params", "data") for i in range(20)]
    assert len(set(given)) == 80


def test_a_stream_does_not_depend_on_the_others():
    one, other = streams("params", "data"), streams("data", "noise", "params")
    for _ in range(3):
        other("data")
    assert bits(one("params")) == bits(other("params"))
    assert bits(one.at("params", 5)) == bits(other.at("params", 5))


def test_reuse_is_refused():
    keys = streams("step")
    keys.at("step", 7)
    with pytest.raises(ValueError, match="key 7 of 'step' was given out before"):
        keys.at("step", 7)
    keys.at("step", 8)


def test_unknown_and_repeated_names_are_refused():
    with pytest.raises(ValueError, match="no stream 'dropuot': there are params"):
        streams("params")("dropuot")
    with pytest.raises(ValueError, match="'a' is named twice"):
        streams("a", "b", "a")
    with pytest.raises(ValueError, match="at least one stream"):
        streams()


def test_the_repr_says_what_was_given():
    keys = streams("params", "data")
    keys("params")
    assert repr(keys) == "KeyStreams(params: 1 given, data: 0 given)"
    assert keys.names == ("params", "data")
