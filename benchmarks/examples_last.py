"""What the examples along the last axis gain a whole `fit`, on a CPU.

    python -m benchmarks.examples_last

Processor time of `jaxprob.fit` of 1000 steps for an ensemble of eight, MAP and
mean-field variational inference, with the trick of `jaxprob/_jaxpr/examples_last.py`
and without it. Both are compiled before; they take turns, and medians of `--repeats`
rounds are printed. The model is a perceptron of 8 inputs and `--width` units in two
layers; batches have `--batch-size` rows.
"""

import argparse
import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import jaxprob
from jaxprob import bnn
from jaxprob._jaxpr.switches import without

STEPS, ROWS = 1000, 1024


def methods():
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), ROWS)
    point = bnn.MAP(joint, optax.adam(1e-3))
    return {
        "ensemble": bnn.DeepEnsemble(point, 8, make="shuffled"),
        "MAP": point,
        "mean-field VI": bnn.MeanFieldVI(joint, optax.adam(1e-3)),
    }


def seconds(method, model, data, batch_size):
    begin = time.process_time()
    jaxprob.fit(
        method,
        model,
        data,
        key=jax.random.key(1),
        num_steps=STEPS,
        batch_size=batch_size,
        steps_per_dispatch=100,
        progress=False,
    )
    return time.process_time() - begin


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--width", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    model = eqx.nn.MLP(8, "scalar", options.width, 2, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(2), (ROWS, 8))
    data = jax.device_get((x, jnp.sin(x).sum(1)))
    for name in methods():
        last, first = methods()[name], methods()[name]
        times: dict[str, list[float]] = {"last": [], "first": []}
        for round in range(options.repeats + 1):
            taken = seconds(last, model, data, options.batch_size)
            with without("examples_last"):
                plain = seconds(first, model, data, options.batch_size)
            if round:  # the first one compiles
                times["last"].append(taken)
                times["first"].append(plain)
        medians = {k: statistics.median(v) for k, v in times.items()}
        print(
            f"{name:14} {medians['first']:7.3f} s plain  {medians['last']:7.3f} s "
            f"examples last  {medians['first'] / medians['last']:5.2f} times as fast"
        )


if __name__ == "__main__":
    main()
