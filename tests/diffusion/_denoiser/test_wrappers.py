"""Wrappers of denoisers forward every capability of what they wrap."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob.diffusion import (
    VP,
    AbstractDenoiser,
    AbstractDenoiserWrapper,
    AbstractSchedule,
    Autoguided,
    Guided,
    Linearised,
    Preconditioned,
    Thresholded,
    nn,
)
from jaxprob.diffusion._denoiser.denoiser import at_level, in_noise_units
from jaxprob.diffusion.nn import AbstractReader, null_is_untrained, reader_of


class Averaged(AbstractDenoiserWrapper):
    """A wrapper as a user may write it: the mean of two equal answers."""

    denoiser: AbstractDenoiser

    def denoise(self, x, level, cond=None, *, key=None):
        answers = [self.denoiser.denoise(x, level, cond, key=key) for _ in range(2)]
        return (answers[0] + answers[1]) / 2.0


class Noisy(nn.AbstractConditioned):
    """A network with dropout, a condition and a scale far from 1."""

    embedding: nn.Embedding
    linear: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __init__(self):
        embed_key, key = jax.random.split(jax.random.key(0))
        self.embedding = nn.Embedding(2, num_classes=3, key=embed_key)
        self.embedding = eqx.tree_at(
            lambda e: e.nothing, self.embedding, jnp.array([0.3, -0.2])
        )
        self.linear = eqx.nn.Linear(2, 2, key=key)
        self.dropout = eqx.nn.Dropout(0.5)

    @property
    def reader(self):
        return self.embedding

    def __call__(self, x, c, cond=None, *, key=None):
        h = self.linear(jnp.tanh(x)) + self.embedding(c, cond)
        return self.dropout(h, key=key)


def network(predict="eps"):
    mean, scale = np.array([100.0, -3.0]), np.array([30.0, 0.1])
    settings: Any = {"mean_data": mean, "sigma_data": scale}
    return Preconditioned(Noisy(), VP.linear(), predict, **settings)


ONE = {
    "guided": lambda d: Guided(d, 1.5),
    "guided in an interval": lambda d: Guided(d, 1.5, interval=(0.1, 2.0)),
    "guided from a null": lambda d: Guided(d, 1.5, null=jnp.asarray(0), rescale=0.5),
    "autoguided": lambda d: Autoguided(
        d,
        eqx.tree_at(lambda d: d.net.linear.bias, d, replace_fn=lambda b: b + 0.1),
        1.5,
    ),
    "linearised": lambda d: Linearised(
        d,
        eqx.tree_at(lambda d: d.net.linear.bias, d, replace_fn=lambda b: b + 0.1),
    ),
    "thresholded": lambda d: Thresholded(d, -3.02, 110.0),
    "thresholded by quantile": lambda d: Thresholded(d, -3.02, 110.0, quantile=0.9),
    "a user's": Averaged,
}
WRAPPERS = ONE | {
    f"{outer} round {inner}": lambda d, o=ONE[outer], i=ONE[inner]: o(i(d))
    for outer in ("guided", "thresholded", "a user's")
    for inner in ("guided", "thresholded", "a user's")
    if (outer, inner) != ("guided", "guided")
}
X, LEVEL, COND = jnp.array([130.0, -3.05]), 0.7, jnp.asarray(1)


def quiet(denoiser):
    return eqx.nn.inference_mode(denoiser)


@pytest.fixture(params=WRAPPERS)
def wrapped(request):
    inner = network()
    return WRAPPERS[request.param](inner), inner


def test_the_schedule_is_forwarded(wrapped):
    wrapper, inner = wrapped
    assert wrapper.schedule is inner.schedule


def test_the_units_are_forwarded(wrapped):
    wrapper, inner = wrapped
    assert wrapper.noise_units().scale == inner.noise_units().scale
    assert wrapper.noise_units().mean == inner.noise_units().mean
    unit, units = wrapper.standardised()
    assert units.known
    assert units.scale == inner.noise_units().scale
    assert unit.noise_units().is_identity
    assert in_noise_units(wrapper)[1].scale == units.scale


def test_the_standardised_wrapper_is_the_wrapper_in_other_units(wrapped):
    wrapper = quiet(wrapped[0])
    unit, units = wrapper.standardised()
    assert type(unit) is type(wrapper)
    there = units.to_data(unit.denoise(units.to_unit(X), LEVEL, COND))
    assert jnp.allclose(there, wrapper.denoise(X, LEVEL, COND), rtol=1e-5)


def test_a_time_is_its_level(wrapped):
    wrapper = quiet(wrapped[0])
    t = jnp.asarray(0.3)
    schedule = wrapper.schedule
    alpha, level = schedule.alpha(t), schedule.level(t)
    there = wrapper.denoise(X, level, COND)
    assert jnp.allclose(wrapper(alpha * X, t, COND), there, rtol=1e-5)


def test_the_reader_of_conditions_is_forwarded(wrapped):
    wrapper, inner = wrapped
    for denoiser in (wrapper, wrapper.standardised()[0]):
        reader = reader_of(denoiser)
        assert isinstance(reader, AbstractReader)
        assert reader.nothing is inner.net.embedding.nothing
        assert not null_is_untrained(denoiser)


def test_the_gain_of_the_networks_error_is_forwarded(wrapped):
    wrapper, inner = wrapped
    gain = inner.output_gain(20.0)
    assert jnp.allclose(gain, 20.0)
    assert wrapper.output_gain(20.0) == gain
    assert wrapper.standardised()[0].output_gain(20.0) == gain


def test_inference_mode_reaches_the_network(wrapped):
    """With dropout on and no key the network raises."""
    wrapper, _ = wrapped
    with pytest.raises(RuntimeError, match="key"):
        wrapper.denoise(X, LEVEL, COND)
    assert jnp.isfinite(at_level(wrapper, X, LEVEL, COND)).all()


def test_the_key_reaches_the_network(wrapped):
    wrapper, _ = wrapped
    keys = jax.random.split(jax.random.key(1), 8)
    answers = jax.vmap(lambda key: wrapper.denoise(X, LEVEL, COND, key=key))(keys)
    assert len(np.unique(np.asarray(answers)[:, 0])) > 1


class WithoutUnits(AbstractDenoiser):
    """A denoiser that holds another and forwards its reader alone."""

    denoiser: AbstractDenoiser
    schedule: AbstractSchedule

    @property
    def reader(self):
        return self.denoiser.reader

    def denoise(self, x, level, cond=None, *, key=None):
        return self.denoiser.denoise(x, level, cond, key=key)


class WithoutReader(AbstractDenoiser):
    """A denoiser that holds another and forwards its units alone."""

    denoiser: AbstractDenoiser
    schedule: AbstractSchedule

    def standardised(self):
        return self.denoiser.standardised()

    def noise_units(self):
        return self.denoiser.noise_units()

    def denoise(self, x, level, cond=None, *, key=None):
        return self.denoiser.denoise(x, level, cond, key=key)


@pytest.mark.parametrize(
    ("wrapper", "lost"),
    [
        (WithoutUnits, r"noise_units\(\) and standardised\(\)"),
        (WithoutReader, "reader"),
    ],
)
def test_a_denoiser_that_loses_a_capability_is_rejected(wrapper, lost):
    message = rf"does not forward its {lost}: make .* AbstractDenoiserWrapper"
    with pytest.raises(TypeError, match=message):
        wrapper(network(), VP.linear())
    plain = Preconditioned(lambda x, c, cond, *, key: x, VP.linear())
    wrapper(plain, VP.linear())
