"""Conditions that may be absent, and networks of a user's own that read them."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob.diffusion import (
    DDIM,
    EDM,
    VP,
    DenoisingLoss,
    Guided,
    ODESampler,
    Preconditioned,
    SDESampler,
    Thresholded,
    decode,
    encode,
    log_prob,
    nn,
    sample,
)
from tests.unhooked import unhooked

KEY = jax.random.key(0)
X = np.random.default_rng(0).standard_normal((16, 2)).astype(np.float32)
LABELS = np.arange(16) % 3


class Table(eqx.Module):
    """A network with a class table of its own."""

    table: eqx.nn.Embedding
    nothing: jax.Array
    knows_none: bool

    def __init__(self, *, knows_none: bool = True):
        self.table = eqx.nn.Embedding(3, 2, key=KEY)
        self.nothing = jnp.array([3.0, -3.0])
        self.knows_none = knows_none

    def __call__(self, x, c, cond: Any = None, *, key=None):
        if self.knows_none:
            return x + nn.when_present(cond, self.table, self.nothing)
        return x + self.table(cond)


def of_table(**settings):
    return Preconditioned(Table(**settings), EDM(), "x0")


def draw(denoiser, cond, **changes):
    settings = {
        "key": KEY,
        "num_samples": len(X),
        "shape": (2,),
        "cond": cond,
    } | changes
    return sample(denoiser, DDIM(2), **settings).x_0


def test_no_condition_is_no_value():
    none = nn.no_condition(jnp.asarray(0))
    assert none.value == 0
    assert not none.present
    with pytest.raises(ValueError, match="scalar"):
        eqx.nn.Embedding(3, 4, key=KEY)(none)


def test_a_table_of_the_users_own_reads_none():
    denoiser, t, c = of_table(), jnp.asarray(1.0), jnp.asarray(2)
    x, net = jnp.zeros(2), denoiser.net
    guided = Guided(denoiser, 2.0)
    free, told, absent, present, led = eqx.filter_jit(
        lambda x, t, c: (
            denoiser(x, t),
            denoiser(x, t, c),
            denoiser(x, t, nn.no_condition(c)),
            denoiser(x, t, nn.as_condition(c)),
            guided(x, t, c),
        )
    )(x, t, c)
    assert jnp.array_equal(free, net.nothing)
    assert jnp.array_equal(told, net.table(c))
    assert jnp.array_equal(absent, free)
    assert jnp.array_equal(present, told)
    assert jnp.allclose(led, told + 2.0 * (told - free))


@pytest.mark.parametrize("known", [0.0, 1.0])
def test_the_loss_leaves_out_a_condition_of_the_users_own(known):
    denoiser = of_table()
    loss, plain = DenoisingLoss("x0", cond_dropout=1.0 - known), DenoisingLoss("x0")
    same, other = (
        nn.Condition(LABELS, np.full(16, flag)) for flag in (known == 1, known == 0)
    )
    value, expected, wrong = eqx.filter_jit(
        lambda: (
            loss(denoiser, (X, LABELS), key=KEY)[0],
            plain(denoiser, (X, same), key=KEY)[0],
            plain(denoiser, (X, other), key=KEY)[0],
        )
    )()
    assert jnp.allclose(value, expected)
    assert not jnp.allclose(value, wrong)


@pytest.mark.parametrize("how", ["dropped", "guided", "absent"])
def test_a_network_that_cannot_read_none_is_named(how):
    denoiser = of_table(knows_none=False)
    cond = nn.Condition(LABELS, LABELS > 0)
    call = {
        "dropped": lambda: DenoisingLoss(cond_dropout=0.5)(
            denoiser, (X, LABELS), key=KEY
        ),
        "guided": lambda: draw(Guided(denoiser, 1.0), LABELS),
        "absent": lambda: draw(denoiser, cond),
    }[how]
    assert jnp.isfinite(draw(denoiser, LABELS)).all()
    with pytest.raises(TypeError, match=r"nn.when_present\(cond, read, nothing\)"):
        call()


def test_another_error_of_a_network_stays_its_own():
    def net(x, c, cond, *, key):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        draw(Guided(Preconditioned(net, EDM()), 1.0), LABELS)


@pytest.mark.parametrize("bad", [-1, 3])
@pytest.mark.parametrize("inside", ["array", "tree"])
def test_a_class_beyond_a_table_is_not_another_class(bad, inside):
    """JAX clamps indices, and counts negative ones from the end."""

    class Tree(eqx.Module):
        net: Callable

        def __call__(self, x, c, cond: Any = None, *, key=None):
            return self.net(x, c, cond["y"], key=key)

    labels = LABELS.copy()
    labels[5] = bad
    net = Table(knows_none=False)
    denoiser, cond = Preconditioned(net, EDM(), "x0"), labels
    if inside == "tree":
        denoiser, cond = Preconditioned(Tree(net), EDM(), "x0"), {"y": labels}
    with pytest.raises(RuntimeError, match=rf"sample 5.*cond, \[{bad}\]"):
        draw(denoiser, cond)
    with pytest.raises(ValueError, match=rf"NaN for cond row 5, .*{bad}.* a class"):
        DenoisingLoss().check(denoiser, (X, cond))
    loss = eqx.filter_jit(DenoisingLoss("x0"))
    assert jnp.isnan(loss(denoiser, (X, cond), key=KEY)[0])


class Small(nn.AbstractConditioned):
    """A network of nearly nothing, whose entrance is an `Embedding`."""

    embedding: nn.Embedding

    @property
    def reader(self):
        return self.embedding

    def __call__(self, x, c, cond=None, *, key=None):
        return x + jnp.sum(self.embedding(c, cond))


def small(**kind):
    return Preconditioned(Small(nn.Embedding(4, **kind, key=KEY)), VP.linear())


class Encoded(eqx.Module):
    """An encoder before a network of ours: only the encoder sees the condition."""

    net: Callable

    def __call__(self, x, c, cond: Any = None, *, key=None):
        return self.net(x, c, jnp.mean(cond, keepdims=True))


class Beside(eqx.Module):
    """The condition beside the input, as an image of low resolution is."""

    net: Callable

    def __call__(self, x, c, cond: Any = None, *, key=None):
        return self.net(jnp.concatenate([x, cond]), c)[:2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["encoded", "beside"])
def test_the_parts_inside_say_nothing_of_the_condition(kind):
    inner = small(cond_dim=1).net
    net = Encoded(inner) if kind == "encoded" else Beside(inner)
    denoiser = Preconditioned(net, VP.linear())
    cond = np.ones((16, 3), np.float32)
    assert draw(denoiser, cond).shape == (16, 2)
    DenoisingLoss().check(denoiser, (X, cond))


@pytest.mark.parametrize("name", ["ResidualMLP", "UNet", "DiT", "AdaptiveMixer2d"])
def test_the_entrance_of_a_network_is_found_through_what_wraps_it(name):
    first = (2,) if name == "ResidualMLP" else ((1, 8, 8),)
    net = eqx.filter_eval_shape(getattr(nn, name), *first, num_classes=3, key=KEY)
    denoiser = Preconditioned(nn.LowPrecision(net), VP.linear())
    wrapped = Guided(Thresholded(denoiser, -3.0, 3.0), 0.0)
    with pytest.raises(ValueError, match="cond row 1 is class 7"):
        nn.check_condition(wrapped, np.array([0, 7]))


def test_classes_are_sampled_on_several_devices():
    """A gather inside `shard_map` rejects a table that is closed over."""
    denoiser, labels = small(num_classes=3), jnp.asarray(LABELS)
    alone = draw(denoiser, labels)
    shared = draw(denoiser, labels, layout=jaxprob.Layout(data=2))
    assert jnp.allclose(alone, shared, atol=1e-5)


def test_a_condition_is_needed_where_none_was_never_trained():
    denoiser, x = small(num_classes=3), jnp.ones(2)
    for call in (
        lambda: draw(denoiser, None),
        lambda: log_prob(denoiser, x),
        lambda: encode(denoiser, x),
        lambda: decode(denoiser, x),
    ):
        with pytest.raises(ValueError, match="cond=None, but the network takes"):
            call()


@pytest.mark.slow
def test_guidance_needs_a_null_that_was_trained():
    denoiser, labels = small(num_classes=3), jnp.asarray(LABELS)
    Guided(denoiser, 0.0)
    with pytest.raises(ValueError, match=r"never trained.*cond_dropout=0.1"):
        Guided(Thresholded(denoiser, -9.0, 9.0), 2.0)
    for rate, trained in ((0.0, False), (0.5, True)):
        learner = jaxprob.GradientDescent(
            DenoisingLoss(cond_dropout=rate), optax.sgd(1e-2), ema=jaxprob.EMA(0.9)
        )
        state = learner.init(denoiser, key=KEY)
        state, _ = eqx.filter_jit(learner.update)(state, (X, labels), key=KEY)
        model = learner.model(state)
        assert nn.null_is_untrained(model) != trained
        if trained:
            assert Guided(model, 2.0).strength == 2.0


def test_a_condition_is_checked_when_made():
    for present, message in (
        (np.ones(16), "give Booleans"),
        ("yes", "give Booleans"),
    ):
        with unhooked(), pytest.raises(TypeError, match=message):
            nn.Condition(LABELS, present)
    with pytest.raises(ValueError, match="one Boolean for each row"):
        nn.Condition(LABELS, np.ones(3, bool))


class Dropped(eqx.Module):
    """A network with dropout that forgets all of its input where it is on."""

    dropout: eqx.nn.Dropout

    def __call__(self, x, c, cond=None, *, key=None):
        return self.dropout(x, key=key)


@pytest.mark.slow
def test_a_model_with_dropout_is_used_in_inference_mode():
    """It trains with a key and is sampled, encoded and weighed without one."""
    net = Dropped(eqx.nn.Dropout(0.9))
    denoiser = Preconditioned(net, VP.linear())
    quiet = Preconditioned(Dropped(eqx.nn.Dropout(0.9, inference=True)), VP.linear())
    x, levels = jnp.ones(2), np.array([3.0, 1.0, 0.1])

    def close(function):
        out = eqx.filter_jit(lambda: (function(denoiser), function(quiet)))()
        return jnp.allclose(*out)

    assert draw(denoiser, None).shape == (16, 2)
    assert close(lambda d: DDIM(3).steps(Thresholded(d, -1.0, 1.0), x, levels))
    assert close(lambda d: encode(d, x, sampler=ODESampler(4)))
    # The rest differs only in what is solved: tracing it meets the dropout.
    eqx.filter_eval_shape(lambda: decode(denoiser, x))
    eqx.filter_eval_shape(lambda: log_prob(denoiser, x).value)
    eqx.filter_eval_shape(lambda: SDESampler(4)(denoiser, (2,), key=KEY))
    # Training still needs its key, and drops.
    with pytest.raises(RuntimeError, match="key"):
        denoiser(x, jnp.asarray(0.5))
    assert not jnp.allclose(denoiser(x, 0.5, key=KEY), quiet(x, 0.5, key=KEY))


@pytest.mark.parametrize("wide", [False, True])
def test_a_network_has_its_input_in_its_own_dtype(wide):
    """A convolution takes no operands of two dtypes."""
    conv = eqx.nn.Conv2d(1, 1, 3, padding=1, key=KEY)

    class Net(eqx.Module):
        conv: eqx.nn.Conv2d

        def __call__(self, x, c, cond, *, key):
            return self.conv(x) + c

    with jax.enable_x64(True):
        x = jnp.ones((1, 4, 4), jnp.float64 if wide else jnp.float32)
        denoiser = Preconditioned(Net(conv), VP.linear())
        out = eqx.filter_eval_shape(denoiser, x, 0.5)
        assert out.dtype == x.dtype
