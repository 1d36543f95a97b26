"""Exported programs give the numbers of `predict` and `sample`, without jaxprob."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxprob import bnn, diffusion, testing
from jaxprob.export import Program, export_predictive, export_sampler

KEY = 3
ELSEWHERE = """
import sys
sys.modules["jaxprob"] = sys.modules["equinox"] = None  # importing them now fails
import jax, numpy as np
given = np.load("given.npz")
predictive, sampler = (
    jax.export.deserialize(bytearray(open(name, "rb").read())) for name in ("p", "s")
)
key = jax.random.key(3)
outputs = predictive.call(key, given["x"])
samples = sampler.call(key, given["index"])
np.savez("found.npz", samples=samples, **outputs)
"""


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def posterior():
    model = bnn.LearnedNoise(eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0)))
    likelihood = bnn.HeteroscedasticNormal()
    log_joint = bnn.LogJoint(likelihood, bnn.FanInNormal(), num_data=7)
    method = bnn.MeanFieldVI(log_joint, optax.adam(1e-2))
    return method.posterior(method.init(model, key=jax.random.key(1)))


@pytest.fixture(scope="module")
def predictive(posterior, x):
    return export_predictive(posterior, bnn.HeteroscedasticNormal(), x, num_samples=20)


@pytest.fixture(scope="module")
def denoiser():
    schedule = diffusion.VP.linear()
    return testing.GaussianMixtureDenoiser(testing.eight_gaussians(), schedule)


@pytest.fixture(scope="module")
def sampler(denoiser):
    return export_sampler(denoiser, diffusion.ExpAB(6), (2,))


def test_the_program_is_the_predictive(predictive, posterior, x):
    likelihood, key = bnn.HeteroscedasticNormal(), jax.random.key(KEY)
    expected = bnn.predict(posterior, likelihood, x, key=key, num_samples=20)
    found = predictive(x, key=key)
    np.testing.assert_allclose(found["mean"], expected.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["std"], expected.std, rtol=1e-5)


def test_it_takes_any_number_of_rows_and_another_key(predictive, x):
    whole = predictive(x, key=jax.random.key(KEY))["mean"]
    part = predictive(x[:3], key=jax.random.key(KEY))["mean"]
    np.testing.assert_allclose(part, whole[:3], rtol=1e-5, atol=1e-6)
    other = predictive(x, key=jax.random.key(KEY + 1))["mean"]
    assert np.abs(other - whole).max() > 1e-3


@pytest.mark.slow
def test_statistics_are_a_choice(posterior, x):
    program = export_predictive(
        posterior,
        bnn.HeteroscedasticNormal(),
        x,
        statistics=lambda p: p.quantile(0.25),
        num_samples=4,
    )
    key = jax.random.key(KEY)
    likelihood = bnn.HeteroscedasticNormal()
    expected = bnn.predict(posterior, likelihood, x, key=key, num_samples=4)
    found = program(x, key=key)
    np.testing.assert_allclose(found, expected.quantile(0.25), atol=1e-4)


def test_the_program_is_the_sampler(sampler, denoiser):
    key = jax.random.key(KEY)
    expected = diffusion.sample(
        denoiser, diffusion.ExpAB(6), key=key, num_samples=5, shape=(2,)
    )
    found = sampler(jnp.arange(5, dtype=jnp.uint32), key=key)
    np.testing.assert_allclose(found, expected.x_0, rtol=1e-4, atol=1e-5)
    # A sample is a function of its index, not of its place.
    last = sampler(jnp.asarray([4], jnp.uint32), key=key)
    np.testing.assert_allclose(last[0], found[4], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_process_without_jaxprob_gives_the_same_bits(
    predictive, sampler, x, tmp_path
):
    index = np.arange(5, dtype=np.uint32)
    predictive.save(tmp_path / "p")
    sampler.save(tmp_path / "s")
    np.savez(tmp_path / "given.npz", x=x, index=index)
    subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=tmp_path, check=True)
    found = np.load(tmp_path / "found.npz")
    key = jax.random.key(KEY)
    here = Program.load(tmp_path / "p")(x, key=key)
    np.testing.assert_array_equal(found["mean"], here["mean"])
    np.testing.assert_array_equal(found["std"], here["std"])
    np.testing.assert_array_equal(found["mean"], predictive(x, key=key)["mean"])
    np.testing.assert_array_equal(found["samples"], sampler(index, key=key))


@pytest.mark.slow
def test_samples_have_their_conditions():
    net = diffusion.nn.ResidualMLP(2, num_classes=3, key=jax.random.key(0))
    denoiser = diffusion.Preconditioned(net, diffusion.VP.linear())
    labels = jnp.asarray([2, 0, 1])
    program = export_sampler(denoiser, diffusion.ExpAB(2), (2,), cond=labels)
    key, index = jax.random.key(KEY), jnp.arange(3, dtype=jnp.uint32)
    expected = jax.vmap(
        lambda i, c: diffusion.ExpAB(2)(
            denoiser, (2,), key=jax.random.fold_in(key, i), cond=c
        )
    )(index, labels)
    np.testing.assert_allclose(program(index, labels, key=key), expected, atol=1e-5)


def test_a_solver_that_calls_python_is_rejected_with_the_remedy(denoiser):
    with pytest.raises(ValueError, match="EQX_ON_ERROR=nan"):
        export_sampler(denoiser, diffusion.ODESampler(), (2,))


def test_wrong_arguments(denoiser, predictive, x, tmp_path):
    with pytest.raises(ValueError, match=r"platforms=\('gpu',\).*cuda"):
        export_sampler(denoiser, diffusion.ExpAB(2), (2,), platforms=["gpu"])
    with pytest.raises(TypeError, match="key"):
        predictive(x, key=0)
    (tmp_path / "no-program").write_bytes(b"not a program")
    with pytest.raises(ValueError, match=r"no exported program.*Program\.save"):
        Program.load(tmp_path / "no-program")


def test_files_without_flatbuffers(predictive, tmp_path, monkeypatch):
    (tmp_path / "p").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    for use in (predictive.save, Program.load):
        with pytest.raises(ModuleNotFoundError, match=r"jaxprob\[export\]"):
            use(tmp_path / "p")
