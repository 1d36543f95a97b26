"""Convolutions turned for the loops of a CPU: the same values, in the fast form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from jaxprob import diffusion
from jaxprob._jaxpr.convolutions import has_convolution, with_fast_convolutions
from jaxprob._jaxpr.switches import without

LAYERS = {
    "one axis": (lambda key: eqx.nn.Conv1d(3, 4, 3, padding=1, key=key), (3, 9)),
    "stride": (lambda key: eqx.nn.Conv2d(3, 4, 3, stride=2, key=key), (3, 9, 7)),
    "dilation": (lambda key: eqx.nn.Conv2d(3, 4, 2, dilation=2, key=key), (3, 9, 7)),
    "groups": (lambda key: eqx.nn.Conv2d(4, 6, 3, groups=2, key=key), (4, 9, 7)),
    "transposed": (
        lambda key: eqx.nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1, key=key),
        (3, 5, 6),
    ),
    "three axes": (lambda key: eqx.nn.Conv3d(2, 3, 2, key=key), (2, 4, 5, 3)),
}


def found(jaxpr):
    """All convolutions of a program, at any depth."""
    own = [e for e in jaxpr.eqns if e.primitive.name == "conv_general_dilated"]
    inner = [s for e in jaxpr.eqns for s in jaxprs_in_params(e.params)]
    return own + [e for sub in inner for e in found(sub)]


def is_turned(equation):
    spec = equation.params["dimension_numbers"]
    num = len(spec.lhs_spec) - 2
    data = (0, num + 1, *range(1, num + 1))
    kernel = (num + 1, num, *range(num))
    return (spec.lhs_spec, spec.rhs_spec, spec.out_spec) == (data, kernel, data)


@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_in_a_loop_are_the_same(name, x64):
    make, shape = LAYERS[name]
    layer = make(jax.random.key(0))
    params, static = eqx.partition(layer, eqx.is_array)
    params = jax.tree.map(lambda a: a.astype(jnp.float64), params)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, *shape)))

    def loop(params, x):
        def loss(params):
            return jnp.mean(jnp.sin(jax.vmap(eqx.combine(params, static))(x)))

        def body(_, params):
            grads = jax.grad(loss)(params)
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

        return jax.lax.fori_loop(0, 2, body, params)

    plain = jax.make_jaxpr(loop)(params, x).jaxpr
    turned = jax.make_jaxpr(with_fast_convolutions(loop))(params, x).jaxpr
    assert not all(map(is_turned, found(plain)))
    assert found(turned)
    assert all(map(is_turned, found(turned)))
    ours, exact = jax.jit(with_fast_convolutions(loop))(params, x), loop(params, x)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True):
        assert np.allclose(a, b, rtol=0.0, atol=1e-12)


def test_branches_rules_and_static_outputs_pass_through():
    kernel = jnp.ones((1, 1, 3))

    @jax.custom_jvp
    def smooth(x):
        return jax.lax.conv(x, kernel, (1,), "SAME")

    smooth.defjvp(lambda p, t: (smooth(*p), 2.0 * smooth(*t)))

    def function(x):
        y = jax.lax.cond(x[0, 0, 0] > 0, smooth, lambda x: x, x)
        return y, None

    x = jnp.arange(1.0, 6.0).reshape(1, 1, 5)
    plain, none = with_fast_convolutions(function)(x)
    assert none is None
    assert np.array_equal(plain, function(x)[0])
    tangent = jax.jvp(lambda x: with_fast_convolutions(function)(x)[0], (x,), (x,))[1]
    assert np.array_equal(tangent, 2.0 * plain)


def test_it_can_be_switched_off():
    with without("convolutions"):
        assert with_fast_convolutions(jnp.sin) is jnp.sin


@pytest.mark.slow
def test_samplers_run_convolutions_turned(monkeypatch):
    """The program that `sample` compiles, and its samples beside the plain one's."""
    from jaxprob.diffusion._sampler import rows as _rows

    sampler, key = diffusion.ODESampler(2), jax.random.key(0)
    net = diffusion.nn.UNet((1, 8, 8), widths=(4,), key=key)
    denoiser = diffusion.Preconditioned(net, diffusion.EDM())

    def draw(key):
        return diffusion.sample(
            denoiser, sampler, key=key, num_samples=2, shape=(1, 8, 8)
        )

    programs = []

    def noted(function):
        inner = with_fast_convolutions(function)

        def run(*args):
            programs.append(jax.make_jaxpr(inner)(*args).jaxpr)
            return inner(*args)

        return run

    monkeypatch.setattr(_rows, "with_fast_convolutions", noted)
    turned = draw(key).x_0
    (program,) = programs
    assert has_convolution(program)
    assert all(map(is_turned, found(program)))
    eqx.clear_caches()
    monkeypatch.setattr(_rows, "with_fast_convolutions", lambda function: function)
    assert np.allclose(draw(key).x_0, turned, atol=1e-4)
    eqx.clear_caches()
