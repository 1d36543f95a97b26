"""One program whose state is split over devices: bytes on each, time, loss.

    python -m benchmarks.scale [--quick]

An MLP 64-512-512-512-1 under Adam with an average of its weights, 256 rows in a batch,
on 1, 2, 4 and 8 devices into which JAX divides a CPU, each number in a process of its
own. Devices of one CPU share its cores: the time shows what the partition costs and no
gain. The bytes are those of the fullest device, counted from the arrays of the state.
With `JAX_ENABLE_X64=1` it all is in double precision.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ._timing import report

DEVICES = (1, 2, 4, 8)
WIDTH, BATCH, DISPATCH = 512, 256, 10


def scene():
    """Learner, model and rows."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    import jaxprob

    @jaxprob.mean_loss
    def loss(model, row, *, key):
        x, y = row
        return jnp.sum((model(x) - y) ** 2)

    learner = jaxprob.GradientDescent(loss, optax.adam(1e-3), ema=jaxprob.EMA(0.99))
    model = eqx.nn.MLP(64, 1, WIDTH, 3, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (DISPATCH, BATCH, 64))
    y = jnp.sin(x[..., :4].sum(-1, keepdims=True))
    return learner, model, [(x[i], y[i]) for i in range(DISPATCH)]


def bytes_on_each(tree) -> list[int]:
    """Return the bytes of a tree's arrays on each device."""
    import jax

    sums: dict[Any, int] = {}
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            sums[shard.device] = sums.get(shard.device, 0) + shard.data.nbytes
    return list(sums.values())


def measure(devices: int, axis: str, dispatches: int) -> dict[str, float]:
    """Return the figures of a training on so many devices."""
    import equinox as eqx
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    import jaxprob

    learner, model, batches = scene()
    stepper = jaxprob.Stepper(
        learner,
        learner.init(model),
        key=jax.random.key(2),
        steps_per_dispatch=DISPATCH,
        layout=None if devices == 1 else _layout(axis, devices),
    )
    losses = stepper(batches)["loss"]  # compiles
    times = []
    for _ in range(dispatches):
        begin = time.perf_counter()
        losses = stepper(batches)["loss"]
        times.append(time.perf_counter() - begin)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        begin = time.perf_counter()
        jaxprob.save(path, eqx.filter(stepper.live, eqx.is_array))
        seconds = time.perf_counter() - begin
    return {
        "bytes": max(bytes_on_each(eqx.filter(stepper.live, eqx.is_array))),
        "ms": 1e3 * min(times) / DISPATCH,
        "loss": float(losses[-1]),
        "save_s": seconds,
    }


def _layout(axis: str, devices: int) -> Any:
    import jaxprob

    if axis == "data":
        return jaxprob.Layout(data=devices)
    return jaxprob.Layout(shard=devices)


def alone(devices: int, axis: str, dispatches: int) -> dict[str, float]:
    """Return the figures of `measure` in a process with so many devices."""
    arguments = ["--devices", str(devices), "--axis", axis]
    arguments += ["--dispatches", str(dispatches)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="50 steps, not 300")
    parser.add_argument("--devices", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--axis", default="shard", help=argparse.SUPPRESS)
    parser.add_argument("--dispatches", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.devices:
        print(json.dumps(measure(args.devices, args.axis, args.dispatches)))
        return
    dispatches = 4 if args.quick else 29
    rows = [("layout", "MB on a device", "of one", "ms a step", "loss", "s to save")]
    figures = {}
    layouts = [("shard", n) for n in DEVICES] + [("data", DEVICES[-1])]
    for axis, devices in layouts:
        found = alone(devices, axis, dispatches)
        name = f"{axis}={devices}" if devices > 1 else "one device"
        figures[name] = found
        share = found["bytes"] / figures["one device"]["bytes"]
        rows.append(
            (
                name,
                f"{found['bytes'] / 1e6:.2f}",
                f"{share:.3f}",
                f"{found['ms']:.1f}",
                f"{found['loss']:.9f}",
                f"{found['save_s']:.2f}",
            )
        )
    report("A state split over devices", rows, figures)


if __name__ == "__main__":
    main()
