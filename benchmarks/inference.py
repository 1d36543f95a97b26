"""Cost of inference: a variational step beside a MAP step, memory of prediction.

    python -m benchmarks.inference [--quick] [--part steps|noise|memory|kronecker]

An MLP 8-W-W-1 on batches of 128, Adam, in steps of a compiled loop of 200; widths 50
and 256; a MAP step of two such networks, added, has the products and the parameters of
local reparameterisation and none of its noise. A draw of 65,536 normal numbers, beside
`jax.random.normal` under JAX's default generator. Then 10,000 rows predicted with 10
and with 1,000 posterior samples, each in a process of its own: its peak memory. Last,
the pass over the data that fits a Kronecker Laplace to an MLP 784-256-256-10, on random
rows of MNIST's shape; laplace-torch's beside it where that is installed (`pip install
laplace-torch`).
"""

import argparse
import importlib.util
import resource
import subprocess
import sys
import time

from ._timing import alternate, medians, report, serve

BATCH, STEPS, ROWS = 128, 200, 10_000
VARIANTS = {
    "map": "MAP",
    "two": "MAP, two such networks",
    "ivon": "IVON",
    "weight": "mean-field VI, weights",
    "flipout": "mean-field VI, flipout",
    "local": "mean-field VI, local",
}


def network(width, seed=0):
    import equinox as eqx
    import jax

    return eqx.nn.MLP(8, "scalar", width, 2, key=jax.random.key(seed))


def two_networks(width):
    """Their sum, and as with means and variances one of them sees squares."""
    from typing import Any

    import equinox as eqx

    class Sum(eqx.Module):
        first: Any
        second: Any

        def __call__(self, x):
            return self.first(x) + self.second(x**2)

    return Sum(network(width), network(width, 1))


def model_and_joint(width):
    from jaxprob import bnn

    model = network(width)
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=ROWS)
    return model, joint


def make(name, width):
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    from jaxprob import bnn

    model, joint = model_and_joint(width)
    optimizer = optax.adam(1e-3)
    if name in ("map", "two"):
        method = bnn.MAP(joint, optimizer)
        model = two_networks(width) if name == "two" else model
    elif name == "ivon":
        method = bnn.IVON(joint, 1e-2)
    else:
        method = bnn.MeanFieldVI(joint, optimizer, estimator=name)
    x = jax.random.normal(jax.random.key(1), (BATCH, 8))
    batch = (x, jnp.sin(x[:, 0]))
    arrays, static = eqx.partition(method.init(model), eqx.is_array)

    @jax.jit
    def run(arrays, key):
        def step(arrays, key):
            state, _ = method.update(eqx.combine(arrays, static), batch, key=key)
            return eqx.filter(state, eqx.is_array), None

        return jax.lax.scan(step, arrays, jax.random.split(key, STEPS))[0]

    key = jax.random.key(2)
    jax.block_until_ready(run(arrays, key))

    def measure():
        begin = time.perf_counter()
        jax.block_until_ready(run(arrays, key))
        return 1e6 * (time.perf_counter() - begin) / STEPS

    return measure


DRAWS = 65_536
NOISE = {
    "noise": "normal numbers, ns each",
    "noise-jax": "jax.random.normal, ns each",
}


def make_noise(name):
    """Nanoseconds for one number of a draw."""
    import jax
    import jax.numpy as jnp

    from jaxprob._random.standard_normal import standard_normal

    draw = jax.random.normal if name == "noise-jax" else standard_normal
    compiled = jax.jit(lambda key: draw(key, (DRAWS,), jnp.float32))
    key = jax.random.key(0)
    jax.block_until_ready(compiled(key))

    def measure():
        begin = time.perf_counter()
        for _ in range(STEPS):
            noise = compiled(key)
        jax.block_until_ready(noise)
        return 1e9 * (time.perf_counter() - begin) / STEPS / DRAWS

    return measure


MNIST_ROWS, MNIST_BATCH, MNIST_WIDTH = 6_000, 500, 256


def mnist_rows():
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.random((MNIST_ROWS, 784), dtype=np.float32)
    return x, rng.integers(0, 10, MNIST_ROWS).astype(np.int32)


def make_kronecker():
    """Seconds of one pass, compiled before."""
    import equinox as eqx
    import jax
    import optax

    import jaxprob
    from jaxprob import bnn

    data = mnist_rows()
    model = eqx.nn.MLP(784, 10, MNIST_WIDTH, 2, key=jax.random.key(0))
    joint = bnn.LogJoint(
        bnn.CategoricalLikelihood(), bnn.FanInNormal(), num_data=MNIST_ROWS
    )
    method = bnn.Laplace(bnn.MAP(joint, optax.adam(1e-3)), "kronecker")
    state = method.init(model)
    loader = jaxprob.ArrayLoader(data, batch_size=MNIST_BATCH, shuffle=False)

    def measure():
        begin = time.perf_counter()
        jax.block_until_ready(method.posterior(state, loader).curvature)
        return time.perf_counter() - begin

    measure()
    return measure


def make_kronecker_torch():
    """The same by laplace-torch."""
    import importlib

    import torch
    from torch.utils.data import DataLoader, TensorDataset

    # By its name: it is no dependency, and a type checker need not find it.
    Laplace = importlib.import_module("laplace").Laplace
    x, y = (torch.from_numpy(a) for a in mnist_rows())
    model = torch.nn.Sequential(
        torch.nn.Linear(784, MNIST_WIDTH),
        torch.nn.ReLU(),
        torch.nn.Linear(MNIST_WIDTH, MNIST_WIDTH),
        torch.nn.ReLU(),
        torch.nn.Linear(MNIST_WIDTH, 10),
    )
    loader = DataLoader(TensorDataset(x, y.long()), batch_size=MNIST_BATCH)

    def measure():
        laplace = Laplace(
            model, "classification", subset_of_weights="all", hessian_structure="kron"
        )
        begin = time.perf_counter()
        laplace.fit(loader)
        return time.perf_counter() - begin

    measure()
    return measure


KRONECKER = {
    "kronecker": ("Kronecker Laplace, jaxprob", make_kronecker),
    "kronecker-torch": ("Kronecker Laplace, laplace-torch", make_kronecker_torch),
}


def kronecker_rows(rounds, figures):
    """Seconds of each; the peer's only where it is installed."""
    names = ["kronecker"]
    if importlib.util.find_spec("laplace") is not None:
        names.append("kronecker-torch")
    times = alternate("benchmarks.inference", names, rounds=rounds)
    rows = []
    for name, value in medians(times).items():
        figures[f"{name}_s"] = value
        rows.append((f"{KRONECKER[name][0]}, s", MNIST_WIDTH, f"{value:.2f}", ""))
    if len(names) == 1:
        rows.append((KRONECKER["kronecker-torch"][0], "", "not installed", ""))
    return rows


def noise_rows(rounds, figures):
    """Ours beside JAX's."""
    times = alternate("benchmarks.inference", NOISE, rounds=rounds)
    ratios = [a / b for a, b in zip(times["noise"], times["noise-jax"], strict=True)]
    figures["noise_ratio"] = medians({"ratio": ratios})["ratio"]
    rows = []
    for name, value in medians(times).items():
        figures[f"{name}_ns"] = value
        rows.append((NOISE[name], "", f"{value:.2f}", ""))
    rows.append(
        ("noise over jax.random.normal", "", "", f"{figures['noise_ratio']:.2f}")
    )
    return rows


def peak_megabytes(num_samples: int) -> float:
    """Return the peak memory of this process after one prediction."""
    import jax
    import numpy as np

    from jaxprob import bnn

    model, joint = model_and_joint(50)
    x = np.random.default_rng(0).normal(size=(ROWS, 8)).astype(np.float32)
    predictive = bnn.predict(
        bnn.bayesianize(model),
        joint.likelihood,
        x,
        key=jax.random.key(0),
        num_samples=num_samples,
    )
    jax.block_until_ready((predictive.mean, predictive.variance))
    jax.block_until_ready(predictive.log_prob(np.zeros(ROWS, np.float32)))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def step_rows(rounds, figures):
    """Microseconds of each kind of step."""
    rows = []
    for width in (50, 256):
        times = alternate(
            "benchmarks.inference",
            VARIANTS,
            rounds=rounds,
            arguments=("--width", str(width)),
        )
        for name, value in medians(times).items():
            # A ratio within each round, so that the machine's drift cancels.
            ratios = [a / b for a, b in zip(times[name], times["map"], strict=True)]
            ratio = medians({"ratio": ratios})["ratio"]
            figures[f"{name}_{width}_us"] = value
            figures[f"{name}_{width}_ratio"] = ratio
            rows.append((VARIANTS[name], width, f"{value:.1f}", f"{ratio:.2f}"))
    return rows


def memory_rows(figures):
    """Peak memory of a prediction with few and with many samples."""
    rows = []
    for num in (10, 1000):
        command = [sys.executable, "-m", "benchmarks.inference", "--memory", str(num)]
        out = subprocess.run(command, capture_output=True, text=True, check=True)
        figures[f"peak_{num}_mb"] = float(out.stdout.split()[-1])
        rows.append((f"peak MB, {num} samples", 50, f"{out.stdout.strip()}", ""))
    ratio = figures["peak_1000_mb"] / figures["peak_10_mb"]
    figures["peak_ratio"] = ratio
    rows.append(("peak memory, 1,000 over 10", 50, "", f"{ratio:.3f}"))
    return rows


PARTS = ("steps", "noise", "memory", "kronecker")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--part", choices=PARTS, help="one of the four")
    choices = (*VARIANTS, *NOISE, *KRONECKER)
    parser.add_argument("--variant", choices=choices, help=argparse.SUPPRESS)
    parser.add_argument("--width", type=int, default=50, help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant in KRONECKER:
        serve(KRONECKER[args.variant][1])
        return
    if args.variant in NOISE:
        serve(lambda: make_noise(args.variant))
        return
    if args.variant:
        serve(lambda: make(args.variant, args.width))
        return
    if args.memory:
        print(peak_megabytes(args.memory))
        return
    rows = [("", "width", "us per step", "ratio to MAP")]
    figures = {}
    parts = PARTS if args.part is None else (args.part,)
    if "steps" in parts:
        rows += step_rows(5 if args.quick else 15, figures)
    if "noise" in parts:
        rows += noise_rows(5 if args.quick else 15, figures)
    if "memory" in parts:
        rows += memory_rows(figures)
    if "kronecker" in parts:
        rows += kronecker_rows(3 if args.quick else 7, figures)
    report("Cost of inference", rows, figures)


if __name__ == "__main__":
    main()
