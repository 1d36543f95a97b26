"""A run of chains that is killed.

    python -m tests.bnn._mcmc.killed_chains FOLDER CALL WHEN

At the CALL-th checkpoint the process is killed `before` the state is written, when its
draws already are, or `after`.
"""

import os
import signal
import sys

import jax

from jaxprob import bnn
from jaxprob.bnn._mcmc import run as _run
from jaxprob.testing import LinearGaussian


def scene():
    """Sampler, model and data of the run."""
    problem = LinearGaussian.random(key=jax.random.key(1), num_data=12, dim=2)
    method = bnn.NUTS(problem.log_joint(), num_warmup=24, num_draws=23, num_chains=2)
    return method, problem.model(key=jax.random.key(2)), (problem.x, problem.y)


def run(folder, method=None, **where):
    own, model, data = scene()
    return bnn.run_chains(
        method or own,
        model,
        data,
        key=jax.random.key(3),
        folder=folder,
        checkpoint_every=5,
        progress=False,
        **where,
    )


def main():
    folder, call, when = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    save_state, calls = _run.save_state, []

    def save(*args):
        calls.append(None)
        if when == "after":
            save_state(*args)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        if when == "before":
            save_state(*args)

    _run.save_state = save
    run(folder)


if __name__ == "__main__":
    main()
