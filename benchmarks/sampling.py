"""Time and error of samplers on a Mixer for 28x28 images.

    python -m benchmarks.sampling [--quick]

- The example samples with Tsit5 in fixed steps of 0.1 of its time, 600 evaluations. Its
  error, ours at few evaluations, and the time of each; both errors are against one fine
  solve from the same noise to the same noise level.
- Errors of all samplers at few evaluations, against a fine solve of the same network.
- The reverse SDE in fixed steps by `SDESampler` and by a bare `lax.scan` of the same
  Euler-Maruyama steps.
- Temporary memory of sampling 10,000 images in chunks, from XLA's own count.

With `--weights FILE` the network is one that `benchmarks.quality` trained on MNIST;
otherwise it has the weights of its initialisation, which cost the same time and bend
the flow less.
"""

import argparse
import statistics
import time
from typing import Any

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np

from jaxprob.diffusion import (
    ExpAB,
    FocusedGrid,
    ODESampler,
    SDESampler,
    kidger_mixer,
)
from jaxprob.diffusion._denoiser.denoiser import at_level
from jaxprob.diffusion._sampler.rows import _program
from jaxprob.diffusion._sampler.sample import _Draws

from ._timing import report
from .orders import ROWS
from .quality import SHAPE, our_denoiser

COUNTS = (10, 18, 35)
LEVEL = 0.05  # the example's time 0.1 is noise level 0.32; its last step ends near 0


def _denoiser(small: bool, weights: str | None):
    if weights is not None:
        from jaxprob.lightning import import_safetensors

        return import_safetensors(our_denoiser(), weights)
    settings: dict[str, Any] = {}
    if small:
        settings = {"mix_patch_size": 64, "mix_hidden_size": 64, "num_blocks": 2}
    return kidger_mixer(SHAPE, predict="edm", key=jax.random.key(0), **settings)


def _in_turn(functions: dict, arguments, rounds: int) -> dict[str, float]:
    """Median seconds of each compiled function, the functions taking turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function(*arguments))
    for _ in range(rounds):
        for name, function in functions.items():
            begin = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def flows(denoiser, num: int, rounds: int):
    """Seconds and errors of the example's solve and of ours, from the same noise."""
    schedule = denoiser.schedule
    end = float(schedule.time_of_level(LEVEL))
    high = float(schedule.level(10.0))
    z = jax.random.normal(jax.random.key(1), (num, *SHAPE))

    def example(z):
        """dy/dt = -(y + score)/2 backwards from t = 10, 100 steps of Tsit5."""

        def one(z):
            solution = dfx.diffeqsolve(
                dfx.ODETerm(lambda t, y, _: -0.5 * (y + denoiser.score(y, t))),
                dfx.Tsit5(),
                t0=10.0,
                t1=end,
                dt0=-0.1,
                y0=z,
                adjoint=dfx.ForwardMode(),
            )
            assert solution.ys is not None
            return solution.ys[0] / schedule.alpha(end)

        return jax.vmap(one)(z)

    def ours(steps):
        levels = FocusedGrid(steps).between(high, LEVEL, schedule=schedule, shape=SHAPE)
        scale = jnp.float32(1.0 / schedule.alpha(10.0))
        return jax.jit(jax.vmap(lambda z: ExpAB().steps(denoiser, scale * z, levels)))

    # The example begins with pure noise at t = 10, so the same x there.
    candidates = {"example, Tsit5, 600 evaluations": jax.jit(example)}
    for steps in (18, 35, 58):
        candidates[f"ExpAB, {steps} evaluations"] = ours(steps)
    fine = ODESampler(rtol=1e-6, atol=1e-6)
    scale = jnp.float32(1.0 / schedule.alpha(10.0))
    exact = jax.jit(jax.vmap(lambda z: fine.flow(denoiser, scale * z, high, LEVEL)[0]))(
        z
    )
    seconds = _in_turn(candidates, (z,), rounds)
    errors = {
        name: float(jnp.sqrt(jnp.mean((function(z) - exact) ** 2)))
        for name, function in candidates.items()
    }
    return seconds, errors


def against_fine(denoiser, num: int):
    """Error of each sampler at few evaluations, against a fine solve of its own."""
    schedule = denoiser.schedule
    high, low = float(schedule.level(10.0)), 0.002
    x = jnp.float32(high) * jax.random.normal(jax.random.key(4), (num, *SHAPE))
    fine = ODESampler(rtol=1e-5, atol=1e-5)
    exact = jax.jit(jax.vmap(lambda x: fine.flow(denoiser, x, high, low)[0]))(x)

    def error(row, evaluations):
        sampler, grid, per_step = row
        levels = grid(evaluations // per_step).between(
            high, low, schedule=schedule, shape=SHAPE
        )
        run = jax.jit(jax.vmap(lambda x: sampler.steps(denoiser, x, levels)))
        return float(jnp.sqrt(jnp.mean((run(x) - exact) ** 2)))

    return {name: [error(row, n) for n in COUNTS] for name, row in ROWS.items()}


def sdes(denoiser, num: int, steps: int, rounds: int):
    """Seconds of the reverse SDE by diffrax and by a scan, one batch each."""
    sampler = SDESampler(steps)
    keys = jax.random.split(jax.random.key(2), num)
    levels = sampler.levels(denoiser, SHAPE)

    def scan(key):
        start_key, noise_key = jax.random.split(key)
        x = jnp.float32(levels[0]) * jax.random.normal(start_key, SHAPE)

        def step(x, row):
            i, level, h = row
            noise = jax.random.normal(jax.random.fold_in(noise_key, i), SHAPE)
            d = at_level(denoiser, x, level, None)
            noise = jnp.sqrt(2.0 * h) * level * noise
            return x + 2.0 * h * (d - x) + noise, None

        rows = (jnp.arange(steps), levels[:-1], -np.diff(np.log(levels)))
        rows = tuple(jnp.asarray(row, jnp.result_type(row, jnp.int32)) for row in rows)
        x, _ = jax.lax.scan(step, x, rows)
        return at_level(denoiser, x, levels[-1], None)

    functions = {
        "raw scan": jax.jit(jax.vmap(scan)),
        "SDESampler": jax.jit(jax.vmap(lambda key: sampler(denoiser, SHAPE, key=key))),
    }
    return _in_turn(functions, (keys,), rounds)


def memory(denoiser, num: int, chunk: int) -> float:
    """Temporary megabytes of drawing so many samples in one program."""
    draws = _Draws(ExpAB(4), jax.random.key(0), SHAPE, False)
    rows = (jnp.arange(num, dtype=jnp.uint32), None)
    program = _program.lower(draws, denoiser, rows, chunk, None).compile()
    return program.compiled.memory_analysis().temp_size_in_bytes / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="smaller batch and network"
    )
    parser.add_argument("--weights", metavar="FILE", help="of a trained network")
    arguments = parser.parse_args()
    quick = arguments.quick
    denoiser = _denoiser(quick, arguments.weights)
    num, rounds = (8, 3) if quick else (32, 5)
    seconds, errors = flows(denoiser, num, rounds)
    base = next(iter(seconds))
    rows = [("from noise to level 0.05", "seconds", "times faster", "error")]
    rows += [
        (name, f"{s:.2f}", f"{seconds[base] / s:.1f}", f"{errors[name]:.1e}")
        for name, s in seconds.items()
    ]
    report(f"Probability flow, {num} images", rows, {"s": seconds, "rms": errors})
    found = against_fine(denoiser, 4 * num)
    rows = [("from noise to level 0.002", *map(str, COUNTS))]
    rows += [(name, *(f"{e:.1e}" for e in row)) for name, row in found.items()]
    report("Error per pixel at so many evaluations", rows, found)
    solves = sdes(denoiser, num, 25 if quick else 100, rounds)
    rows = [("reverse SDE, fixed steps", "seconds", "times the scan")]
    rows += [
        (name, f"{s:.3f}", f"{s / solves['raw scan']:.2f}")
        for name, s in solves.items()
    ]
    report("Euler-Maruyama", rows, solves)
    used = {n: memory(denoiser, n, 100) for n in (100, 1_000, 10_000)}
    rows = [("images in chunks of 100", "temporary MB", "of which results")]
    rows += [(f"{n:,}", f"{mb:.1f}", f"{n * 784 * 4e-6:.1f}") for n, mb in used.items()]
    report("Memory of sampling", rows, {str(n): mb for n, mb in used.items()})


if __name__ == "__main__":
    main()
