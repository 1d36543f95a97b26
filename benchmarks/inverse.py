"""Linear inverse problems whose posteriors are known by Gibbs sampling.

    python -m benchmarks.inverse [--quick] [--increments Laplace] [--operators blur]
        [--methods MMPS SplitGibbs] [--signals 8]

Signals x of length 64 with independent increments u times four measurements: the
signal itself, a blur by a Gaussian of width 2 with 13 taps, half of the entries, and 31
numbers of its Fourier transform. The noise is 25 dB below the median power of what is
measured. The prior is a diffusion model of u with its exact denoiser (an integral for
each entry), and the measurement is that of x, their running sum:
`benchmarks/_signals.py`. All figures are of x.

`cover`: posterior probability of the central 90 % interval of the samples, mean over
entries and signals. `set`: that of the set of highest density, above the 10 % point of
the density at the samples; a spike has none. Both are probabilities of draws of the
Gibbs sampler, which average to the coverage of the true signals with less noise. Ends
are quantiles without bias for as many exact samples. `gap`: error of the posterior mean
over that of the exact one, 10 log10(1 + E|m - m*|^2 / E|x - m*|^2) in dB, without the
part of |m - m*|^2 that comes from the number of samples.

The row `exact` has other draws of the Gibbs sampler. `R` is the largest R-hat of its
chains, half of which begin at the true signal and half at 0. Goals: `cover` in
[.87, .93] and `gap` of at most .1.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from ._signals import INCREMENTS, LENGTH, OPERATORS, IncrementDenoiser, gibbs, operator

NUM_CHAINS = 4
MOST_RHAT = 1.1
COLUMNS = ("cover", "set", "gap")


def methods():
    """Method, sampler and settings of each row; a number of particles is for SMC."""
    from jaxprob.diffusion import (
        DDIM,
        DPS,
        MMPS,
        TMPD,
        DiffPIR,
        ExpAB,
        PiGDM,
        SplitGibbs,
    )

    slow = DDIM(100, eta=1.0)
    return {
        "MMPS": (MMPS, ExpAB(18), {}),
        "MMPS, DDIM(100, eta=1)": (MMPS, slow, {}),
        "TMPD diagonal": (TMPD, ExpAB(18), {"diagonal": True}),
        "PiGDM": (PiGDM, ExpAB(18), {}),
        "DPS, DDIM(100, eta=1)": (DPS, slow, {}),
        "DiffPIR, DDIM(100, eta=1)": (DiffPIR, slow, {}),
        "SplitGibbs": (MMPS, SplitGibbs(200, 20, level_min=0.03), {}),
        "particles": (MMPS, 128, {}),
    }


def signals(increment, matrix, num, *, key):
    """Draw signals and measurements, and return the noise of 25 dB."""
    u_key, y_key, power_key = jax.random.split(key, 3)
    others = jnp.cumsum(increment.sample((10_000, LENGTH), key=power_key), axis=1)
    there = np.any(matrix != 0.0, axis=1)
    power = np.median(np.mean((np.asarray(others) @ matrix[there].T) ** 2, axis=1))
    noise = float(np.sqrt(power / 10.0**2.5))
    u = np.asarray(increment.sample((num, LENGTH), key=u_key))
    z = np.asarray(jax.random.normal(y_key, u.shape))
    y = np.where(there, np.cumsum(u, axis=1) @ matrix.T + noise * z, 0.0)
    return u, y, noise


@jax.jit(static_argnums=(0, 1))
def chains(increment, sizes, matrix, y, noise, starts, key):
    """Draws of all chains of all signals, and the means of each."""
    num_warmup, num_samples, thin = sizes

    def one(y, u, key):
        return gibbs(
            increment,
            matrix,
            y,
            noise,
            u,
            key=key,
            num_warmup=num_warmup,
            num_samples=num_samples,
            thin=thin,
        )

    keys = jax.random.split(key, starts.shape[:2])
    return jax.vmap(jax.vmap(one, (None, 0, 0)))(y, starts, keys)


def gold(increment, matrix, u, y, noise, sizes, *, key):
    """Return draws of x of all chains of each signal, their means, and R-hat."""
    starts = np.stack([u if i % 2 else np.zeros_like(u) for i in range(NUM_CHAINS)], 1)
    draws, means = chains(increment, sizes, matrix, y, noise, jnp.asarray(starts), key)
    draws = np.cumsum(np.asarray(draws), axis=-1)
    within = draws.var(axis=2, ddof=1).mean(1)
    between = draws.mean(2).var(axis=1, ddof=1)
    ratio = float(np.sqrt(np.max(1.0 + between / np.maximum(within, 1e-30))))
    return draws, np.cumsum(np.asarray(means), axis=-1), ratio


def draw(increment, matrix, y, noise, entry, num_samples, *, key):
    """Samples of x of each measurement by a method of `jaxprob.diffusion`."""
    import lineax as lx

    from jaxprob.diffusion import (
        Measured,
        Observation,
        condition,
        sample,
        sample_particles,
    )

    method, sampler, settings = entry
    there = np.any(matrix != 0.0, axis=1)
    y = jnp.asarray(y, jnp.float32)
    observation = Observation(
        y[0],
        lx.MatrixLinearOperator(jnp.asarray(matrix, jnp.float32)),
        noise=noise,
        missing=~there,
    )
    posterior = condition(IncrementDenoiser(increment), observation, method, **settings)
    if not isinstance(sampler, int):
        found = sample(
            posterior,
            sampler,
            key=key,
            num_samples=len(y) * num_samples,
            shape=(LENGTH,),
            cond=Measured(jnp.repeat(y, num_samples, axis=0)),
        ).x_0
        return np.cumsum(np.asarray(found, float), axis=1).reshape(len(y), -1, LENGTH)
    rows = []
    for i, one in enumerate(y):
        run_key, draw_key = jax.random.split(jax.random.fold_in(key, i))
        found = sample_particles(
            posterior,
            key=run_key,
            num_particles=sampler,
            shape=(LENGTH,),
            cond=Measured(one),
        )
        rows.append(found.sample(key=draw_key, num_samples=num_samples))
    return np.cumsum(np.asarray(jnp.stack(rows), float), axis=2)


def log_density(increment, matrix, x, y, noise):
    """Return log p(x, y) up to a constant, for draws x of each signal."""
    u = np.diff(x, axis=-1, prepend=0.0)
    square = np.sum((y[:, None] - x @ matrix.T) ** 2, axis=-1)
    return np.sum(increment.log_prob(u), axis=-1) - 0.5 * square / noise**2


def scores(increment, matrix, y, noise, found, draws, means):
    """The columns of one row, and the error of the exact posterior mean."""
    exact = draws.reshape(len(draws), -1, LENGTH)
    low, high = np.quantile(found, [0.05, 0.95], axis=1, method="weibull")
    cover = np.mean((low[:, None] <= exact) & (exact <= high[:, None]))
    inside = np.nan
    if not increment.spike:
        least, nats = (
            log_density(increment, matrix, x, y, noise) for x in (found, exact)
        )
        least = np.quantile(least, 0.1, axis=1, method="weibull")
        inside = np.mean(nats >= least[:, None])
    least_error = np.sum(exact.var(axis=1, ddof=1))
    excess = np.sum((found.mean(1) - means.mean(1)) ** 2)
    excess -= np.sum(found.var(axis=1, ddof=1)) / found.shape[1]
    excess -= np.sum(means.var(axis=1, ddof=1)) / means.shape[1]
    return cover, inside, 10.0 * np.log10(max(1.0 + excess / least_error, 1e-3))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 signals, few draws")
    parser.add_argument("--increments", nargs="+", choices=INCREMENTS)
    parser.add_argument("--operators", nargs="+", choices=OPERATORS, default=OPERATORS)
    parser.add_argument("--methods", nargs="+", help="beginnings of their names")
    parser.add_argument("--signals", type=int, default=8)
    arguments = parser.parse_args(argv)
    num, num_samples, sizes = arguments.signals, 64, (250, 128, 4)
    if arguments.quick:
        num, num_samples, sizes = 2, 16, (50, 32, 2)
    wanted = tuple(arguments.methods or ("",))
    table = {k: entry for k, entry in methods().items() if k.startswith(wanted)}
    rows, seconds = {}, {}
    for name in arguments.increments or INCREMENTS:
        for kind in arguments.operators:
            increment, matrix = INCREMENTS[name], operator(kind)
            key = jax.random.key(list(INCREMENTS).index(name) * 10)
            key = jax.random.fold_in(key, OPERATORS.index(kind))
            keys = jax.random.split(key, 4)
            # Of the increments: column j has all entries of x from j on.
            whole = np.cumsum(matrix[:, ::-1], axis=1)[:, ::-1]
            begin = time.perf_counter()
            with jax.enable_x64(True):
                u, y, noise = signals(increment, matrix, num, key=keys[0])
                problem = (increment, jnp.asarray(whole), u, y, noise, sizes)
                draws, means, ratio = gold(*problem, key=keys[1])
                others, _, _ = gold(*problem, key=keys[2])
                every = max(1, NUM_CHAINS * sizes[1] // num_samples)
                found = others.reshape(num, -1, LENGTH)[:, ::every]
                problem = (increment, matrix, y, noise)
                row: dict[str, tuple[float, ...]] = {
                    "exact": scores(*problem, found, draws, means)
                }
            seconds["exact"] = seconds.get("exact", 0.0) + time.perf_counter() - begin
            judge = "" if ratio < MOST_RHAT else ": THE JUDGE HAS NOT MIXED"
            print(
                f"{name}, {kind}: noise {noise:.3g}, R {ratio:.3f}{judge}", flush=True
            )
            for method, entry in table.items():
                begin = time.perf_counter()
                try:
                    found = draw(
                        increment, whole, y, noise, entry, num_samples, key=keys[3]
                    )
                except RuntimeError as error:
                    print(f"  {method}: {error}", flush=True)
                    row[method] = (np.nan,) * len(COLUMNS)
                else:
                    with jax.enable_x64(True):
                        row[method] = scores(*problem, found, draws, means)
                taken = time.perf_counter() - begin
                seconds[method] = seconds.get(method, 0.0) + taken
            for method, values in row.items():
                print(
                    f"  {method:27}", " ".join(f"{v:.3f}" for v in values), flush=True
                )
            rows[f"{name}, {kind}"] = row
    print_tables(rows, ("exact", *table))
    print("\nseconds:", {name: round(value, 1) for name, value in seconds.items()})


def print_tables(rows, names):
    """Print `cover / gap` of each cell, and how many of them reach the goals."""
    print("\n| cell | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for cell, row in rows.items():
        values = [f"{row[n][0]:.2f} / {row[n][2]:.2f}" for n in names]
        print(f"| {cell} | " + " | ".join(values) + " |")
    reached = []
    for n in names:
        covers, _, gaps = np.array([row[n] for row in rows.values()]).T
        right = (covers >= 0.87) & (covers <= 0.93) & (gaps <= 0.1)
        reached.append(f"{right.sum()} of {len(rows)}")
    print("| both goals | " + " | ".join(reached) + " |")


if __name__ == "__main__":
    main()
