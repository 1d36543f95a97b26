"""`jaxprob cost`: parameters, memory and seconds of a configuration before it runs."""

import time
import warnings
from collections.abc import Sequence

import numpy as np

from ._config import TableConfig
from ._fit import trainer_of
from ._parse import parse

STEPS = 30
"""Training steps that are timed, after as many that compile the program."""


def run(words: Sequence[str]) -> int:
    """Print the cost of a fit with the same options."""
    config = parse("cost", words)
    if config is None:
        return 0
    training = trainer_of(config)
    if isinstance(config, TableConfig):
        found = table_cost(training)
    else:
        found = diffusion_cost(training)
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:{width}}  {value}")
    return 0


def table_cost(training) -> dict[str, str]:
    """Return the cost of one network, timed on steps with the training rows."""
    from .. import tree

    config, rows = training.config, training.train
    x, y = training.x.iloc[rows], training.y[rows]

    def seconds(num_steps: int) -> float:
        estimator = training.estimator.set_params(
            method="map", num_steps=num_steps, verbose=False
        )
        begin = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a few steps train nothing
            estimator.fit(x, y)
        return time.process_time() - begin

    seconds(STEPS)
    # The difference of two lengths leaves out what each fit does once.
    short, long = seconds(STEPS), seconds(21 * STEPS)
    step = max(long - short, 0.0) / (20 * STEPS)
    network = training.estimator.posterior_.mean()
    count = tree.count(network)
    per_epoch = -(-len(rows) // min(config.batch_size, len(rows)))
    return {
        "rows to train on": str(len(rows)),
        "parameters of one network": str(count),
        "memory of one network": _bytes(4 * count),
        "memory of 100 draws": _bytes(400 * count),
        "steps in an epoch": str(per_epoch),
        "processor time of a step": f"{1e3 * step:.3g} ms",
        "processor time of an epoch": f"{step * per_epoch:.3g} s for one network",
        "not included": "compilation, and chains: each transition reads all rows",
    }


def diffusion_cost(training) -> dict[str, str]:
    """Return the cost of the denoiser, timed on steps with the training rows."""
    import jax

    from .. import tree
    from .._engine.fit import fit

    config = training.config
    learner = training.learner()

    def seconds(num_steps: int) -> float:
        begin = time.process_time()
        fit(
            learner,
            training.denoiser,
            training.rows,
            key=jax.random.key(0),
            num_steps=num_steps,
            batch_size=config.batch_size,
            progress=False,
        )
        return time.process_time() - begin

    compiled = seconds(2)
    short, long = seconds(2), seconds(12)
    step = max(long - short, 0.0) / 10
    state = learner.init(training.denoiser, key=jax.random.key(0))
    leaves = jax.tree.leaves(state)
    size = sum(
        leaf.nbytes for leaf in leaves if isinstance(leaf, jax.Array | np.ndarray)
    )
    epoch = step * training.steps_per_epoch
    data = int(np.prod(training.examples.x[training.train].shape)) * 4
    return {
        "examples to train on": str(len(training.train)),
        "parameters": str(tree.count(training.denoiser)),
        "memory of weights, optimiser and average": _bytes(size),
        "memory of the data": _bytes(data),
        "steps in an epoch": str(training.steps_per_epoch),
        "processor time of the compilation": f"{max(compiled - short, 0.0):.3g} s",
        "processor time of a step": f"{1e3 * step:.3g} ms",
        "processor time of an epoch": f"{epoch:.3g} s",
        f"processor time of {config.epochs} epochs": f"{epoch * config.epochs:.3g} s",
    }


def _bytes(count: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024  # type: ignore[assignment]
    return f"{count:.4g} GiB"
