"""Microseconds per training step: bare loops, `fit`, Lightning with ours and torch.

Four problems with Adam, each variant as a user would write it. The Lightning variants
run with TensorBoard, a progress bar and checkpoints on, logging every 50 steps; a round
is one epoch between two hooks, so nothing but training counts. Every variant is a
process of its own, and they take turns.

    python -m benchmarks.bridge [--quick] [--problem tiny] [--every-step] [--rounds 9]
"""

import argparse
import functools
import math
import tempfile
import time

from ._bridge_problems import PROBLEMS, Problem
from ._timing import alternate, medians, report, serve

LOG_EVERY = 50

VARIANTS = {
    "filter_jit_loop": "hand-written eqx.filter_jit loop",
    "bare_loop": "best bare jitted loop",
    "scan": "lax.scan over 50 batches",
    "fit": "jaxprob.fit",
    "bridge": "jaxprob.lightning",
    "torch_loop": "PyTorch loop",
    "torch_lightning": "PyTorch + Lightning",
}
EVERY_STEP = {
    "bridge_every_step": "jaxprob.lightning, log_every_n_steps=1",
    "torch_lightning_every_step": "PyTorch + Lightning, log_every_n_steps=1",
}


def timed(epoch, problem: Problem):
    """A round that times `epoch()`, after two that compiled and warmed it."""
    epoch()
    epoch()

    def measure():
        begin = time.perf_counter()
        epoch()
        return 1e6 * (time.perf_counter() - begin) / problem.steps

    return measure


def batches(problem: Problem, data, order):
    import jax

    for i in range(problem.steps):
        rows = order[i * problem.batch : (i + 1) * problem.batch]
        yield jax.tree.map(lambda a, rows=rows: a[rows], data)


def filter_jit_loop(problem: Problem):
    import equinox as eqx
    import jax
    import numpy as np
    import optax

    model, optimizer, loss = problem.model(), optax.adam(1e-3), problem.batch_loss()
    data, key = problem.data(), jax.random.key(1)
    rng = np.random.default_rng(1)

    @eqx.filter_jit
    def step(model, state, batch, key):
        value, grads = eqx.filter_value_and_grad(loss)(model, batch, key)
        updates, state = optimizer.update(grads, state)
        return eqx.apply_updates(model, updates), state, value

    carry = [model, optimizer.init(eqx.filter(model, eqx.is_inexact_array))]

    def epoch():
        order = rng.permutation(problem.batch * problem.steps)
        for i, batch in enumerate(batches(problem, data, order)):
            carry[0], carry[1], value = step(carry[0], carry[1], batch, key)
            if i % LOG_EVERY == LOG_EVERY - 1:
                float(value)
        jax.block_until_ready(value)

    return timed(epoch, problem)


def _flat_step(problem):
    """A step on a flat list of arrays: the least that one dispatch can cost."""
    import equinox as eqx
    import jax
    import optax

    model, optimizer, loss = problem.model(), optax.adam(1e-3), problem.batch_loss()
    params, static = eqx.partition(model, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten((params, optimizer.init(params)))
    random = problem.widths is None  # only the diffusion loss draws noise

    def step(leaves, batch):
        (params, state), count = jax.tree.unflatten(structure, leaves[:-1]), leaves[-1]
        key = jax.random.fold_in(jax.random.key(1), count) if random else None
        value, grads = jax.value_and_grad(
            lambda params: loss(eqx.combine(params, static), batch, key)
        )(params)
        updates, state = optimizer.update(grads, state)
        params = eqx.apply_updates(params, updates)
        return [*jax.tree.leaves((params, state)), count + 1], value

    return [*map(jax.numpy.copy, leaves), jax.numpy.zeros((), "int32")], step


def bare_loop(problem: Problem):
    import jax
    import numpy as np

    leaves, step = _flat_step(problem)
    step = jax.jit(step, donate_argnums=0)
    data = problem.data()
    rng = np.random.default_rng(1)
    carry = [leaves]

    def epoch():
        order = rng.permutation(problem.batch * problem.steps)
        for i, batch in enumerate(batches(problem, data, order)):
            carry[0], value = step(carry[0], batch)
            if i % LOG_EVERY == LOG_EVERY - 1:
                float(value)
        jax.block_until_ready(value)

    return timed(epoch, problem)


def scan(problem: Problem):
    import jax
    import numpy as np

    leaves, step = _flat_step(problem)
    many = jax.jit(
        lambda leaves, batches: jax.lax.scan(step, leaves, batches), donate_argnums=0
    )
    data = problem.data()
    rng = np.random.default_rng(1)
    carry = [leaves]
    chunk = min(LOG_EVERY, problem.steps)

    def epoch():
        order = rng.permutation(problem.batch * problem.steps)
        for rows in order.reshape(-1, chunk, problem.batch):
            stack = jax.tree.map(lambda a, rows=rows: a[rows], data)
            carry[0], values = many(carry[0], stack)
        jax.block_until_ready(values)

    return timed(epoch, problem)


def fit(problem: Problem):
    """Epochs from a run of `jaxprob.fit` in a thread, each let go when it is its turn.

    The loader is the gate: the epoch begins when it is asked for the order of its rows.
    """
    import threading

    import jax

    import jaxprob

    go, done = threading.Semaphore(0), threading.Semaphore(0)
    times = []

    class Gated(jaxprob.ArrayLoader):
        def set_epoch(self, epoch):
            times.append(time.perf_counter())
            done.release()
            go.acquire()
            times.append(time.perf_counter())
            super().set_epoch(epoch)

    loader = Gated(problem.data(), batch_size=problem.batch, shuffle=True)
    threading.Thread(
        target=jaxprob.fit,
        args=(problem.learner(), problem.model(), loader),
        kwargs={"key": jax.random.key(0), "num_epochs": 10**6},
        daemon=True,
    ).start()
    done.acquire()

    def epoch():
        go.release()
        done.acquire()
        return 1e6 * (times[-1] - times[-2]) / problem.steps

    return _warm(epoch)


class Epochs:
    """Drives `trainer.fit` from outside, one epoch for each round."""

    def __init__(self, module, make_data, log_every, steps):
        import logging
        import threading

        import pytorch_lightning as pl
        from pytorch_lightning.loggers import TensorBoardLogger

        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._begin, self._seconds, self._steps = 0.0, 0.0, steps
        outer = self

        class Gate(pl.Callback):
            def on_train_epoch_start(self, trainer, pl_module):
                outer._go.acquire()
                outer._begin = time.perf_counter()

            def on_train_epoch_end(self, trainer, pl_module):
                outer._seconds = time.perf_counter() - outer._begin
                outer._done.release()

        folder = tempfile.mkdtemp()
        trainer = pl.Trainer(
            max_epochs=-1,
            accelerator="cpu",
            default_root_dir=folder,
            logger=TensorBoardLogger(folder),
            log_every_n_steps=log_every,
            callbacks=[Gate()],
        )
        threading.Thread(
            target=trainer.fit, args=(module, make_data()), daemon=True
        ).start()

    def __call__(self):
        self._go.release()
        self._done.acquire()
        return 1e6 * self._seconds / self._steps


def _warm(epochs):
    epochs()
    epochs()
    return epochs


def bridge(problem: Problem, log_every=LOG_EVERY):
    from jaxprob.lightning import ArrayDataModule, LearnerModule

    module = LearnerModule(problem.learner(), problem.model())
    return _warm(
        Epochs(
            module,
            lambda: ArrayDataModule(problem.data(), batch_size=problem.batch),
            log_every,
            problem.steps,
        )
    )


def bridge_every_step(problem: Problem):
    return bridge(problem, 1)


def _torch_parts(problem):
    import torch

    torch.manual_seed(0)
    assert problem.widths is not None
    layers = []
    for width, following in zip(problem.widths, problem.widths[1:], strict=False):
        layers += [torch.nn.Linear(width, following), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]), torch.nn.functional.mse_loss


def torch_loop(problem: Problem):
    import torch

    net, loss = _torch_parts(problem)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    x, y = map(torch.from_numpy, problem.data())

    def epoch():
        order = torch.randperm(len(x))
        for i in range(problem.steps):
            rows = order[i * problem.batch : (i + 1) * problem.batch]
            value = loss(net(x[rows]), y[rows])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            if i % LOG_EVERY == LOG_EVERY - 1:
                value.item()

    return timed(epoch, problem)


def torch_lightning(problem: Problem, log_every=LOG_EVERY):
    import pytorch_lightning as pl
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    net, loss = _torch_parts(problem)

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net

        def training_step(self, batch, index):
            x, y = batch
            value = loss(self.net(x), y)
            self.log("train_loss", value, on_step=True, on_epoch=True, prog_bar=True)
            return value

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    tensors = TensorDataset(*map(torch.from_numpy, problem.data()))
    return _warm(
        Epochs(
            Module(),
            lambda: DataLoader(tensors, batch_size=problem.batch, shuffle=True),
            log_every,
            problem.steps,
        )
    )


def torch_lightning_every_step(problem: Problem):
    return torch_lightning(problem, 1)


def rows_of(name: str, options) -> dict[str, str]:
    """The variants that are measured on a problem."""
    wanted = dict(VARIANTS)
    if name == "tiny" and (options.every_step or not options.quick):
        wanted |= EVERY_STEP
    if name in ("middle", "large"):
        wanted = {k: v for k, v in wanted.items() if k not in ("scan", "fit")}
    if name == "mixer":
        wanted = {k: VARIANTS[k] for k in ("filter_jit_loop", "bare_loop", "bridge")}
    if options.only:
        wanted = {k: v for k, v in wanted.items() if k in options.only}
    elif options.quick:
        wanted = {k: v for k, v in wanted.items() if not k.startswith("torch")}
    return wanted


def measure(name: str, options) -> None:
    names = rows_of(name, options)
    rounds = options.rounds or (5 if options.quick else 9)
    arguments = ("--problem", name)
    figures = medians(
        alternate("benchmarks.bridge", names, rounds=rounds, arguments=arguments)
    )
    base, bare = (figures.get(k, math.nan) for k in ("filter_jit_loop", "bare_loop"))
    rows = [("variant", "us/step", "filter_jit / it", "bare / it")]
    rows += [
        (names[k], f"{v:.1f}", f"{base / v:.2f}", f"{bare / v:.3f}")
        for k, v in figures.items()
    ]
    report(
        f"{PROBLEMS[name].title}: microseconds per training step",
        rows,
        {f"{name}_{k}_us": round(value, 2) for k, value in figures.items()},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="five rounds, no torch")
    parser.add_argument("--every-step", action="store_true", help="log each step too")
    parser.add_argument("--problem", choices=PROBLEMS, nargs="+", default=[*PROBLEMS])
    parser.add_argument("--only", choices=[*VARIANTS, *EVERY_STEP], nargs="+")
    parser.add_argument("--rounds", type=int, help="how often each is measured")
    parser.add_argument("--variant", choices=[*VARIANTS, *EVERY_STEP])
    options = parser.parse_args()
    if options.variant:
        problem = PROBLEMS[options.problem[0]]
        serve(functools.partial(globals()[options.variant], problem))
        return
    for name in options.problem:
        measure(name, options)


if __name__ == "__main__":
    main()
