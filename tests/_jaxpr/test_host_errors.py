"""An error inside a program of several devices ends it: nothing waits for ever."""

import os
import subprocess
import sys
import textwrap

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob._jaxpr.host_errors import checks_give_nan, has_checks

PRELUDE = """
import equinox as eqx, diffrax as dfx, jax, jax.numpy as jnp, numpy as np, optax
import jaxprob
from jaxprob import Layout

x = np.linspace(0.0, 2.0, 64, dtype=np.float32)[:, None]

class Solve(eqx.Module):
    net: eqx.nn.Linear

    def __call__(self, x):
        term = dfx.ODETerm(lambda t, y, args: -self.net(y))
        # Two steps are too few: on one device this raises.
        return dfx.diffeqsolve(
            term, dfx.Tsit5(), 0.0, 1.0, 0.1, x, max_steps=2
        ).ys[0]

class Check(eqx.Module):
    net: eqx.nn.Linear

    def __call__(self, x):
        return self.net(eqx.error_if(x, x > 1.5, "x is too large"))

@jaxprob.mean_loss
def loss(model, x, *, key):
    return jnp.sum((model(x) - 1.0) ** 2)

def fit(model):
    learner = jaxprob.GradientDescent(loss, optax.adam(1e-3))
    jaxprob.fit(
        learner, model, x, key=jax.random.key(0), num_steps=100, progress=False,
        layout=Layout(data=4), steps_per_dispatch=4,
    )
net = eqx.nn.Linear(1, 1, key=jax.random.key(0))
"""

SAMPLE = """
from jaxprob.diffusion import ODESampler, Preconditioned, VP, sample
layout = Layout(data=4)
class Net(eqx.Module):
    def __call__(self, x, c, cond=None, *, key=None):
        return x * 1e4 * jnp.sin(1e4 * c) + cond
denoiser = Preconditioned(Net(), VP.linear(), predict="eps")
cond = layout.put(np.ones((8, 1), np.float32))
sample(denoiser, ODESampler(max_steps=16), key=jax.random.key(0), num_samples=8,
       shape=(1,),
       cond=cond)
"""

PROGRAMS = {
    "error_if in a model": ("fit(Check(net))", "FloatingPointError", "step "),
    "diffrax with throw=True": ("fit(Solve(net))", "FloatingPointError", "on one dev"),
    "a sampler that gives up": (SAMPLE, "RuntimeError", "solver"),
}


# What is left of the time when tracing and compiling are taken off.
TIMED = """
import time
compiling = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: compiling.append(seconds)
)
begin = time.monotonic()
try:
    {program}
except Exception as error:
    print(time.monotonic() - begin - sum(compiling), type(error).__name__, error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_an_error_inside_a_sharded_program_raises_within_ten_seconds(name):
    program, kind, words = PROGRAMS[name]
    code = textwrap.dedent(PRELUDE) + TIMED.format(
        program=textwrap.indent(program.strip(), "    ").strip()
    )
    flags = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=90,  # a program that hangs is killed
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        check=True,
    )
    seconds, found, message = done.stdout.split(maxsplit=2)
    assert found == kind
    assert words in message
    assert float(seconds) < 10


def solve(x):
    term = dfx.ODETerm(lambda t, y, args: -y)
    y = dfx.diffeqsolve(term, dfx.Euler(), 0.0, 1.0, 0.1, x, max_steps=16).ys
    assert y is not None
    return jnp.sum(eqx.error_if(y[0], x > 2.0, "too large") ** 2)


@pytest.mark.slow
def test_checks_are_found_and_give_nan_where_they_would_raise():
    def gradients(x):
        return jax.lax.map(jax.value_and_grad(solve), x)

    good, bad = jnp.ones((3,)), jnp.array([1.0, 3.0, 1.0])
    assert has_checks(jax.make_jaxpr(gradients)(good).jaxpr)
    quiet = jax.jit(checks_give_nan(gradients))
    assert not has_checks(jax.make_jaxpr(quiet)(good).jaxpr)
    for found, expected in zip(quiet(good), gradients(good), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.isnan(quiet(bad)[0]).tolist() == [False, True, False]
    with pytest.raises(RuntimeError, match="too large"):
        jax.block_until_ready(eqx.filter_jit(gradients)(bad))


@pytest.mark.slow
def test_a_failed_check_is_that_of_its_own_part():
    quiet = jax.jit(jax.vmap(checks_give_nan(jax.value_and_grad(solve))))
    values, slopes = quiet(jnp.array([1.0, 3.0, 1.0]))
    assert np.isnan(values).tolist() == [False, True, False]
    np.testing.assert_array_equal(values[0], values[2])
    np.testing.assert_allclose(slopes[0], jax.grad(solve)(1.0), rtol=1e-6)


def test_a_callback_of_the_users_is_no_check():
    def double(x):
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.pure_callback(lambda x: 2 * np.asarray(x), shape, x)

    assert not has_checks(jax.make_jaxpr(double)(jnp.float32(1.0)).jaxpr)
    assert checks_give_nan(double)(jnp.float32(1.0)) == 2.0
