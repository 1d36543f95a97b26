"""Methods of conditioning against posteriors that are known in closed form.

    python -m benchmarks.conditioning [--quick] [--methods MMPS PiGDM]
        [--priors gaussian] [--operators projection mask]

Priors in 8 dimensions, of variance 1 on average: a correlated Gaussian, a mixture of
eight overlapping Gaussians, and one of eight separated ones (standard deviation 0.1).
Operators: a random projection on three numbers, a mask that shows four, and a blur of
all eight. Noise: 0.1 and 0.5. For each of the 18 cells, 16 measurements are drawn, and
256 samples of the posterior of each with the exact denoiser of the prior.

Columns are means over the cells of a prior. `mean`: root mean square error of the
posterior mean, in units of the exact posterior's standard deviation (root of the mean
variance). `std`: ratio of the standard deviations. `sW2`: sliced Wasserstein distance
to samples of the exact posterior. `C2ST`: accuracy of a classifier (50 randomised
trees) between 600 samples of each, both standardised by the exact posterior of their
measurement; chance is .5. `50`, `90`, `95`: probability under the exact posterior of
the central intervals of the samples, per coordinate. The row `exact` has other samples
of the exact posterior and is what can be reached; `conditioned` samples the exact
denoiser of the posterior, so that what it lacks is the sampler's.
"""

import argparse
import time

import numpy as np

DIM, NUM_Y, NUM_DRAWS = 8, 16, 256
PRIORS = ("gaussian", "overlapping", "separated")
OPERATORS = ("projection", "mask", "blur")
NOISES = (0.1, 0.5)
COLUMNS = ("mean", "std", "sW2", "C2ST", "50", "90", "95")


def prior(name):
    """A mixture of eight components; those of the Gaussian are equal."""
    import jax.numpy as jnp

    from jaxprob.testing import GaussianMixture

    rng = np.random.default_rng(0)
    index = np.arange(DIM)
    smooth = 0.8 ** np.abs(index[:, None] - index[None])
    scale, width = {
        "gaussian": (0.0, 1.0),
        "overlapping": (1.0, 0.5),
        "separated": (1.0, 0.1),
    }[name]
    means = scale * rng.normal(size=(8, DIM)) @ np.linalg.cholesky(smooth).T
    means = means - means.mean(0)
    covariances = np.stack([width**2 * smooth] * 8)
    total = np.sqrt(np.mean(np.var(means, axis=0)) + width**2)
    return GaussianMixture(
        jnp.full(8, 1.0 / 8.0),
        jnp.asarray(means / total, jnp.float32),
        jnp.asarray(covariances / total**2, jnp.float32),
    )


def operator(name):
    """A square matrix and the rows that are measured, so that all have one shape."""
    rng = np.random.default_rng(1)
    matrix, there = np.zeros((DIM, DIM)), np.zeros(DIM, bool)
    if name == "projection":
        matrix[:3], there[:3] = rng.normal(size=(3, DIM)) / np.sqrt(DIM), True
    elif name == "mask":
        there[::2] = True
        matrix[there, there] = 1.0
    else:
        index = np.arange(DIM)
        gap = np.minimum((index[:, None] - index) % DIM, (index - index[:, None]) % DIM)
        kernel = np.exp(-0.5 * gap**2)
        matrix, there = kernel / kernel.sum(1, keepdims=True), np.ones(DIM, bool)
    return matrix.astype(np.float32), there


def methods():
    """Methods with the sampler that they are run with."""
    from jaxprob.diffusion import (
        DDIM,
        DPS,
        MMPS,
        TMPD,
        DiffPIR,
        ExpAB,
        PiGDM,
        PredictorCorrector,
        RePaint,
        Replacement,
    )

    fast, slow = ExpAB(18), DDIM(100, eta=1.0)
    langevin = PredictorCorrector(50, num_corrections=2, ratio=0.5)
    return {
        "exact": None,
        "conditioned, ExpAB(18)": (None, fast, {}),
        "MMPS, ExpAB(18)": (MMPS, fast, {}),
        "MMPS, DDIM(100, eta=1)": (MMPS, slow, {}),
        "MMPS, Langevin 150": (MMPS, langevin, {}),
        "TMPD diagonal, ExpAB(18)": (TMPD, fast, {"diagonal": True}),
        "PiGDM, ExpAB(18)": (PiGDM, fast, {}),
        "PiGDM, DDIM(100, eta=1)": (PiGDM, slow, {}),
        "DPS .3, DDIM(100, eta=1)": (DPS, slow, {"strength": 0.3}),
        "DPS 1, DDIM(100, eta=1)": (DPS, slow, {}),
        "DiffPIR 1, DDIM(100, eta=1)": (DiffPIR, slow, {}),
        "Replacement, ExpAB(18)": (Replacement, fast, {}),
        "Replacement, RePaint(25)": (Replacement, RePaint(25), {}),
    }


def draw(mixture, matrix, there, y, noise, entry, key):
    """Samples of the posterior of each measurement, and the evaluations of each."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import lineax as lx

    from jaxprob.diffusion import EDM, Measured, Observation, condition, sample
    from jaxprob.testing import GaussianMixtureDenoiser

    each = jnp.repeat(jnp.asarray(y), NUM_DRAWS, axis=0)
    rows = jax.random.split(key, len(each))
    if entry is None or entry[0] is None:
        matrix, sampler = jnp.asarray(matrix[there]), entry and entry[1]

        @jax.jit
        @jax.vmap
        def exact(y, keys):
            found = mixture.condition(matrix, y, noise)
            if sampler is None:
                return jax.vmap(lambda key: found.sample(key=key))(keys)
            denoiser = GaussianMixtureDenoiser(found, EDM())
            return jax.vmap(lambda key: sampler(denoiser, (DIM,), key=key))(keys)

        return exact(jnp.asarray(y[:, there]), rows.reshape(len(y), NUM_DRAWS))
    method, sampler, settings = entry
    observation = Observation(
        y[0], lx.MatrixLinearOperator(jnp.asarray(matrix)), noise=noise, missing=~there
    )
    observation = eqx.tree_at(lambda o: o.y, observation, jnp.asarray(y[0]))
    denoiser = GaussianMixtureDenoiser(mixture, EDM())
    posterior = condition(denoiser, observation, method, **settings)
    drawn = sample(
        posterior,
        sampler,
        key=key,
        num_samples=len(each),
        shape=(DIM,),
        cond=Measured(each),
    )
    return drawn.x_0.reshape(len(y), NUM_DRAWS, DIM)


def scores(found, exact, key):
    """The columns of one cell."""
    import jax
    from sklearn.ensemble import ExtraTreesClassifier

    from jaxprob.metrics import c2st, sliced_wasserstein

    found, exact = np.asarray(found, float), np.asarray(exact, float)
    spread = np.sqrt(np.mean(exact.var(1), axis=-1))
    error = np.sqrt(np.mean((found.mean(1) - exact.mean(1)) ** 2, axis=-1))
    ratio = np.sqrt(np.mean(found.var(1), axis=-1)) / spread
    distance = jax.vmap(
        lambda a, b: sliced_wasserstein(a, b, key=key, num_projections=50)
    )(found.astype(np.float32), exact.astype(np.float32))
    centre, scale = exact.mean(1, keepdims=True), exact.std(1, keepdims=True)
    chosen = np.random.default_rng(0).permutation(found.shape[0] * found.shape[1])[:600]
    parts = [((a - centre) / scale).reshape(-1, DIM)[chosen] for a in (found, exact)]
    covers = []
    for mass in (0.5, 0.9, 0.95):
        ends = np.quantile(found, [(1.0 - mass) / 2.0, (1.0 + mass) / 2.0], axis=1)
        inside = (exact >= ends[0][:, None]) & (exact <= ends[1][:, None])
        covers.append(inside.mean())
    return [
        float(np.sqrt(np.mean((error / spread) ** 2))),
        float(np.mean(ratio)),
        float(np.mean(distance)),
        c2st(*parts, classifier=ExtraTreesClassifier(50, min_samples_leaf=5)),
        *map(float, covers),
    ]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="4 measurements of each")
    parser.add_argument("--methods", nargs="+", help="beginnings of their names")
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=PRIORS)
    parser.add_argument("--operators", nargs="+", choices=OPERATORS, default=OPERATORS)
    arguments = parser.parse_args(argv)
    import jax
    import jax.numpy as jnp

    num_y = 4 if arguments.quick else NUM_Y
    wanted = tuple(arguments.methods or ("",))
    table = {
        name: entry for name, entry in methods().items() if name.startswith(wanted)
    }
    found = {(name, p): [] for name in table for p in PRIORS}
    seconds = dict.fromkeys(table, 0.0)
    cells = [(p, o, n) for p in PRIORS for o in OPERATORS for n in NOISES]
    for number, cell in enumerate(cells):
        if cell[0] not in arguments.priors or cell[1] not in arguments.operators:
            continue
        mixture, (matrix, there) = prior(cell[0]), operator(cell[1])
        keys = jax.random.split(jax.random.key(number), 5)
        x = jax.vmap(lambda key, m=mixture: m.sample(key=key))(
            jax.random.split(keys[0], num_y)
        )
        z = jax.random.normal(keys[1], x.shape)
        y = np.where(there, x @ matrix.T + cell[2] * z, 0.0).astype(np.float32)
        noise = jnp.asarray(cell[2], jnp.float32)
        exact = draw(mixture, matrix, there, y, noise, None, keys[2])
        for name, entry in table.items():
            begin = time.perf_counter()
            samples = draw(mixture, matrix, there, y, noise, entry, keys[3])
            jax.block_until_ready(samples)
            seconds[name] += time.perf_counter() - begin
            row = scores(samples, exact, keys[4])
            found[name, cell[0]].append(row)
            print(*cell, name, " ".join(f"{v:.3f}" for v in row), flush=True)
    for p in arguments.priors:
        print(f"\n{p}\n\n| method | " + " | ".join(COLUMNS) + " |")
        print("|---" * (len(COLUMNS) + 1) + "|")
        for name in table:
            row = np.mean(found[name, p], axis=0)
            print(f"| {name} | " + " | ".join(f"{v:.3f}" for v in row) + " |")
    print("\nseconds:", {name: round(value, 1) for name, value in seconds.items()})


if __name__ == "__main__":
    main()
