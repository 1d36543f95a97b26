"""The denoising loss as a likelihood: in nats, and with exact posteriors."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from jaxtyping import Array, Float

import jaxprob
from jaxprob import bnn
from jaxprob.diffusion import (
    EDM,
    VP,
    AbstractDenoiser,
    AbstractSchedule,
    Averaged,
    DenoisingLoss,
    DenoisingRows,
    Linearised,
    Preconditioned,
    Scaled,
    UniformLogSNR,
)
from jaxprob.testing import GaussianMixture, GaussianMixtureDenoiser


class Linear(AbstractDenoiser):
    """A denoiser of Gaussian data, linear in its weights: W (x / (1 + s^2), 1)."""

    weight: Float[Array, "2 3"]
    schedule: AbstractSchedule = eqx.field(default_factory=EDM)

    def denoise(self, x, level, cond=None, *, key=None):
        one = jnp.ones((1,), x.dtype) / (1.0 + level)
        return self.weight @ jnp.concatenate([x / (1.0 + level**2), one])


def gaussian_rows(num=12):
    x = np.random.default_rng(0).normal(size=(num, 2))
    return x @ np.array([[1.0, 0.4], [0.0, 0.7]]) + np.array([0.3, -0.2])


def errors(rows, denoiser, x_0, key):
    """The sum of squares in the log-likelihood of one row."""
    x, y = rows(x_0[None], key=key)
    mean, scale = rows.apply(denoiser, jax.tree.map(lambda a: a[0], x), key=None)
    return 0.5 * jnp.sum(((y[0] - mean) / scale) ** 2)


def test_the_posterior_of_a_linear_denoiser_is_exact(x64):
    x_0 = gaussian_rows()
    rows = DenoisingRows(4, temperature=1.7, fresh=False)
    x, y = data = rows(x_0, key=jax.random.key(1))
    joint = bnn.LogJoint(
        bnn.KnownNoiseLikelihood(), dist.Normal(0.0, 0.8), len(x_0), apply=rows.apply
    )

    def outputs(weight):
        return jax.vmap(lambda row: rows.apply(Linear(weight), row, key=None))(x)

    basis = jnp.eye(6).reshape(6, 2, 3)
    design = jax.vmap(lambda w: outputs(w)[0].ravel())(basis).T
    scale = jnp.broadcast_to(outputs(basis[0])[1], y.shape).ravel()
    precision = (design.T / scale[None] ** 2) @ design + jnp.eye(6) / 0.8**2
    mean = jnp.linalg.solve(precision, design.T @ (y.ravel() / scale**2))

    method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)))
    state = method.init(Linear(mean.reshape(2, 3)))
    slope = method.method.gradient(state, data, key=jax.random.key(2))
    np.testing.assert_allclose(slope.weight, 0.0, atol=1e-10)
    posterior = method.posterior(state, [data])
    tau = posterior.tau()
    covariance = posterior.curvature.covariance(tau, jnp.eye(6))
    np.testing.assert_allclose(covariance, jnp.linalg.inv(precision), rtol=1e-6)

    # Its answers are linear in the weights, so a draw is its own linearisation.
    draw, mode = posterior.linearisation_point(key=jax.random.key(3))
    point, level = jnp.array([0.5, -1.0]), jnp.asarray(0.6)
    np.testing.assert_allclose(
        Linearised(mode, draw).denoise(point, level), draw.denoise(point, level)
    )


def test_a_row_is_in_nats():
    """With an exact denoiser the bound is the log-density, up to a constant."""
    mixture = GaussianMixture(
        jnp.array([0.3, 0.7]),
        jnp.array([[2.0, 0.0], [-1.0, 1.0]]),
        jnp.array([[[1.0, 0.3], [0.3, 0.5]], [[0.4, 0.0], [0.0, 0.8]]]),
    )
    # In units in which nothing is 1.
    denoiser = Scaled(GaussianMixtureDenoiser(mixture, VP.linear()), 1.0, 3.0)
    times = UniformLogSNR(0.01, 50.0)
    rows = DenoisingRows(200_000, times=times, temperature=2.0)
    points = jnp.array([[3.0, 4.0], [-2.0, -1.0]])
    first, second = (errors(rows, denoiser, x, jax.random.key(0)) for x in points)
    exact = [mixture.log_prob((x - 1.0) / 3.0) for x in points]
    assert abs(exact[0] - exact[1]) > 1.0
    np.testing.assert_allclose(
        2.0 * (second - first), exact[0] - exact[1], atol=0.03, rtol=0.0
    )


def test_a_row_is_the_loss_of_its_example():
    denoiser, x_0 = Linear(0.3 * jnp.ones((2, 3))), jnp.array([0.5, 1.0])
    loss = DenoisingLoss("v", UniformLogSNR(0.1, 10.0))
    rows = DenoisingRows(20_000, "v", UniformLogSNR(0.1, 10.0), unbiased=False)
    found = errors(rows, denoiser, x_0, jax.random.key(0))
    batch = jnp.broadcast_to(x_0, (20_000, 2))
    exact = 2.0 * loss(denoiser, batch, key=jax.random.key(1))[0]
    np.testing.assert_allclose(found, exact, rtol=0.02)


def test_the_scale_of_an_error_is_its_weight():
    rows = DenoisingRows(1, "x0", unbiased=False, temperature=3.0)
    x, _ = rows(np.ones((1, 2)), key=jax.random.key(5))
    denoiser = Scaled(Linear(jnp.ones((2, 3))), 0.0, jnp.array([2.0, 4.0]))
    _, scale = rows.apply(denoiser, jax.tree.map(lambda a: a[0], x), key=None)
    np.testing.assert_allclose(scale[0], [2.0 * 1.5**0.5, 4.0 * 1.5**0.5], rtol=1e-6)


def test_noise_is_new_by_step_and_by_row_where_it_is_fresh():
    x_0 = np.ones((3, 2), np.float32)
    rows, denoiser = DenoisingRows(2), Linear(jnp.ones((2, 3)))
    x, _ = rows(x_0, key=jax.random.key(0))

    def scales(rows, key):
        return jax.vmap(lambda row: rows.apply(denoiser, row, key=key)[1])(x)[:, :, 0]

    one, two = scales(rows, jax.random.key(1)), scales(rows, jax.random.key(2))
    assert len(np.unique(np.concatenate([one.ravel(), two.ravel()]))) == 12
    kept = DenoisingRows(2, fresh=False)
    np.testing.assert_array_equal(
        scales(kept, jax.random.key(1)), scales(kept, jax.random.key(2))
    )


def test_conditions_and_images_reach_the_denoiser():
    class Shifted(AbstractDenoiser):
        weight: Float[Array, ""]
        schedule: AbstractSchedule = eqx.field(default_factory=EDM)

        def denoise(self, x, level, cond=None, *, key=None):
            return self.weight * cond + 0.0 * x

    rows = DenoisingRows(3)
    x, y = rows(
        np.zeros((4, 1, 2, 2)), np.arange(4, dtype=np.float32), key=jax.random.key(0)
    )
    assert y.shape == (4, 3, 1, 2, 2)
    mean, scale = jax.vmap(
        lambda row: rows.apply(Shifted(jnp.asarray(2.0)), row, key=None)
    )(x)
    assert mean.shape == scale.shape == y.shape
    np.testing.assert_allclose(mean[:, 0, 0, 0, 0], [0.0, 2.0, 4.0, 6.0])


class Net(eqx.Module):
    mlp: eqx.nn.MLP

    def __call__(self, x, c, cond=None, *, key=None):
        return self.mlp(jnp.concatenate([x, c[None]]), key=key)


def small():
    return Preconditioned(Net(eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))), EDM())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ensemble", "ivon", "chains"])
def test_every_kind_of_method_has_a_posterior_over_a_denoiser(name):
    x_0 = gaussian_rows(24).astype(np.float32)
    rows = DenoisingRows(4)
    data = rows(x_0, key=jax.random.key(0))
    joint = bnn.LogJoint(
        bnn.KnownNoiseLikelihood(), bnn.FanInNormal(), len(x_0), apply=rows.apply
    )
    descent = bnn.MAP(joint, optax.adam(1e-2))
    methods = {
        "ensemble": lambda: bnn.DeepEnsemble(descent, 2),
        "ivon": lambda: bnn.IVON(joint, 0.1, beta2=0.5),
        "chains": lambda: bnn.SGHMC(joint, 1e-8, num_warmup=1, thin=1, num_draws=2),
    }
    method = methods[name]()
    settings = {"key": jax.random.key(1), "num_steps": 3, "progress": False}
    start = Linear(jnp.array([[0.5, 0.1, 0.0], [0.2, 0.4, 0.1]]))
    state, _ = jaxprob.fit(method, start, data, **settings)
    posterior = method.posterior(state)
    averaged = Averaged.drawn(posterior.sample, key=jax.random.key(2), num_members=2)
    assert jnp.isfinite(averaged.denoise(jnp.ones(2), 0.5)).all()


def test_layers_with_random_weights_are_sampled_by_one_draw():
    """One draw of the weights for each member, for all levels of a trajectory."""
    swapped = jaxprob.tree.swap(small(), eqx.nn.Linear, bnn.BayesianLinear.of)
    with pytest.raises(ValueError, match=r"bnn\.sample_leaves\(model, key=key\)"):
        swapped.denoise(jnp.ones(2), 0.5)

    def draw(*, key):
        return bnn.sample_leaves(swapped, key=key)

    key = jax.random.key(3)
    averaged = Averaged.drawn(draw, key=key, num_members=2)
    levels = jnp.array([0.1, 1.0, 10.0])
    answers = jax.vmap(lambda s: averaged.denoise(jnp.ones(2), s))(levels)
    exact = [draw(key=jax.random.fold_in(key, k)) for k in range(2)]
    mean = jax.vmap(lambda s: sum(d.denoise(jnp.ones(2), s) for d in exact) / 2)(levels)
    np.testing.assert_allclose(answers, mean, rtol=1e-5)
    assert not np.allclose(*(d.denoise(jnp.ones(2), 1.0) for d in exact), atol=1e-3)


NO_TIMES: Any = "eps"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: DenoisingRows(0), ValueError, "at least one noise level"),
        (lambda: DenoisingRows(temperature=0.0), ValueError, "temperature=0.0"),
        (lambda: DenoisingRows(times=NO_TIMES), TypeError, "times"),
        (
            lambda: DenoisingRows()(np.zeros((0, 2)), key=jax.random.key(0)),
            ValueError,
            "at least one row",
        ),
        (
            lambda: DenoisingRows()(
                np.zeros((3, 2)), np.zeros(2), key=jax.random.key(0)
            ),
            ValueError,
            "cond has 2 rows and x_0 has 3",
        ),
        (
            lambda: DenoisingRows().apply(small(), jnp.ones(2), key=None),
            TypeError,
            r"rows\(x_0, key=key\)",
        ),
        (
            lambda: Linearised(small(), Linear(jnp.ones((2, 3)))),
            ValueError,
            "draw has another structure",
        ),
        (
            lambda: Averaged.drawn(small, key=jax.random.key(0), num_members=0),
            ValueError,
            "at least one member",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
