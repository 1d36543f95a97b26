"""Log-densities of 2-D data at equal error: adaptive against fixed steps of 0.1.

    python -m benchmarks.likelihood [--quick]

The model is the exact denoiser of eight Gaussians (standard deviation 0.05 or 0.25)
under VP with B(t) = t and T = 10, so that errors are the solver's alone. The first rows
solve in fixed steps of the model's own time, as the field does; the others are
`log_prob` at several tolerances. Error and time are of one batch.
"""

import argparse
import statistics
import time

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np

from jaxprob.diffusion import VP, log_prob
from jaxprob.testing import GaussianMixtureDenoiser, eight_gaussians

from ._timing import report

SCHEDULE = VP(lambda t: t, t_max=10.0)
LEVEL = 0.02


def problem(std: float, num: int):
    """The denoiser, points of its data with noise of LEVEL, and their densities."""
    denoiser = GaussianMixtureDenoiser(eight_gaussians(std), SCHEDULE)
    smoothed = denoiser.mixture.noised(jnp.asarray(1.0), jnp.asarray(LEVEL))
    x = jax.vmap(lambda key: smoothed.sample(key=key))(
        jax.random.split(jax.random.key(0), num)
    )
    return denoiser, x, jax.vmap(smoothed.log_prob)(x)


def fixed(denoiser, dt: float, solver):
    """x to log p by Tsit5 in fixed steps of the schedule's time, exact trace."""
    begin = float(SCHEDULE.time_of_level(LEVEL))
    alpha = float(SCHEDULE.alpha(begin))

    def one(x):
        def field(t, state, args):
            y, _ = state

            def velocity(y):
                return -0.5 * (y + denoiser.score(y, t))

            value, product = jax.linearize(velocity, y)
            return value, jnp.trace(jax.vmap(product)(jnp.eye(y.size, dtype=y.dtype)))

        solution = dfx.diffeqsolve(
            dfx.ODETerm(field),
            solver,
            t0=begin,
            t1=10.0,
            dt0=dt,
            y0=(alpha * x, jnp.zeros((), x.dtype)),
            max_steps=100_000,
            adjoint=dfx.ForwardMode(),
        )
        assert solution.ys is not None
        y, change = solution.ys[0][0], solution.ys[1][0]
        normal = -0.5 * jnp.sum(y**2) - 0.5 * y.size * jnp.log(2.0 * jnp.pi)
        return normal + change + x.size * np.log(alpha)

    return jax.jit(jax.vmap(one))


def adaptive(denoiser, tolerance: float, solver):
    """The same by `log_prob`."""

    def one(x):
        found = log_prob(
            denoiser,
            x,
            solver=solver,
            rtol=tolerance,
            atol=tolerance,
            level_min=LEVEL,
        )
        return found.value

    return jax.jit(jax.vmap(one))


def measure(function, x, exact, rounds: int) -> tuple[float, float, float]:
    """(median absolute error, largest, median seconds)."""
    errors = jnp.abs(function(x) - exact)
    error, largest = float(jnp.median(errors)), float(jnp.max(errors))
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        jax.block_until_ready(function(x))
        times.append(time.perf_counter() - begin)
    return error, largest, statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer points and rounds")
    quick = parser.parse_args().quick
    jax.config.update("jax_enable_x64", True)
    num, rounds = (128, 3) if quick else (512, 5)
    figures: dict[str, tuple[float, float, float]] = {}
    rows = [("2-D, exact trace", "error, nats", "largest", "seconds", "times faster")]
    for std in (0.25, 0.05):
        denoiser, x, exact = problem(std, num)
        methods = {
            f"std {std}: fixed steps of {dt}": fixed(denoiser, dt, dfx.Tsit5())
            for dt in ((0.1,) if std > 0.1 else (0.1, 0.01))
        }
        methods |= {
            f"std {std}: log_prob, tolerance {tol:.0e}": adaptive(
                denoiser, tol, dfx.Tsit5()
            )
            for tol in (1e-2, 1e-3, 1e-4, 1e-5)
        }
        first = None
        for name, function in methods.items():
            error, largest, seconds = measure(function, x, exact, rounds)
            first = seconds if first is None else first
            figures[name] = error, largest, seconds
            cells = f"{error:.1e}", f"{largest:.1e}", f"{seconds:.3f}"
            rows.append((name, *cells, f"{first / seconds:.1f}"))
    report("Log-densities", rows, figures)


if __name__ == "__main__":
    main()
