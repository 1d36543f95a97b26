"""Every posterior comes back from its file, bit for bit, in another process too."""

import collections
import functools
import json
import os
import subprocess
import sys
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob.bnn._mcmc.chain_files import load_shards, save_shard

from ...unhooked import unhooked
from ..modules import make

# A process that is started here finds the programs that were compiled here.
COMPILED = {
    "JAX_COMPILATION_CACHE_DIR": str(cast(Any, jax.config).jax_compilation_cache_dir),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def network(key, width=3):
    return eqx.nn.MLP(2, "scalar", width, 1, activation=jnp.tanh, key=key)


def joint(prior=None):
    prior = prior or bnn.PriorByPath(
        {"layers.0": bnn.IsotropicNormal(0.7), "*": dist.Normal(0.0, 2.0)}
    )
    return bnn.LogJoint(bnn.NormalLikelihood(0.3), prior, num_data=8)


def laplace(model, structure, **kwargs):
    x = jax.random.normal(jax.random.key(1), (8, 2))
    method = bnn.Laplace(bnn.MAP(joint(), optax.sgd(0.1)), structure, **kwargs)
    return method.posterior(method.init(model), [(x, x[:, 0])])


def matrix_free(model):
    x = jax.random.normal(jax.random.key(1), (8, 2))
    method = bnn.MatrixFreeLaplace(bnn.MAP(joint(), optax.sgd(0.1)), num_samples=2)
    return method.posterior(method.init(model), [(x, x[:, 0])], key=jax.random.key(2))


def draws(model):
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    stacked = jax.tree.map(
        lambda a: a[None, None] + jnp.arange(6.0).reshape(2, 3, *(1,) * a.ndim), params
    )
    return bnn.DrawsPosterior(stacked, rest)


def gaussian(model, make, **kwargs):
    method = make(joint(), optax.sgd(0.1), random="layers.1", **kwargs)
    return method.posterior(method.init(model, key=jax.random.key(2)))


def swag(model):
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    variance = jnp.linspace(0.1, 0.2, 13)
    return bnn.SWAGPosterior(params, rest, variance, jnp.ones((2, 13)))


def ensemble(model):
    method = bnn.DeepEnsemble(bnn.MeanFieldVI(joint(), optax.sgd(0.1)), 3)
    return method.posterior(method.init(model, key=jax.random.key(3)))


def blocks(model):
    flags = jaxprob.tree.select(model, "layers.1")
    return bnn.BlocksPosterior(model, (flags,), (bnn.bayesianize(model, "layers.1"),))


def dropout(model) -> Any:
    layers = [model.layers[0], eqx.nn.Dropout(0.2)]
    return bnn.DropoutPosterior(bnn.PointPosterior(eqx.nn.Sequential(layers)))


POSTERIORS = {
    "PointPosterior": bnn.PointPosterior,
    "MeanFieldPosterior": bnn.bayesianize,
    "FullRankPosterior": lambda m: gaussian(m, bnn.FullRankVI),
    "LowRankPosterior": lambda m: gaussian(m, bnn.LowRankVI, rank=2),
    "LaplacePosterior": lambda m: laplace(m, "full", where="layers.1"),
    "LaplacePosterior kronecker": lambda m: laplace(m, "kronecker"),
    "LaplacePosterior low rank": lambda m: laplace(m, "low_rank", rank=8),
    "LaplacePosterior diagonal": lambda m: laplace(m, "diagonal"),
    "LaplaceDraws": matrix_free,
    "SWAGPosterior": swag,
    "DrawsPosterior": draws,
    "EnsemblePosterior": ensemble,
    "DropoutPosterior": dropout,
    "Mixture": lambda m: bnn.Mixture([swag(m), bnn.bayesianize(m)]),
    "BlocksPosterior": blocks,
    "KalmanPosterior": lambda m: bnn.KalmanPosterior.from_prior(m, joint()),
    "PriorModels": lambda m: bnn.PriorModels(m, bnn.FanInNormal(2.0)),
}


def test_the_table_holds_every_posterior():
    names = {
        name
        for name in dir(bnn)
        if isinstance(getattr(bnn, name), type)
        and issubclass(getattr(bnn, name), bnn.AbstractPosterior)
        and not name.startswith("Abstract")
    }
    assert names == {name.split()[0] for name in POSTERIORS}


@pytest.fixture(scope="module")
def posteriors():
    """Each kind, made once."""
    model = network(jax.random.key(0))
    return {name: build(model) for name, build in POSTERIORS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", POSTERIORS)
def test_a_posterior_comes_back_bit_for_bit(tmp_path, getkey, posteriors, name):
    posterior = posteriors[name]
    path = tmp_path / "posterior.safetensors"
    bnn.save_posterior(path, posterior)
    like = network(getkey())
    if name == "DropoutPosterior":
        like = dropout(like).posterior.model
    again = bnn.load_posterior(path, model=like)
    assert type(again) is type(posterior)
    # Functions are the model's own; all else is equal, settings among it.
    assert jax.tree.structure(again) == jax.tree.structure(posterior)
    assert eqx.tree_equal(again, posterior)
    # Of classes that files can name, it needs no model.
    assert eqx.tree_equal(bnn.load_posterior(path), posterior)
    key = getkey()
    assert eqx.tree_equal(again.sample(key=key), posterior.sample(key=key))


SCRIPT = """
import json, sys
import equinox as eqx, jax, jax.numpy as jnp, numpy as np
from jaxprob import bnn
from tests.bnn._posterior.test_save import drawn_by, networks
out = {}
for name, model in networks().items():
    posterior = bnn.load_posterior(sys.argv[1] + "/" + name, model=model)
    numbers = [np.asarray(a).tolist() for a in drawn_by(posterior)]
    out[name] = [type(posterior).__name__, numbers]
print(json.dumps(out))
"""


def networks():
    """What each posterior is over, from a seed of no posterior."""
    plain = network(jax.random.key(9))
    out = dict.fromkeys(POSTERIORS, plain)
    out["DropoutPosterior"] = dropout(plain).posterior.model
    return out | {"running statistics": make("batch norm")[0]}


def drawn_by(posterior):
    """The numbers of a draw, and its output at one input."""
    drawn = posterior.sample(key=jax.random.key(5))
    size = 3 if isinstance(drawn, bnn.Stateful) else 2
    leaves = jax.tree.leaves(eqx.filter(drawn, eqx.is_inexact_array))
    return [*leaves, eqx.nn.inference_mode(drawn)(jnp.linspace(-0.2, 0.3, size))]


def running_statistics():
    """Draws over a model with running statistics, each with its own."""
    model, data = make("batch norm")
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), num_data=6)
    method = bnn.SGLD(joint, 1e-3, num_warmup=0, thin=1, num_draws=2)
    state = method.init(model, key=jax.random.key(0))
    for step in range(2):
        state, _ = method.update(state, data, key=jax.random.key(step))
    return method.posterior(state, [data])


@pytest.mark.slow
def test_a_fresh_process_draws_the_same_models(tmp_path, posteriors):
    """Bit for bit, every posterior, in a process that never saw how it was made."""
    posteriors = posteriors | {"running statistics": running_statistics()}
    expected = {name: drawn_by(posterior) for name, posterior in posteriors.items()}
    for name, posterior in posteriors.items():
        bnn.save_posterior(tmp_path / name, posterior)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | COMPILED,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert list(found) == list(posteriors)
    for name, (kind, numbers) in found.items():
        assert kind == type(posteriors[name]).__name__
        for own, other in zip(expected[name], numbers, strict=True):
            assert np.array_equal(own, np.asarray(other, own.dtype)), name


class Odd(eqx.Module):
    """Leaves that NumPy does not know, and some that are no arrays."""

    half: jax.Array
    wide: jax.Array
    key: jax.Array
    rate: float
    name: str
    hook: object

    @classmethod
    def make(cls, seed, rate=0.5, hook=jnp.tanh, dtype=jnp.bfloat16):
        key = jax.random.key(seed)
        half = jax.random.normal(key, (3,)).astype(dtype)
        wide = jax.random.normal(key, (2, 2), jnp.complex64)
        return cls(half, wide, key, rate, "odd", hook)


@pytest.mark.slow
def test_odd_dtypes_keys_and_settings_come_back(tmp_path):
    path = tmp_path / "odd.safetensors"
    bnn.save_posterior(path, bnn.PointPosterior(Odd.make(1)))
    again = bnn.load_posterior(path, model=Odd.make(2)).mean()
    assert eqx.tree_equal(again, Odd.make(1))
    for model, message in (
        (Odd.make(2, rate=0.4), r": rate: the file has 0\.5, the model has 0\.4"),
        (Odd.make(2, hook=jnp.sin), "hook: the file has tanh, the model has sin"),
        (Odd.make(2, dtype=jnp.float16), r"half: the file has bfloat16\[3\]"),
        ([jnp.zeros(3)], r"the file has Odd.*, the model has list"),
    ):
        with pytest.raises(ValueError, match=message):
            bnn.load_posterior(path, model=model)


def test_another_model_and_other_files_are_refused(tmp_path, getkey):
    path = tmp_path / "posterior.safetensors"
    bnn.save_posterior(path, bnn.bayesianize(network(getkey())))
    with pytest.raises(ValueError, match=r"layers\.0\.weight: .*float32\[4, 2\]"):
        bnn.load_posterior(path, model=network(getkey(), width=4))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut short"):
        bnn.load_posterior(path, model=network(getkey()))
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2)}, path)
    with pytest.raises(ValueError, match="holds no description"):
        bnn.load_posterior(path, model=network(getkey()))


def test_what_no_file_can_hold_is_refused_and_nothing_is_written(tmp_path, getkey):
    model, path = network(getkey()), tmp_path / "posterior.safetensors"
    posterior = bnn.PriorModels(model, lambda path, leaf: dist.Normal(0.0, 1.0))
    with pytest.raises(TypeError, match=r"posterior\.prior is <lambda>"):
        bnn.save_posterior(path, posterior)
    assert not list(tmp_path.iterdir())

    with unhooked():

        class Own(bnn.AbstractPosterior):
            model: eqx.nn.MLP

            def sample(self, *, key):
                return self.model

            def mean(self):
                return self.model

        own = Own(model)
    with pytest.raises(TypeError, match=r"posterior is Own\("):
        bnn.save_posterior(path, own)


@pytest.mark.slow
def test_mixtures_and_transforms_of_numpyro_come_back(tmp_path, getkey):
    model, path = network(getkey()), tmp_path / "posterior.safetensors"
    mixture = dist.MixtureSameFamily(
        dist.Categorical(probs=jnp.array([0.3, 0.7])),
        dist.Normal(jnp.zeros(2), jnp.array([0.1, 1.0])),
    )
    for prior in (mixture, dist.StudentT(4.0, 0.0, 0.5), bnn.ScaleMixtureNormal()):
        bnn.save_posterior(path, bnn.PriorModels(model, prior))
        again = bnn.load_posterior(path, model=model)
        key = getkey()
        assert eqx.tree_equal(
            again.sample(key=key), bnn.PriorModels(model, prior).sample(key=key)
        )


LEAKY = functools.partial(jax.nn.leaky_relu, negative_slope=0.1)


def mlp(activation):
    return eqx.nn.MLP(2, 1, 3, 1, activation=activation, key=jax.random.key(0))


def conv(dilation):
    layer = eqx.nn.Conv1d(1, 2, 3, dilation=dilation, key=jax.random.key(0))
    return eqx.nn.Sequential([layer])


def norm(eps):
    linear = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    return eqx.nn.Sequential([linear, eqx.nn.LayerNorm(3, eps=eps)])


SETTINGS = {
    "lambda": (mlp(lambda v: jnp.sin(v)), mlp(lambda v: jnp.cos(v)), "activation: "),
    "slope": (
        mlp(LEAKY),
        mlp(functools.partial(LEAKY, negative_slope=0.9)),
        r"activation: the file has leaky_relu\(negative_slope=0\.1\), the model has "
        r"leaky_relu\(negative_slope=0\.9\)",
    ),
    "dilation": (conv(1), conv(2), r"layers\.0\.dilation\.0: the file has 1, .* has 2"),
    "eps": (
        norm(1e-5),
        norm(10.0),
        r"layers\.1\.eps: the file has 1e-05, .* has 10\.0",
    ),
}


@pytest.mark.parametrize("make", [bnn.PointPosterior, bnn.bayesianize, draws, ensemble])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_model_of_another_setting_is_rejected_by_name(tmp_path, name, make):
    saved, other, message = SETTINGS[name]
    if make is ensemble and name != "slope":
        pytest.skip("one is enough: training it takes a while")
    path = tmp_path / "posterior.safetensors"
    bnn.save_posterior(path, make(saved))
    assert type(bnn.load_posterior(path, model=saved)) is type(make(saved))
    with pytest.raises(jaxprob.FileMismatchError, match=message):
        bnn.load_posterior(path, model=other)


class Shift(eqx.Module):
    """A module whose bias may be missing, with no setting that says so."""

    weight: jax.Array
    bias: jax.Array | None

    def __call__(self, x):
        return self.weight @ x + (0.0 if self.bias is None else self.bias)


@pytest.mark.parametrize("make", [bnn.PointPosterior, bnn.bayesianize, draws])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_leaf_that_is_missing_is_noticed(tmp_path, make, has_bias):
    bias = jnp.zeros(1) if has_bias else None
    saved = Shift(jnp.ones((1, 2)), bias)
    path = tmp_path / "posterior.safetensors"
    bnn.save_posterior(path, make(saved))
    assert (
        type(bnn.load_posterior(path, model=saved).sample(key=jax.random.key(0)))
        is Shift
    )
    other = Shift(jnp.ones((1, 2)), None if has_bias else jnp.zeros(1))
    with pytest.raises(jaxprob.FileMismatchError, match="bias: the file has"):
        bnn.load_posterior(path, model=other)


def test_a_flipped_bit_of_a_draw_on_disk_is_noticed(tmp_path):
    stats = {"energy": np.ones((2, 3), np.float32)}
    save_shard(tmp_path, 0, np.ones((2, 3, 4), np.float32), stats)
    draws, stored = load_shards(tmp_path, 1)
    assert draws.shape == (2, 3, 4)
    assert stored["energy"].shape == (2, 3)
    (path,) = tmp_path.iterdir()
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(jaxprob.DamagedFileError, match="has changed"):
        load_shards(tmp_path, 1)


def test_an_ordered_dict_comes_back_as_one(tmp_path):
    path = tmp_path / "ordered.safetensors"
    params = collections.OrderedDict(b=jnp.zeros(2), a=jnp.ones(3))
    bnn.save_posterior(path, bnn.PointPosterior(params))
    again = bnn.load_posterior(path, model=params).mean()
    assert jax.tree.structure(again) == jax.tree.structure(params)
    assert eqx.tree_equal(again, params)
