"""Denoisers made of denoisers: guidance and thresholds; training without condition."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob.diffusion import (
    EDM,
    AbstractDenoiser,
    AbstractSchedule,
    DenoisingLoss,
    ExpAB,
    Guided,
    Preconditioned,
    Thresholded,
    nn,
    sample,
)
from jaxprob.testing import GaussianMixture, GaussianMixtureDenoiser


class TwoClasses(AbstractDenoiser):
    """Class k is N(m_k, c); without a class, the even mixture of both."""

    schedule: AbstractSchedule
    means: jax.Array
    variance: float

    def _mixture(self, weights):
        covariances = jnp.full((2, 1, 1), self.variance)
        mixture = GaussianMixture(weights, self.means[:, None], covariances)
        return GaussianMixtureDenoiser(mixture, self.schedule)

    def denoise(self, x, level, cond=None, *, key=None):
        both = jnp.full(2, 0.5)
        chosen = nn.when_present(cond, lambda k: jax.nn.one_hot(k, 2), both)
        weights = chosen + 1e-30
        return self._mixture(weights).denoise(x, level)


@pytest.fixture
def classes():
    return TwoClasses(EDM(), jnp.array([-1.0, 1.0]), 0.25)


def test_strength_zero_is_the_identity(classes):
    x, t, cond = jnp.array([0.3]), jnp.asarray(0.7), jnp.asarray(1)
    assert jnp.array_equal(Guided(classes, 0.0)(x, t, cond), classes(x, t, cond))


@pytest.mark.slow
def test_guidance_is_the_formula_inside_its_interval(classes):
    x, cond = jnp.array([0.3]), jnp.asarray(1)
    guided = Guided(classes, 1.5, interval=(0.5, 2.0))
    for t, strength in ((0.1, 0.0), (0.7, 1.5), (3.0, 0.0)):
        t = jnp.asarray(t)
        with_it, without = classes(x, t, cond), classes(x, t)
        expected = with_it + strength * (with_it - without)
        assert jnp.allclose(guided(x, t, cond), expected, atol=1e-6)
    assert jnp.allclose(guided(x, t), classes(x, t))


def test_guidance_is_one_call_on_a_doubled_batch():
    calls = []

    def net(x, c, cond, *, key):
        calls.append(1)
        return x * nn.when_present(cond, lambda scale: scale, jnp.asarray(0.0))

    denoiser = Preconditioned(net, EDM(), "x0")
    Guided(denoiser, 1.0)(jnp.ones(2), jnp.asarray(1.0), jnp.asarray(2.0))
    assert len(calls) == 1


@pytest.mark.slow
def test_guidance_sharpens(classes, getkey):
    """Guided samples of class 1 lie further from class 0 than its own do."""
    cond = jnp.ones((2000,), jnp.int32)
    key = getkey()

    def draw(denoiser):
        draws = sample(
            denoiser, ExpAB(12), key=key, num_samples=2000, shape=(1,), cond=cond
        )
        return np.asarray(draws.x_0)

    plain, guided = draw(classes), draw(Guided(classes, 2.0))
    assert abs(plain.mean() - 1.0) < 5.0 * 0.5 / 2000**0.5
    assert abs(plain.std() - 0.5) < 5.0 * 0.5 / 4000**0.5
    assert (guided < 0.0).mean() < 0.3 * (plain < 0.0).mean()


def test_thresholds():
    values = jnp.array([-3.0, -0.5, 0.0, 0.5, 1.5])

    def net(x, c, cond, *, key):
        return values

    denoiser = Preconditioned(net, EDM(), "x0")
    x, t = jnp.zeros(5), jnp.asarray(1.0)
    static = Thresholded(denoiser, -1.0, 1.0)
    assert jnp.array_equal(static(x, t), jnp.clip(values, -1.0, 1.0))
    dynamic = Thresholded(denoiser, -1.0, 1.0, quantile=1.0)
    assert jnp.allclose(dynamic(x, t), values / 3.0)
    # Within the range nothing is stretched.
    wide = Thresholded(denoiser, -5.0, 5.0, quantile=1.0)
    assert jnp.allclose(wide(x, t), values)


@pytest.mark.slow
def test_conditions_are_left_out_at_the_rate_asked_for(getkey):
    def net(x, c, cond, *, key):
        left_out = nn.when_present(cond, lambda cond: jnp.zeros(()), jnp.ones(()))
        return left_out * jnp.ones_like(x)

    denoiser = Preconditioned(net, EDM(), "x0")
    x, cond = jnp.zeros((4000, 1)), jnp.full((4000,), 3)
    for rate in (0.0, 0.25, 1.0):
        loss = DenoisingLoss("x0", cond_dropout=rate)
        value, _ = loss(denoiser, (x, cond), key=getkey())
        # The error is 1 exactly where the condition is left out.
        assert abs(value - rate) <= 5.0 * (rate * (1.0 - rate) / 4000) ** 0.5


@pytest.mark.slow
def test_embedding_reads_no_condition(getkey):
    c = jnp.asarray(0.2)
    classes = nn.Embedding(16, num_classes=3, key=getkey())
    none = nn.no_condition(jnp.asarray(2))
    assert jnp.array_equal(classes(c, none), classes(c))
    assert jnp.isnan(classes(c, jnp.asarray(-1))).all()
    vector = nn.Embedding(16, cond_dim=3, key=getkey())
    none = nn.no_condition(jnp.ones(3))
    assert jnp.array_equal(vector(c, none), vector(c))
    # A value that is not there may be anything, and has no gradient.
    absent = nn.Condition(jnp.full(3, jnp.nan), False)
    grads = eqx.filter_grad(lambda net: jnp.sum(net(c, absent)))(vector)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert jnp.abs(grads.nothing).sum() > 0.0
    assert not grads.vector.weight.any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: Guided(d, 1.0, interval=(2.0, 1.0)), "from a lower"),
        (lambda d: Thresholded(d, 1.0, -1.0), "must be below"),
        (lambda d: Thresholded(d, -1.0, 1.0, quantile=0.0), r"in \(0, 1\]"),
        (lambda d: DenoisingLoss(cond_dropout=2.0), "probability"),
    ],
)
def test_impossible_settings_are_refused(make, message, classes):
    with pytest.raises(ValueError, match=message):
        make(classes)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int8, jnp.int32])
def test_the_last_class_of_few_bits_is_a_class(dtype, getkey):
    embedding = nn.Embedding(8, num_classes=256, key=getkey())
    c = jnp.asarray(0.1)
    last = 255 if dtype != jnp.int8 else 127
    got = embedding(c, jnp.asarray(last, dtype))
    assert jnp.array_equal(got, embedding(c, jnp.asarray(last)))
    assert not jnp.allclose(got, embedding(c))
    none = nn.no_condition(jnp.asarray(last, dtype))
    assert jnp.array_equal(embedding(c, none), embedding(c))


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.float32])
def test_none_of_a_vector_is_none_in_any_dtype(dtype, getkey):
    embedding = nn.Embedding(8, cond_dim=3, key=getkey())
    vector, c = jnp.array([0, 1, 0], dtype), jnp.asarray(0.1)
    assert jnp.array_equal(embedding(c, vector), embedding(c, vector.astype(float)))
    none = nn.no_condition(vector)
    assert jnp.array_equal(embedding(c, none), embedding(c))


class Hears(eqx.Module):
    """A network that gives back what it was told."""

    embedding: nn.Embedding

    def __call__(self, x, c, cond, *, key):
        return x * jnp.sum(self.embedding(c, cond))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_integer_vectors_are_left_out_in_training_and_guidance(dtype, getkey):
    """Left out always, they train the vector of none, and guidance is to that."""
    net = Hears(nn.Embedding(8, cond_dim=3, key=getkey()))
    denoiser = Preconditioned(net, EDM(), "x0")
    x, cond = jnp.ones((3, 2)), np.eye(3, dtype=dtype)
    key, loss = getkey(), DenoisingLoss("x0", cond_dropout=1.0)
    none = DenoisingLoss("x0")(denoiser, (x, None), key=key)[0]
    assert jnp.allclose(loss(denoiser, (x, cond), key=key)[0], none)
    t = jnp.asarray(1.0)
    told, free = denoiser(x[0], t, jnp.asarray(cond[0])), denoiser(x[0], t)
    guided = Guided(denoiser, 2.0)(x[0], t, jnp.asarray(cond[0]))
    assert jnp.allclose(guided, told + 2.0 * (told - free), rtol=1e-5)


def test_booleans_are_refused_as_conditions(getkey):
    embedding = nn.Embedding(8, cond_dim=3, key=getkey())
    rows = np.eye(3, dtype=bool)
    with pytest.raises(TypeError, match=r"cond.astype\(float\) if it is a vector"):
        nn.check_condition(embedding, rows)
    with pytest.raises(TypeError, match=r"cond.astype\(float\) if it is a vector"):
        embedding(jnp.asarray(0.1), jnp.asarray(rows[0]))


class Told(AbstractDenoiser):
    """A denoiser that answers with its condition, or 1 without one."""

    schedule: AbstractSchedule

    def denoise(self, x, level, cond=None, *, key=None):
        value = nn.when_present(cond, lambda c: c, jnp.asarray(1.0))
        return jnp.full_like(x, value)


@pytest.mark.parametrize(
    ("level", "expected"), [(0.3, 3.0), (0.7, 3.0 + 1.5 * 2.0), (2.5, 3.0)]
)
def test_guidance_adds_the_difference_inside_its_interval(level, expected):
    guided = Guided(Told(EDM()), 1.5, interval=(0.5, 2.0))
    x, cond = jnp.zeros(2), jnp.asarray(3.0)
    assert jnp.allclose(guided.denoise(x, level, cond), expected)
    assert jnp.allclose(guided.denoise(x, level), 1.0)
