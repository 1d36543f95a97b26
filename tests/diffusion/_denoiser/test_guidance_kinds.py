"""Kinds of guidance against the exact flows of Gaussians."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob.diffusion import (
    EDM,
    AbstractDenoiser,
    AbstractSchedule,
    AbstractVelocityField,
    Autoguided,
    DenoisingLoss,
    ExpAB,
    FlowMatchingLoss,
    Guided,
    ODESampler,
    PairedSource,
    Preconditioned,
    nn,
    sample,
)
from jaxprob.testing import GaussianMixture, GaussianMixtureDenoiser

from ...unhooked import unhooked

KEY = jax.random.key(0)
MEANS, VARIANCE = np.array([[-1.0], [0.5], [2.0]]), 0.25


class Classes(AbstractDenoiser):
    """Class k is N(m_k, c); no class is the mixture of the first two."""

    schedule: AbstractSchedule = EDM()

    def denoise(self, x, level, cond=None, *, key=None):
        free = jnp.array([0.5, 0.5, 0.0])
        weights = nn.when_present(cond, lambda k: jax.nn.one_hot(k, 3), free)
        means = jnp.asarray(MEANS, x.dtype)
        covariances = jnp.full((3, 1, 1), VARIANCE, x.dtype)
        mixture = GaussianMixture(weights + 1e-30, means, covariances)
        return GaussianMixtureDenoiser(mixture, self.schedule).denoise(x, level)


SETTINGS = {"key": KEY, "shape": (1,)}


def draw(denoiser, cond):
    settings = {"num_samples": 4, "cond": cond} | SETTINGS
    return np.asarray(sample(denoiser, ExpAB(24), **settings).x_0)


@pytest.mark.slow
def test_each_sample_has_its_strength_and_its_negative_condition():
    """Away from a Gaussian of the same covariance, a Gaussian is moved and no more.

    D_c - D_n is (1 - k)(m_c - m_n) at each level, so guidance by w is the denoiser of
    N(m_c + w (m_c - m_n), C), and the flow moves with its mean.
    """
    labels, negative = jnp.array([2, 2, 2, 1]), jnp.array([0, 1, 0, 0])
    strength = jnp.array([0.0, 1.0, 1.5, 3.0])
    cond = nn.GuidedCondition(labels, strength=strength, negative=negative)
    moved = draw(Guided(Classes(), None), cond)
    plain = draw(Classes(), labels)
    shift = strength[:, None] * jnp.asarray(MEANS[labels] - MEANS[negative])
    assert np.allclose(moved - plain, shift, atol=2e-3)
    # One value for all samples is the same as one for each.
    alike = draw(Guided(Classes(), 1.5, null=jnp.asarray(0)), labels)
    assert np.allclose(alike[2], moved[2], atol=1e-4)


def test_strength_by_level_is_the_formula(x64):
    x, cond = jnp.array([0.3]), jnp.asarray(1)

    def strength(level) -> Any:
        return 2.0 / (1.0 + level)

    guided = Guided(Classes(), strength, interval=(0.1, 2.0))
    for level in (0.05, 0.5, 3.0):
        conditional = Classes().denoise(x, level, cond)
        free = Classes().denoise(x, level)
        w = 2.0 / (1.0 + level) if 0.1 < level < 2.0 else 0.0
        expected = conditional + w * (conditional - free)
        assert jnp.allclose(guided.denoise(x, level, cond), expected, atol=1e-12)


@pytest.mark.slow
def test_guidance_in_an_interval_follows_the_exact_flow(x64):
    """Inside it the flow is that of the moved Gaussian, outside that of the class."""
    w, high, low = 1.5, 2.0, 0.3
    guided = Guided(Classes(), w, interval=(low, high), null=jnp.asarray(0))
    mean, shift = MEANS[2], w * (MEANS[2] - MEANS[0])
    x = jnp.array([3.0])

    def along(x, centre, level_from, level_to):
        ratio = (VARIANCE + level_to**2) / (VARIANCE + level_from**2)
        return centre + ratio**0.5 * (x - centre)

    expected = along(x, mean, 10.0, high)
    expected = along(expected, mean + shift, high, low)
    expected = along(expected, mean, low, 0.05)
    sampler, cond = ODESampler(rtol=1e-8, atol=1e-8), jnp.asarray(2)
    got = x
    # The strength jumps at the ends, which are left out.
    inner = high * (1.0 - 1e-8), low * (1.0 + 1e-8)
    for level_from, level_to in ((10.0, high), inner, (low, 0.05)):
        got = sampler.flow(guided, got, level_from, level_to, cond=cond)[0]
    assert jnp.allclose(got, expected, atol=1e-5)


def gaussian(variance):
    mixture = GaussianMixture(
        jnp.ones(1), jnp.zeros((1, 2)), variance * jnp.eye(2)[None]
    )
    return GaussianMixtureDenoiser(mixture, EDM())


class InUnits(AbstractDenoiser):
    """A denoiser whose data are standardised by the scale of other data."""

    inner: AbstractDenoiser
    schedule: AbstractSchedule = EDM()

    def denoise(self, x, level, cond=None, *, key=None):
        return self.inner.denoise(x, level, cond, key=key)


def test_autoguidance_follows_the_exact_flow(x64):
    """The slope of D is c/(c + s^2), so that d log x / d log s is affine in both."""
    w, high, low = 0.8, 5.0, 0.05
    guided = Autoguided(InUnits(gaussian(1.0)), InUnits(gaussian(1.5)), w)
    x = jnp.array([2.0, -1.0])
    got, _, _ = ODESampler(rtol=1e-9, atol=1e-9).flow(guided, x, high, low)

    def shrink(c):
        return ((c + low**2) / (c + high**2)) ** 0.5

    expected = x * shrink(1.0) ** (1.0 + w) / shrink(1.5) ** w
    assert jnp.allclose(got, expected, atol=1e-6)
    outside = Autoguided(
        InUnits(gaussian(1.0)),
        InUnits(gaussian(1.5)),
        w,
        interval=(0.1, 1.0),
    )
    assert jnp.allclose(outside.denoise(x, 2.0), gaussian(1.0).denoise(x, 2.0))


def test_a_weak_denoiser_has_the_same_units():
    def net(x, c, cond=None, *, key=None):
        return x

    one, two = (Preconditioned(net, EDM(), sigma_data=s) for s in (1.0, 2.0))
    with pytest.raises(ValueError, match="data of another scale"):
        Autoguided(one, two, 1.0)


class Answers(eqx.Module):
    """A network that answers with its condition, or with 1 without one."""

    def __call__(self, x, c, cond=None, *, key=None):
        scale = nn.when_present(cond, lambda v: v, jnp.asarray(1.0))
        return scale * jnp.arange(4.0) + scale


@pytest.mark.parametrize("units", [{}, {"mean_data": 7.0, "sigma_data": 3.0}])
def test_rescaled_guidance_has_the_spread_of_the_conditional(units):
    denoiser = Preconditioned(Answers(), EDM(), "x0", **units)
    cond, level, x = jnp.asarray(2.0), 0.5, jnp.zeros(4)
    mean, scale = units.get("mean_data", 0.0), units.get("sigma_data", 1.0)
    for phi in (0.3, 1.0):
        guided = Guided(denoiser, 3.0, rescale=phi)
        # Standardised, the conditional is 2 (k + 1), the free one k + 1.
        plain = (2.0 + 3.0 * 1.0) * (jnp.arange(4.0) + 1.0)
        expected = plain * (1.0 - phi + phi * 2.0 / 5.0)
        got = (guided.denoise(x, level, cond) - mean) / scale
        assert jnp.allclose(got, expected, rtol=1e-5)
        unit, map_ = guided.standardised()
        other = map_.to_data(unit.denoise(map_.to_unit(x), level, cond))
        assert jnp.allclose((other - mean) / scale, expected, rtol=1e-5)


def test_a_user_may_have_a_null_of_his_own():
    """The network gets plain numbers, and never an `nn.Condition`."""

    def net(x, c, cond, *, key):
        return cond * jnp.ones_like(x)

    denoiser, x = Preconditioned(net, EDM(), "x0"), jnp.zeros((400, 1))
    cond = jnp.full(400, 3.0)
    guided = Guided(denoiser, 2.0, null=-1.0)
    assert jnp.allclose(guided.denoise(x[0], 0.5, cond[0]), 3.0 + 2.0 * 4.0)
    loss = DenoisingLoss("x0", cond_dropout=0.25, null=-1.0)
    value, _ = loss(denoiser, (x, cond), key=KEY)
    # The error is 9 with the condition and 1 with the null.
    rate = (9.0 - value) / 8.0
    assert abs(rate - 0.25) < 5.0 * (0.25 * 0.75 / 400) ** 0.5


class Denoised(AbstractDenoiser):
    """A denoiser that answers with a network of the condition alone."""

    net: Callable
    schedule: AbstractSchedule = EDM()

    def denoise(self, x, level, cond=None, *, key=None):
        return self.net(cond)


class Moved(AbstractVelocityField):
    """The same as a velocity field."""

    net: Callable

    def velocity(self, x, t, cond=None, *, key=None):
        return self.net(cond)


@pytest.mark.parametrize("kind", ["denoising", "flow"])
def test_conditions_are_left_out_independently(kind):
    """Each coordinate of the answer is an error of 1 where its conditions are there."""

    def there(column, cond):
        one, two = (
            nn.when_present(cond[name], jnp.ones_like, jnp.zeros(()))
            for name in ("a", "b")
        )
        return jnp.stack([one, two, one * two])[column, None]

    num, rates = 4000, {"a": 0.2, "b": 0.6}
    x, cond = jnp.zeros((num, 1)), {"a": jnp.ones(num), "b": jnp.ones(num)}
    loss: Any
    batch: Any = ()
    for column, share in enumerate((0.8, 0.4, 0.8 * 0.4)):
        net = functools.partial(there, column)
        if kind == "denoising":
            loss, model = DenoisingLoss("x0", cond_dropout=rates), Denoised(net)
        else:
            loss, model = (
                FlowMatchingLoss(PairedSource(), cond_dropout=rates),
                Moved(net),
            )
        batch = (x, cond) if kind == "denoising" else (x, x, cond)
        value, _ = loss(model, batch, key=KEY)
        assert abs(value - share) < 5.0 * 0.5 / num**0.5
    with pytest.raises(ValueError, match=r"rate of 'a', and cond has \['b'\]"):
        loss.check(model, (*batch[:-1], {"b": cond["b"]}))
    with pytest.raises(TypeError, match=r"rates of \['a', 'b'\], but cond is a"):
        loss.check(model, (*batch[:-1], cond["a"]))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Guided(Classes(), 1.0, rescale=1.5), ValueError, "rescale=1.5"),
        (lambda: Guided(Classes(), np.inf), ValueError, "finite number"),
        (
            lambda: Guided(Classes(), None).denoise(jnp.zeros(1), 1.0, jnp.asarray(1)),
            ValueError,
            r"nn.GuidedCondition\(cond, strength=...\)",
        ),
        (
            lambda: Guided(Classes(), 1.0).denoise(
                jnp.zeros(1),
                1.0,
                nn.GuidedCondition(jnp.asarray(1), strength=jnp.asarray(1.0)),
            ),
            ValueError,
            r"write Guided\(denoiser, None\)",
        ),
        (lambda: nn.GuidedCondition(1, strength=2), TypeError, "array of floats"),
        (
            lambda: DenoisingLoss(cond_dropout={"a": 2.0}),
            ValueError,
            "cond_dropout.'a'",
        ),
    ],
)
def test_impossible_guidance_is_an_error(make, error, message):
    with unhooked(), pytest.raises(error, match=message):
        make()


def test_a_null_and_negatives_are_rows_that_the_network_has():
    embedding = nn.Embedding(4, num_classes=3, key=KEY)

    class Net(nn.AbstractConditioned):
        @property
        def reader(self):
            return embedding

        def __call__(self, x, c, cond=None, *, key=None):
            return x

    denoiser = Preconditioned(Net(), EDM())
    with pytest.raises(ValueError, match="class 7, outside"):
        Guided(denoiser, 1.0, null=7)
    cond = nn.GuidedCondition(jnp.array([0, 1]), negative=jnp.array([0, 9]))
    with pytest.raises(ValueError, match="cond row 1 is class 9"):
        nn.check_condition(Guided(denoiser, 1.0, null=2), cond)
