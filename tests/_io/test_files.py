"""Files of `jaxprob.save`: any tree, its settings, and no other tree's."""

import copy
import functools
import json
import os
import pathlib
import stat
import struct

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxprob
from jaxprob import bnn, diffusion
from jaxprob._io import tensor_file
from jaxprob._io.describe import describe
from jaxprob._io.differences import Comparison
from jaxprob._io.registry import class_name
from jaxprob.datasets import Standardizer

KEY = jax.random.key(0)


def net():
    return diffusion.nn.ResidualMLP(2, width=4, depth=1, key=KEY)


def denoiser(schedule=None, predict="edm", **kwargs):
    schedule = diffusion.VP.linear() if schedule is None else schedule
    return diffusion.Preconditioned(net(), schedule, predict, **kwargs)


SCHEDULES = {
    "VP": diffusion.VP.linear(),
    "SubVP": diffusion.SubVP(),
    "VE": diffusion.VE(),
    "EDM": diffusion.EDM(),
    "Cosine": diffusion.Cosine(),
    "RectifiedFlow": diffusion.RectifiedFlow(),
    "Shifted": diffusion.Shifted(diffusion.EDM(), 2.0),
}
NETWORKS = {
    "ResidualMLP": net,
    "UNet": lambda: diffusion.nn.UNet((1, 4, 4), widths=(4,), num_heads=2, key=KEY),
    "DiT": lambda: diffusion.nn.DiT(
        (1, 4, 4), patch_size=2, width=8, depth=1, num_heads=2, key=KEY
    ),
    "Mixer2d": lambda: diffusion.nn.Mixer2d(
        (1, 4, 4), 2, hidden_size=4, mix_patch_size=4, mix_hidden_size=4,
        num_blocks=1, key=KEY,
    ),
    "LowPrecision": lambda: diffusion.nn.LowPrecision(net()),
}  # fmt: skip


def mlp(**kwargs):
    return eqx.nn.MLP(2, 1, 4, 1, key=KEY, **kwargs)


def stateful():
    layer, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(2, "batch", mode="ema")
    return bnn.Stateful(layer, state)


def state_of_descent():
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    learner = jaxprob.GradientDescent(diffusion.DenoisingLoss(), optimizer)
    return learner.init(denoiser(), key=KEY)


def state_of_vi():
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=8)
    return bnn.MeanFieldVI(joint, optax.sgd(0.1)).init(mlp(), key=KEY)


def convolutions():
    conv = eqx.nn.Conv2d(1, 2, 3, dilation=2, padding="SAME", key=KEY)
    layers = [conv, eqx.nn.AvgPool2d(2), eqx.nn.Lambda(jnp.ravel), eqx.nn.Dropout(0.3)]
    return eqx.nn.Sequential(layers)


def scaler():
    return Standardizer(np.array([1e8, 0.1]), np.array([2.0, 3.0]))


TREES = {
    **{f"schedule {name}": lambda s=s: s for name, s in SCHEDULES.items()},
    "guided": lambda: diffusion.Guided(denoiser(), 2.0),
    "sampler": lambda: diffusion.ODESampler(diffusion.KarrasGrid(4)),
    "loss": lambda: diffusion.DenoisingLoss(diffusion.MinSNR(float("inf"))),
    "partial": lambda: mlp(
        activation=functools.partial(jax.nn.leaky_relu, negative_slope=0.1)
    ),
    "jitted": lambda: mlp(activation=jax.nn.silu, final_activation=jnp.tanh),
    "convolutions": convolutions,
    "stateful": stateful,
    "learner's state": state_of_descent,
    "state of VI": state_of_vi,
    "bayesianized": lambda: bnn.bayesianize(mlp()),
    "prior": lambda: bnn.PriorByPath({"*": dist.StudentT(3.0, 0.0, 1.0)}),
    "scaler": scaler,
    "pair": lambda: {"denoiser": denoiser(), "x_scaler": scaler()},
    "numbers": lambda: (
        *(1, 2.5, True, None, "text", float("nan"), 1j, b"\0x", jnp.float16),
        {1: "one", (2, 3): ...},
    ),
    "keys": lambda: [KEY, jax.random.split(jax.random.key(1, impl="rbg"), 3)],
    "dtypes": lambda: [
        jnp.ones(shape).astype(dtype)
        for dtype in ("bool", "int4", "bfloat16", "float8_e4m3fn", "complex64")
        for shape in ((), (0,), (2, 3))
    ],
    "numpy": lambda: [np.arange(3.0), np.float64(0.7), np.array(["a", "bc"])],
}


def assert_same(a, b):
    """Same structure, static fields, values and dtypes, bit for bit."""
    (spec, arrays), (other, others) = describe(a), describe(b)
    assert json.dumps(spec) == json.dumps(other)
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        assert type(array) is type(others[name])
        bits = [
            np.asarray(jax.random.key_data(x) if "key" in str(x.dtype) else x).tobytes()
            for x in (array, others[name])
        ]
        assert bits[0] == bits[1], name


@pytest.mark.parametrize("name", TREES)
def test_a_tree_comes_back_without_code(tmp_path, name):
    path, tree = tmp_path / "a.safetensors", TREES[name]()
    jaxprob.save(path, tree)
    assert_same(jaxprob.load(path), tree)
    assert_same(jaxprob.load(path, template=tree), tree)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_denoiser_of_each_network_comes_back(tmp_path, name):
    saved = diffusion.Preconditioned(NETWORKS[name](), SCHEDULES["VP"], "v")
    jaxprob.save(tmp_path / "a", saved)
    assert_same(jaxprob.load(tmp_path / "a"), saved)


@pytest.mark.slow
def test_a_denoiser_computes_the_same(tmp_path):
    x = jnp.array([0.3, -1.0])
    jaxprob.save(tmp_path / "a", denoiser())
    assert jnp.array_equal(jaxprob.load(tmp_path / "a")(x, 0.5), denoiser()(x, 0.5))


def places(spec, path=""):
    """Path, holder and key of each constant and function of a description."""
    if isinstance(spec, list):
        items = enumerate(spec)
    elif isinstance(spec, dict):
        items = spec.items()
    else:
        return
    for key, value in items:
        inside = key not in ("fields", "settings", "tuple", "list", "dict", "self")
        here = f"{path}.{key}".lstrip(".") if inside else path
        leaf = value is None or isinstance(value, bool | int | float | str)
        function = isinstance(value, dict) and ("function" in value or "float" in value)
        if isinstance(value, dict) and ("array" in value or "partial" in value):
            continue
        if function or (leaf and key not in ("class", "method", "distribution")):
            yield here, spec, key
        else:
            yield from places(value, here)


@pytest.mark.parametrize(
    "name",
    ["schedule VP", "schedule Shifted", "guided", "sampler", "jitted", "convolutions",
     "learner's state", "bayesianized", "prior"],
)  # fmt: skip
def test_each_setting_is_rejected_by_its_name(name):
    """Every constant and every function in turn is another one."""
    spec, _ = describe(TREES[name]())
    count = 0
    for path, holder, key in places(copied := copy.deepcopy(spec)):
        value = holder[key]
        if path.split(".")[-1] == "inference":  # a mode
            continue
        other = {"function": "jax.numpy.sin"} if isinstance(value, dict) else "other"
        holder[key] = other
        comparison = Comparison()
        comparison.compare(copied, spec)
        holder[key] = value
        assert len(comparison.differences) == 1, (path, comparison.differences)
        assert comparison.differences[0].startswith(f"{path}: ")
        count += 1
    assert count >= 2


OTHERS = {
    "schedule": (
        lambda: denoiser(SCHEDULES["EDM"]),
        r"schedule: the file has VP.*has EDM",
    ),
    "predict": (
        lambda: denoiser(predict="eps"),
        "predict: the file has 'edm', .* 'eps'",
    ),
    "sigma_data": (
        lambda: denoiser(sigma_data=0.5),
        r"sigma_data: the file has 1\.0, .* 0\.5",
    ),
    "rate": (
        lambda: denoiser(diffusion.VP.linear(0.2)),
        r"beta_min: the file has 0\.1",
    ),
    "class": (net, "the file has Preconditioned.*, the model has ResidualMLP"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_denoiser_is_rejected(tmp_path, name):
    other, message = OTHERS[name]
    jaxprob.save(tmp_path / "a", denoiser())
    with pytest.raises(jaxprob.FileMismatchError, match=message):
        jaxprob.load(tmp_path / "a", template=other())


def test_a_file_of_another_program(tmp_path):
    """Names, shapes and dtypes are compared; of ours, settings too."""
    from safetensors.numpy import save_file

    path, like = tmp_path / "a", {"w": jnp.zeros(3), "f": jnp.tanh}
    save_file({"w": np.arange(3, dtype=np.float32)}, path)
    with pytest.raises(jaxprob.DamagedFileError, match="load_weights"):
        jaxprob.load(path, template=like)
    assert jaxprob.load_weights(path, like)["w"].tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(jaxprob.FileMismatchError, match="v: the file lacks it; w: not"):
        jaxprob.load_weights(path, {"v": jnp.zeros(3)})
    with pytest.raises(
        jaxprob.FileMismatchError, match=r"w: the file has float32\[3\]"
    ):
        jaxprob.load_weights(path, {"w": jnp.zeros(4)})
    jaxprob.save(path, denoiser())
    with pytest.warns(UserWarning, match="predict: the file has 'edm'"):
        jaxprob.load_weights(path, denoiser(predict="eps"))


def test_files_get_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        jaxprob.save(tmp_path / "a", jnp.ones(2))
        os.chmod(tmp_path / "a", 0o600)  # kept where the file was there before
        jaxprob.save(tmp_path / "a", jnp.ones(2))
        jaxprob.save(tmp_path / "b", jnp.ones(2))
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"]
    assert modes == [0o600, 0o640]


def test_a_flipped_bit_is_noticed(tmp_path):
    """Anywhere in the file: no setting and no weight is silently another one."""
    path = tmp_path / "a.safetensors"
    saved = {"w": jnp.arange(4.0), "rate": 0.5}
    jaxprob.save(path, saved)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(
            whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]
        )
        try:
            assert_same(jaxprob.load(path), saved)  # a space in the header
        except jaxprob.DamagedFileError:
            continue
        assert whole[place : place + 1] == b" ", place
    path.write_bytes(whole[:-1])
    with pytest.raises(jaxprob.DamagedFileError, match="cut short"):
        jaxprob.load(path)


def test_a_file_says_who_wrote_it_and_a_newer_format_is_named(tmp_path):
    path = tmp_path / "a"
    jaxprob.save(path, jnp.ones(2))
    arrays, texts = tensor_file.read(path)
    versions = json.loads(texts["jaxprob.versions"])
    assert versions["jaxprob"] == jaxprob.__version__
    assert versions.keys() >= {"jax", "equinox", "python"}
    tensor_file.write(path, arrays, texts | {"jaxprob.format": "99"})
    with pytest.raises(jaxprob.DamagedFileError, match=r"format 99, .* newer jaxprob"):
        jaxprob.load(path)


def test_a_url_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="URL"):
        jaxprob.save("s3://bucket/a", jnp.ones(2))
    assert not list(tmp_path.iterdir())


def test_what_is_traced_or_used_up_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match=r"w is being traced"):
        jax.jit(lambda w: jaxprob.save(tmp_path / "a", {"w": w}))(jnp.ones(2))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_every_module_of_ours_has_a_name_in_files():
    """Private ones too, each its own: two of one name would be mixed up."""
    import importlib
    import pkgutil

    for _, name, _ in pkgutil.walk_packages(jaxprob.__path__, "jaxprob."):
        if name.startswith(("jaxprob.lightning", "jaxprob.plot")):
            continue
        module = importlib.import_module(name)
        for cls in vars(module).values():
            own = isinstance(cls, type) and cls.__module__ == name
            if own and issubclass(cls, eqx.Module):
                assert class_name(cls) is not None, cls


def header_of(path: pathlib.Path) -> dict:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length])


def test_another_program_reads_the_arrays_by_the_paths_of_leaves(tmp_path):
    model = eqx.nn.MLP(2, 1, 4, 1, key=KEY)
    jaxprob.save(tmp_path / "a", model)
    names = header_of(tmp_path / "a").keys() - {"__metadata__"}
    assert names == {f"layers.{i}.{n}" for i in (0, 1) for n in ("weight", "bias")}
    assert jaxprob.load_weights(tmp_path / "a", model) is not model
