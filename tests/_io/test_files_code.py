"""Code and files: functions are told apart, and no file brings any."""

import functools
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprob
from jaxprob._io import tensor_file
from jaxprob._io.fingerprint import fingerprint

from ..unhooked import unhooked

SCALE = 1.0


def scaled(x):
    return SCALE * jnp.tanh(x)


def calls_scaled(x):
    return scaled(x) + 1.0


def make(function):
    """A function whose name and code are the same for every `function`."""
    return lambda x: function(x)


class Callable:
    def __init__(self, slope):
        self.slope = slope

    def __call__(self, x):
        return self.slope * x

    def method(self, x):
        return self.slope + x


def default(slope):
    def function(x, slope=slope):
        return slope * x

    return function


PAIRS = {
    "code": (lambda x: jnp.sin(x), lambda x: jnp.cos(x)),
    "constant": (lambda x: 0.1 * x, lambda x: 0.9 * x),
    "closure": (make(jnp.sin), make(jnp.cos)),
    "closure over an array": (make(jnp.ones(2).dot), make(jnp.zeros(2).dot)),
    "default": (default(0.1), default(0.9)),
    "partial": tuple(functools.partial(lambda x, s: s * x, s=s) for s in (0.1, 0.9)),
    "partial of a public one": tuple(
        functools.partial(jax.nn.leaky_relu, negative_slope=s) for s in (0.1, 0.9)
    ),
    "nested": (lambda x: (lambda y: y + 1)(x), lambda x: (lambda y: y + 2)(x)),
    "jitted": (jax.jit(lambda x: x + 1), jax.jit(lambda x: x + 2)),
    "vmapped": tuple(jax.vmap(jnp.dot, in_axes=(a, None)) for a in (0, 1)),
    "object": (Callable(0.1), Callable(0.9)),
    "method": (Callable(0.1).method, Callable(0.9).method),
    "custom derivative": (jax.nn.relu, jax.nn.relu6),
}


@pytest.mark.parametrize("name", PAIRS)
def test_another_function_is_rejected_by_name(tmp_path, name):
    one, other = PAIRS[name]
    path = tmp_path / "a"
    jaxprob.save(path, {"activation": one, "w": jnp.ones(2)})
    again = jaxprob.load(path, template={"activation": one, "w": jnp.zeros(2)})
    assert again["w"].tolist() == [1.0, 1.0]
    with pytest.raises(jaxprob.FileMismatchError, match="activation: the file has"):
        jaxprob.load(path, template={"activation": other, "w": jnp.zeros(2)})


def test_the_same_code_written_again_is_accepted(tmp_path):
    jaxprob.save(tmp_path / "a", default(0.5))
    again = jaxprob.load(tmp_path / "a", template=default(0.5))
    assert again(3.0) == 1.5
    assert fingerprint(default(0.5)) == fingerprint(default(0.5))


@pytest.mark.parametrize("function", [scaled, calls_scaled])
def test_a_global_number_that_a_function_reads_is_a_setting(monkeypatch, function):
    before = fingerprint(function)
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert fingerprint(function) != before


def as_written():
    class Net(eqx.Module):
        """As a user writes one."""

        weight: jax.Array
        power: int = eqx.field(static=True)

        def __call__(self, x):
            return (self.weight @ x) ** self.power

    return Net


with unhooked():
    Original = as_written()
    Original.__qualname__ = "Net"

    class Net(eqx.Module):
        """As the user has changed it since."""

        weight: jax.Array
        power: int = eqx.field(static=True)

        def __call__(self, x):
            return (self.weight @ x) ** self.power + 1.0


def test_a_class_of_the_users_is_given(tmp_path):
    path = tmp_path / "a"
    jaxprob.save(path, Net(jnp.ones((1, 2)), 2))
    with pytest.raises(jaxprob.FileMismatchError, match=r"holds .*\.Net: code that no"):
        jaxprob.load(path)
    for again in (
        jaxprob.load(path, using=[Net]),
        jaxprob.load(path, template=Net(jnp.zeros((1, 2)), 2)),
        jaxprob.load(
            path, template=eqx.filter_eval_shape(lambda: Net(jnp.ones((1, 2)), 2))
        ),
    ):
        assert type(again) is Net
        assert again(jnp.ones(2)).tolist() == [5.0]
    with pytest.raises(jaxprob.FileMismatchError, match="power: the file has 2"):
        jaxprob.load(path, template=Net(jnp.zeros((1, 2)), 3))
    with pytest.warns(UserWarning, match=r"other code in .*Net\.__call__"):
        jaxprob.load(path, template=Original(jnp.zeros((1, 2)), 2))


def test_a_script_is_a_module_when_it_is_imported(tmp_path, monkeypatch):
    """What `python train.py` wrote is read by `from train import Net`."""
    path = tmp_path / "a"
    monkeypatch.setattr(Net, "__module__", "__main__")
    monkeypatch.setattr(scaled, "__module__", "__main__")
    jaxprob.save(path, (Net(jnp.ones((1, 2)), 2), scaled))
    monkeypatch.undo()
    like = Net(jnp.zeros((1, 2)), 2), scaled
    for again in (
        jaxprob.load(path, template=like),
        jaxprob.load(path, using=[Net, scaled]),
    ):
        assert type(again[0]) is Net
        assert again[1] is scaled


def test_a_function_of_the_users_is_given(tmp_path):
    model = eqx.nn.MLP(2, 1, 4, 1, activation=scaled, key=jax.random.key(0))
    jaxprob.save(tmp_path / "a", model)
    with pytest.raises(jaxprob.FileMismatchError, match=r"holds .*code.scaled"):
        jaxprob.load(tmp_path / "a")
    again = jaxprob.load(tmp_path / "a", using=[scaled])
    assert again.activation is scaled
    with pytest.raises(jaxprob.FileMismatchError, match="scaled"):
        jaxprob.load(tmp_path / "a", using=[calls_scaled])


ARRAY = {"array": "w", "dtype": "float32", "shape": [2]}
LINEAR = {"weight": ARRAY, "bias": None, "in_features": 2, "out_features": "scalar",
          "use_bias": False}  # fmt: skip
HOSTILE = {
    "shell": {"function": "os.system"},
    "eval": {"function": "builtins.eval"},
    "dotted": {"function": "jax.numpy.os.system"},
    "writes files": {"function": "jax.numpy.save"},
    "reads files": {"function": "jax.numpy.load"},
    "calls back": {"function": "jax.numpy.frompyfunc"},
    "our own function": {"function": "jaxprob.save"},
    "process": {"class": "subprocess.Popen", "fields": {"args": "true"}},
    "numpy's class": {"type": "numpy.memmap"},
    "path": {"class": "pathlib.PosixPath", "fields": {}},
    "a class of another module": {"class": "jaxprob.diffusion.partial", "fields": {}},
    "bridge": {"class": "jaxprob.lightning.LearnerModule", "fields": {}},
    "a type to call": {"type": "builtins.eval"},
    "constructor": {"method": "__init__", "self": {"class": "equinox.nn.Linear",
                                                  "fields": LINEAR}},
    "dunder": {"class": "jaxprob.estimators.BNNRegressor", "fields": {
        "__class__": {"type": "equinox.nn.Linear"}}},
    "another field": {"class": "equinox.nn.Linear", "fields": {
        **LINEAR, "__call__": {"function": "jax.numpy.sin"}}},
    "fewer fields": {"class": "equinox.nn.Linear", "fields": {"weight": ARRAY}},
    "partial of no function": {"partial": 3, "args": [], "keywords": {}},
    "numpyro": {"distribution": "constraints", "fields": {}, "settings": {}},
    "numpyro's inside": {"distribution": "Normal", "fields": {"__class__": 1},
                         "settings": {}},
    "larger than it is": {**ARRAY, "shape": [2**40]},
    "another array": {**ARRAY, "array": "v"},
    "objects": {**ARRAY, "dtype": "object"},
    "nothing": {"what": 1},
}  # fmt: skip


@pytest.mark.parametrize("depth", [300, 100_000])
def test_a_deep_description_is_no_crash(tmp_path, depth):
    text = '{"list": [' * depth + "1" + "]}" * depth
    texts = {"jaxprob.format": "1", "jaxprob.versions": "{}", "jaxprob.tree": text}
    tensor_file.write(tmp_path / "a", {}, texts)
    with pytest.raises(jaxprob.DamagedFileError):
        jaxprob.load(tmp_path / "a")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_can_name_nothing_else(tmp_path, name):
    """Its hash fits: whoever makes such a file can compute that too."""
    texts = {
        "jaxprob.format": "1",
        "jaxprob.versions": "{}",
        "jaxprob.tree": json.dumps({"tuple": [ARRAY, HOSTILE[name]]}),
    }
    tensor_file.write(tmp_path / "a", {"w": np.zeros(2, np.float32)}, texts)
    try:
        _, made = jaxprob.load(tmp_path / "a")
    except (jaxprob.DamagedFileError, jaxprob.FileMismatchError):
        return
    assert name == "dunder"  # the attribute is left out
    assert type(made).__name__ == "BNNRegressor"
