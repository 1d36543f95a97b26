"""Members of an ensemble as jobs: one worker against two, three executors, and kills.

    python -m benchmarks.executors [--quick] [--executors processes dask submitit]

Each worker has one core. An ensemble of 8 perceptrons 8-256-256-1 on 2,000 rows trains
by `bnn.fit_members`: seconds with one worker and with two, with the start of the
workers and their compilation, and whether all weights are the same bits. Then a worker
process is killed at random instants, 20 times in runs of processes of this machine, and
the bits are compared again. dask (a local cluster) and submitit (its local executor)
have to be installed; the others run without them.
"""

import argparse
import hashlib
import importlib
import os
import random
import statistics
import tempfile
import threading
import time

ONE_CORE = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NPROC": "1",  # the size of XLA's pool of threads
}


def scene(num_steps):
    """Ensemble, model, data and the length of the training."""
    import equinox as eqx
    import jax
    import numpy as np
    import optax

    from jaxprob import bnn

    x = np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32)
    y = np.sin(x.sum(1, keepdims=True))
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=2000)
    model = eqx.nn.MLP(8, 1, 256, 2, key=jax.random.key(0))
    ensemble = bnn.DeepEnsemble(bnn.MAP(joint, optax.adam(1e-3)), 8)
    run = {"num_steps": num_steps, "batch_size": 200, "progress": False}
    return ensemble, model, (x, y), run


def trained(num_steps, **where):
    """Seconds, and a hash of all weights."""
    import jax
    import numpy as np

    from jaxprob import bnn

    ensemble, model, data, run = scene(num_steps)
    start = time.perf_counter()
    key = jax.random.key(1)
    state, _ = bnn.fit_members(ensemble, model, data, key=key, **run, **where)
    seconds = time.perf_counter() - start
    weights = [
        np.asarray(a).tobytes()
        for a in jax.tree.leaves(state.model)
        if hasattr(a, "dtype")
    ]
    return seconds, hashlib.sha256(b"".join(weights)).hexdigest()[:12]


def by_processes(num_steps, workers):
    return trained(num_steps, num_processes=workers)


def by_dask(num_steps, workers):
    dask = importlib.import_module("distributed")
    with (
        dask.LocalCluster(
            workers, threads_per_worker=1, dashboard_address=None
        ) as here,
        dask.Client(here) as client,
    ):
        return trained(num_steps, executor=client.get_executor())


class Local:
    """submitit's local executor with a number of workers, as Slurm has of its nodes."""

    def __init__(self, folder, workers):
        submitit = importlib.import_module("submitit")
        self.executor = submitit.LocalExecutor(folder)
        self.executor.update_parameters(timeout_min=30)
        self.free = threading.Semaphore(workers)

    def submit(self, function, *args):
        self.free.acquire()
        job = self.executor.submit(function, *args)
        threading.Thread(target=self._wait, args=(job,), daemon=True).start()
        return job

    def _wait(self, job):
        job.wait()
        self.free.release()


def by_submitit(num_steps, workers):
    with tempfile.TemporaryDirectory() as folder:
        return trained(num_steps, executor=Local(folder, workers))


EXECUTORS = {"processes": by_processes, "dask": by_dask, "submitit": by_submitit}


def killed(num_steps, seconds, rng):
    """Train while one worker is killed at a random instant. Return kills and hash."""
    import psutil

    kills = []

    def kill():
        for child in psutil.Process().children(recursive=True):
            try:
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()
                    kills.append(None)
                    return
            except psutil.Error:
                continue  # it has ended

    timer = threading.Timer(rng.uniform(0.1, 0.9) * seconds, kill)
    timer.start()
    found = trained(num_steps, num_processes=2)[1]
    timer.cancel()
    return len(kills), found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few steps, one round")
    parser.add_argument("--executors", nargs="*", default=list(EXECUTORS))
    arguments = parser.parse_args()
    os.environ.update(ONE_CORE)  # workers inherit it
    num_steps, rounds, num_kills = (60, 1, 2) if arguments.quick else (1000, 3, 20)
    expected = None
    print("executor | one worker | two workers | ratio | bits")
    for name in arguments.executors:
        pairs = [
            [EXECUTORS[name](num_steps, workers) for workers in (1, 2)]
            for _ in range(rounds)
        ]
        hashes = {found for pair in pairs for _, found in pair}
        expected = expected or next(iter(hashes))
        one, two = (statistics.median(p[i][0] for p in pairs) for i in (0, 1))
        ratio = statistics.median(a[0] / b[0] for a, b in pairs)
        same = "same" if hashes == {expected} else "other"
        print(f"{name} | {one:.1f} s | {two:.1f} s | {ratio:.2f} | {same}", flush=True)
    rng = random.Random(0)
    short = num_steps // 10 if not arguments.quick else num_steps
    seconds, whole = trained(short, num_processes=2)
    results = [killed(short, seconds, rng) for _ in range(num_kills)]
    alike = sum(found == whole for _, found in results)
    kills = sum(number for number, _ in results)
    print(f"{kills} workers killed in {num_kills} runs: {alike} runs to the same bits")


if __name__ == "__main__":
    main()
