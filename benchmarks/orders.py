"""Errors of the samplers against the exact flow, and their orders.

    python -m benchmarks.orders [--quick]

Data are eight Gaussians of standard deviation 0.05 on a circle. 256 points of the noise
are carried from noise level 80 to 0.002 in double precision; the error is the root mean
square distance to the exact flow map. The order is the slope between the last two
columns. Heun makes half as many steps of two evaluations.
"""

import argparse
import json

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np

from jaxprob.diffusion import (
    DDIM,
    EDM,
    DPMSolverPP,
    ExpAB,
    FocusedGrid,
    Heun,
    KarrasGrid,
    LogLevelGrid,
    ODESampler,
)
from jaxprob.testing import GaussianMixtureDenoiser, eight_gaussians, reference_flow

HIGH, LOW = 80.0, 0.002
PLAIN = {"corrector": False, "coordinate": "log"}
ROWS = {
    "DDIM": (DDIM(), LogLevelGrid, 1),
    "Heun, Karras grid": (Heun(), KarrasGrid, 2),
    "DPM-Solver++ 2M": (DPMSolverPP(), LogLevelGrid, 1),
    "DPM-Solver++ 3M": (DPMSolverPP(order=3), LogLevelGrid, 1),
    "ExpAB 2, log": (ExpAB(order=2, **PLAIN), LogLevelGrid, 1),
    "ExpAB 3, log": (ExpAB(order=3, **PLAIN), LogLevelGrid, 1),
    "ExpAB 3, corrected, Focused": (ExpAB(order=3), FocusedGrid, 1),
    "ExpAB 2, corrected, log grid": (ExpAB(), LogLevelGrid, 1),
    "default: the same, Focused": (ExpAB(), FocusedGrid, 1),
}


def problem(num: int = 256):
    """The denoiser, the points at the noisy end, and where the exact flow puts them."""
    denoiser = GaussianMixtureDenoiser(eight_gaussians(), EDM(HIGH, t_min=LOW))
    x = HIGH * jax.random.normal(jax.random.key(0), (num, 2))
    exact = jax.jit(jax.vmap(lambda x: reference_flow(denoiser, x, HIGH, LOW)))(x)
    return denoiser, x, exact


def rms(x, exact) -> float:
    """Root mean square distance."""
    return float(jnp.sqrt(jnp.mean(jnp.sum((x - exact) ** 2, axis=-1))))


def fixed(row, evaluations: int, denoiser, x, exact) -> float:
    """Error of one sampler with so many evaluations."""
    sampler, grid, per_step = row
    levels = grid(evaluations // per_step).between(
        HIGH, LOW, schedule=denoiser.schedule, shape=x.shape[1:]
    )
    run = jax.jit(jax.vmap(lambda x: sampler.steps(denoiser, x, levels)))
    return rms(run(x), exact)


def adaptive(tolerance: float, denoiser, x, exact):
    """Error and evaluations (mean, most) of the adaptive flow."""
    sampler = ODESampler(solver=dfx.Tsit5(), rtol=tolerance, atol=tolerance)
    run = jax.jit(jax.vmap(lambda x: sampler.flow(denoiser, x, HIGH, LOW)[:2]))
    out, evaluations = run(x)
    return rms(out, exact), float(jnp.mean(evaluations)), int(jnp.max(evaluations))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer evaluations")
    quick = parser.parse_args().quick
    jax.config.update("jax_enable_x64", True)
    counts = (10, 18, 35) if quick else (10, 18, 35, 70, 140, 280)
    denoiser, x, exact = problem()
    figures: dict[str, list[float]] = {}
    print(f"{'evaluations':28}" + "".join(f"{n:>9}" for n in counts) + "    order")
    for name, row in ROWS.items():
        errors = [fixed(row, n, denoiser, x, exact) for n in counts]
        ratio = np.log(errors[-2] / errors[-1]) / np.log(counts[-1] / counts[-2])
        cells = "".join(f"{error:9.2g}" for error in errors)
        print(f"{name:28}{cells} {ratio:8.2f}", flush=True)
        figures[name] = [*errors, float(ratio)]
    print("\nadaptive Tsit5         tolerance    error  evaluations (mean, most)")
    for tolerance in (1e-4, 5e-5, 1e-5):
        error, mean, most = adaptive(tolerance, denoiser, x, exact)
        print(f"{'':23}{tolerance:9.0e}{error:9.2g}{mean:9.0f}{most:9}", flush=True)
        figures[f"Tsit5 {tolerance:.0e}"] = [error, mean, float(most)]
    print(json.dumps({"evaluations": counts, "errors": figures}))


if __name__ == "__main__":
    main()
