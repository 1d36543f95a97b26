"""Time of a convolution inside a loop on a CPU, with and without transposed axes.

    python -m benchmarks.convolutions

Processor time of ten steps as ten calls of a compiled step, as a compiled loop, and as
a loop with its convolutions turned; medians of `--repeats` rounds in which the three
take turns. The steps are a network of four convolutions (64 images of 28x28, 32
channels) forwards, and one step of gradient descent.
"""

import argparse
import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxprob._jaxpr.convolutions import with_fast_convolutions

STEPS = 10


def network(key):
    keys = jax.random.split(key, 4)
    silu = eqx.nn.Lambda(jax.nn.silu)
    return eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(1, 32, 3, padding=1, key=keys[0]),
            silu,
            eqx.nn.Conv2d(32, 32, 3, padding=1, stride=2, key=keys[1]),
            silu,
            eqx.nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1, key=keys[2]),
            silu,
            eqx.nn.Conv2d(32, 1, 3, padding=1, key=keys[3]),
        ]
    )


def problems():
    params, static = eqx.partition(network(jax.random.key(0)), eqx.is_array)
    images = jax.random.normal(jax.random.key(1), (64, 1, 28, 28))

    def forwards(carry):
        params, x = carry
        return params, x - 0.1 * jax.vmap(eqx.combine(params, static))(x)

    def descend(carry):
        params, x = carry

        def loss(params):
            return jnp.mean((jax.vmap(eqx.combine(params, static))(x) - x) ** 2)

        grads = jax.grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), x

    return {"forwards": forwards, "descent": descend}, (params, images)


def variants(step, carry):
    one = jax.jit(step)

    def loop(carry):
        return jax.lax.fori_loop(0, STEPS, lambda _, c: step(c), carry)

    def calls(carry):
        for _ in range(STEPS):
            carry = one(carry)
        return carry

    runs = {
        "calls": calls,
        "loop": jax.jit(loop),
        "turned loop": jax.jit(with_fast_convolutions(loop)),
    }
    for run in runs.values():
        jax.block_until_ready(run(carry))
    return runs


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    steps, carry = problems()
    for name, step in steps.items():
        runs = variants(step, carry)
        seconds = {label: [] for label in runs}
        for _ in range(repeats):
            for label, run in runs.items():
                begin = time.process_time()
                jax.block_until_ready(run(carry))
                seconds[label].append(time.process_time() - begin)
        medians = {k: statistics.median(v) for k, v in seconds.items()}
        listing = ", ".join(f"{k} {v:.2f} s" for k, v in medians.items())
        print(f"{name}: {listing}")


if __name__ == "__main__":
    main()
