"""Slips of the pen are answered in a sentence that says what to write."""

# Wrong arguments are the subject of this file.
# pyright: reportArgumentType=false

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob.diffusion import (
    DDIM,
    EDM,
    VP,
    DenoisingLoss,
    DPMSolverPP,
    EDMWeighting,
    ExpAB,
    Guided,
    Heun,
    ODESampler,
    Preconditioned,
    PredictorCorrector,
    RectifiedFlow,
    SDESampler,
    Shifted,
    Thresholded,
    UniformTimes,
    decode,
    dequantise,
    encode,
    interpolate,
    kidger_mixer,
    log_prob,
    nn,
    sample,
)
from tests.unhooked import unhooked

KEY = jax.random.key(0)
PAIR = (np.ones((4, 2), np.float32), np.arange(4))


def net(x, c, cond, *, key=None):
    return 0.0 * x


def denoiser():
    return Preconditioned(net, VP.linear())


def conditional(**kind):
    network = nn.ResidualMLP(2, width=8, depth=1, key=KEY, **kind)
    return Preconditioned(network, VP.linear())


def draw(model=None, sampler=None, **changes):
    model = denoiser() if model is None else model
    sampler = DDIM(2) if sampler is None else sampler
    return sample(
        model, sampler, **({"key": KEY, "num_samples": 3, "shape": (2,)} | changes)
    )


SLIPS = {
    "steps of ExpAB": (lambda: ExpAB(18.0), r"grid=18.0 is a float"),
    "steps of DDIM": (lambda: DDIM(18.5), r"grid=18.5 is a float"),
    "steps of DPM": (lambda: DPMSolverPP(10.0), "grid=10.0 is a float"),
    "steps of Heun": (lambda: Heun(10.0), "grid=10.0 is a float"),
    "steps of an ODE": (lambda: ODESampler(20.0), "grid=20.0"),
    "steps of an SDE": (lambda: SDESampler(20.0), "grid=20.0 is a float"),
    "no steps": (lambda: DDIM(-3), "grid=-3: take at least one step"),
    "corrections": (
        lambda: PredictorCorrector(9, num_corrections=1.0),
        "num_corrections=1.0 is a float",
    ),
    "number": (lambda: draw(num_samples=3.0), "num_samples=3.0 is a float"),
    "shape": (lambda: draw(shape=2), r"shape=2: give .* such as \(2,\)"),
    "shape of floats": (lambda: draw(shape=(2.0,)), r"shape=\(2.0,\)"),
    "sample a network": (lambda: draw(net), r"Preconditioned\(net, schedule\)"),
    "sample a class": (lambda: draw(Preconditioned), "is the class Preconditioned"),
    "sampler's class": (lambda: draw(sampler=ExpAB), r"make one, ExpAB\(...\)"),
    "swapped": (
        lambda: draw(ExpAB(5), denoiser()),
        "sampler is a Preconditioned: give",
    ),
    "guide a network": (lambda: Guided(net, 1.0), r"Preconditioned\(net, schedule\)"),
    "threshold a network": (lambda: Thresholded(net, -1, 1), r"Preconditioned\(net"),
    "guide by NaN": (lambda: Guided(denoiser(), float("nan")), "strength=nan"),
    "density of a network": (lambda: log_prob(net, jnp.ones(2)), r"Preconditioned\("),
    "encode by a network": (lambda: encode(net, jnp.ones(2)), r"Preconditioned\(net"),
    "decode by another": (
        lambda: decode(denoiser(), jnp.ones(2), sampler=ExpAB(5)),
        r"sampler is a ExpAB: give an ODESampler",
    ),
    "train a network": (
        lambda: DenoisingLoss()(net, PAIR[0], key=KEY),
        r"denoiser is a function: wrap a network, Preconditioned",
    ),
    "check a network": (
        lambda: DenoisingLoss().check(net, PAIR[0]),
        r"denoiser is a function: wrap a network, Preconditioned",
    ),
    "schedule's class": (lambda: Preconditioned(net, EDM), r"make one, EDM\(...\)"),
    "schedule's method": (
        lambda: Preconditioned(net, VP.linear),
        r"schedule is a method: make a schedule, e.g. VP.linear\(\)",
    ),
    "schedule's name": (lambda: Preconditioned(net, "vp"), "schedule is a str"),
    "shift a class": (lambda: Shifted(EDM, 2.0), r"make one, EDM\(...\)"),
    "rate": (lambda: VP(10.0), r"int_beta=10.0 is a float.*VP.linear\(\)"),
    "a batch": (
        lambda: denoiser()(jnp.ones((4, 2)), jnp.full(4, 0.5)),
        r"t has shape \(4,\).*jax.vmap\(denoiser\)",
    ),
    "one class": (lambda: draw(cond=1), r"jnp.full\(\(num_samples,\), label\)"),
    "an array of one": (
        lambda: draw(cond=jnp.asarray(1)),
        r"jnp.full\(\(num_samples,\)",
    ),
    "a list": (lambda: draw(cond=[0, 1, 2]), r"jnp.asarray\(labels\) for a list"),
    "a tree": (
        lambda: draw(conditional(num_classes=3), cond={"y": jnp.arange(3)}),
        r"cond is a dict where an Embedding takes one array",
    ),
    "fit a pair": (
        lambda: Preconditioned.fitted(net, EDM(), PAIR),
        r"data is a tuple of 2: give x_0 alone",
    ),
    "weight": (lambda: DenoisingLoss(1.0), r"weighting=1.0 is a float: give the name"),
    "weight's class": (lambda: DenoisingLoss(EDMWeighting), r"EDMWeighting\(...\)"),
    "name of times": (
        lambda: DenoisingLoss("eps", "uniform"),
        r"e.g. UniformTimes\(\)",
    ),
    "class of times": (
        lambda: DenoisingLoss("eps", UniformTimes),
        r"times is the class UniformTimes: make one",
    ),
    "image of two": (lambda: kidger_mixer((8, 8), key=KEY), r"image_shape=\(8, 8\)"),
    "UNet of one": (lambda: nn.UNet((8,), key=KEY), "channels and one to three sizes"),
    "DiT of one": (lambda: nn.DiT((8,), key=KEY), "channels and one to three sizes"),
    "inside jit": (
        lambda: jax.jit(lambda key: draw(key=key).x_0)(KEY),
        r"cannot be traced.*jax.random.split\(key, num_samples\)",
    ),
    "words": (lambda: log_prob(denoiser(), np.zeros(2, complex)), "x is complex64"),
    "opposite": (
        lambda: interpolate(jnp.ones(3), -jnp.ones(3), 0.25),
        "a and b are opposite",
    ),
    "no direction": (lambda: interpolate(jnp.ones(3), jnp.zeros(3), 0.5), "is zero"),
}


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_is_told_with_its_remedy(name):
    call, message = SLIPS[name]
    with unhooked(), pytest.raises((ValueError, TypeError), match=message):
        call()


def test_the_way_out_of_jit_works():
    model, sampler = denoiser(), DDIM(2)

    @jax.jit
    def inside(key):
        keys = jax.random.split(key, 3)
        return jax.vmap(lambda key: sampler(model, (2,), key=key))(keys)

    assert inside(KEY).shape == (3, 2)


@pytest.mark.slow
def test_shapes_may_be_lists():
    with unhooked():
        assert draw(shape=[2]).x_0.shape == (3, 2)
    mixer = nn.Mixer2d([1, 4, 4], 2, 4, 4, 4, 1, key=KEY)
    assert mixer(jnp.ones((1, 4, 4)), jnp.asarray(0.1)).shape == (1, 4, 4)
    for make in (nn.AdaptiveMixer2d, nn.DiT, nn.UNet):
        net = eqx.filter_eval_shape(functools.partial(make, [1, 8, 8], key=KEY))
        assert net.image_shape == (1, 8, 8)


@pytest.mark.slow
def test_an_example_may_be_integers_a_list_or_of_double_precision():
    model, x = denoiser(), jnp.array([1.0, 2.0])
    exact, latent = log_prob(model, x).value, encode(model, x)
    with unhooked():
        assert log_prob(model, [1.0, 2.0]).value == exact
        assert log_prob(model, np.array([1, 2])).value == exact
        assert jnp.array_equal(encode(model, np.array([1.0, 2.0])), latent)
    half = log_prob(model, x.astype(jnp.bfloat16)).value
    assert half.dtype == jnp.float32
    assert half == exact


def test_grey_values_are_dequantised_from_bytes():
    x = np.arange(256, dtype=np.uint8)
    spread = dequantise(x, 1.0, key=KEY)
    assert spread.dtype == jnp.float32
    assert jnp.array_equal(jnp.round(spread).astype(jnp.uint8), x)
    assert jnp.std(spread - x.astype(np.float32)) > 0.2


@pytest.mark.parametrize("make", [VP.linear, RectifiedFlow, lambda: VP(lambda t: t)])
def test_times_may_be_integers(make):
    schedule = make()
    for name in ("alpha", "drift", "squared_diffusion", "alpha_dot", "sigma_dot"):
        of = getattr(schedule, name)
        with unhooked():
            assert jnp.allclose(of(1), of(1.0), equal_nan=True), name


@pytest.mark.slow
def test_opposite_latents_give_nan_while_traced():
    path = jax.jit(lambda a, b: interpolate(a, b, 0.25))
    a = jax.random.normal(KEY, (1000,))
    assert jnp.isnan(path(a, -a)).all()
    assert jnp.isfinite(path(a, a)).all()
