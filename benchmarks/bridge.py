"""Microseconds per training step: bare loops, `fit`, Lightning with ours and torch.

A 1-64-64-1 MLP on batches of 32 with Adam, as a user would write each variant. The
Lightning variants run with TensorBoard, a progress bar and checkpoints on, logging
every 50 steps; a round is one epoch between two hooks, so nothing but training counts.

    python -m benchmarks.bridge [--quick] [--every-step]
"""

import argparse
import tempfile
import time

from ._timing import alternate, medians, report, serve

BATCH, STEPS = 32, 1000
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


def data():
    import numpy as np

    x = np.random.default_rng(0).normal(size=(BATCH * STEPS, 1)).astype(np.float32)
    return x, np.sin(3 * x)


def per_step(seconds: float) -> float:
    return 1e6 * seconds / STEPS


def timed(epoch):
    """A round that times `epoch()`, after one that compiled it."""
    epoch()

    def measure():
        begin = time.perf_counter()
        epoch()
        return per_step(time.perf_counter() - begin)

    return measure


def jax_parts():
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    model = eqx.nn.MLP(1, 1, 64, 2, key=jax.random.key(0))

    def loss(model, x, y):
        return jnp.mean((jax.vmap(model)(x) - y) ** 2)

    return model, optax.adam(1e-3), loss


def batches(x, y, order):
    for i in range(STEPS):
        rows = order[i * BATCH : (i + 1) * BATCH]
        yield x[rows], y[rows]


def filter_jit_loop():
    import equinox as eqx
    import numpy as np

    model, optimizer, loss = jax_parts()
    x, y = data()
    rng = np.random.default_rng(1)

    @eqx.filter_jit
    def step(model, state, x, y):
        value, grads = eqx.filter_value_and_grad(loss)(model, x, y)
        updates, state = optimizer.update(grads, state)
        return eqx.apply_updates(model, updates), state, value

    carry = [model, optimizer.init(eqx.filter(model, eqx.is_inexact_array))]

    def epoch():
        for i, (a, b) in enumerate(batches(x, y, rng.permutation(len(x)))):
            carry[0], carry[1], value = step(carry[0], carry[1], a, b)
            if i % LOG_EVERY == LOG_EVERY - 1:
                float(value)

    return timed(epoch)


def _key():
    import jax

    return jax.random.key(0)


def _flat_step():
    """A step on a flat list of arrays: the least that one dispatch can cost."""
    import equinox as eqx
    import jax

    model, optimizer, loss = jax_parts()
    params, static = eqx.partition(model, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten((params, optimizer.init(params)))

    def step(leaves, x, y):
        params, state = jax.tree.unflatten(structure, leaves)
        value, grads = jax.value_and_grad(
            lambda params: loss(eqx.combine(params, static), x, y)
        )(params)
        updates, state = optimizer.update(grads, state)
        params = eqx.apply_updates(params, updates)
        return jax.tree.leaves((params, state)), value

    return leaves, step


def bare_loop():
    import jax
    import numpy as np

    leaves, step = _flat_step()
    step = jax.jit(step, donate_argnums=0)
    x, y = data()
    rng = np.random.default_rng(1)
    carry = [leaves]

    def epoch():
        for i, (a, b) in enumerate(batches(x, y, rng.permutation(len(x)))):
            carry[0], value = step(carry[0], a, b)
            if i % LOG_EVERY == LOG_EVERY - 1:
                float(value)

    return timed(epoch)


def scan():
    import jax
    import numpy as np

    leaves, step = _flat_step()

    def many(leaves, xs, ys):
        return jax.lax.scan(lambda c, b: step(c, *b), leaves, (xs, ys))

    many = jax.jit(many, donate_argnums=0)
    x, y = data()
    rng = np.random.default_rng(1)
    carry = [leaves]

    def epoch():
        rows = rng.permutation(len(x)).reshape(-1, LOG_EVERY, BATCH)
        for chunk in rows:
            carry[0], values = many(carry[0], x[chunk], y[chunk])
        float(values[-1])

    return timed(epoch)


def _learner():
    import equinox as eqx
    import jax.numpy as jnp
    import optax

    import jaxprob

    @jaxprob.mean_loss
    def loss(model, example, *, key):
        x, y = example
        return jnp.mean((model(x) - y) ** 2), {}

    model = eqx.nn.MLP(1, 1, 64, 2, key=_key())
    return jaxprob.GradientDescent(loss, optax.adam(1e-3)), model


def fit():
    """Epochs from a run of `jaxprob.fit` in a thread, each let go when it is its turn.

    The loader is the gate: the epoch begins when it is asked for the order of its rows.
    """
    import threading

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

    learner, model = _learner()
    loader = Gated(data(), batch_size=BATCH, shuffle=True)
    run = {"key": _key(), "num_epochs": 10**6}
    threading.Thread(
        target=jaxprob.fit, args=(learner, model, loader), kwargs=run, daemon=True
    ).start()
    done.acquire()

    def epoch():
        go.release()
        done.acquire()
        return per_step(times[-1] - times[-2])

    return _warm(epoch)


class Epochs:
    """Drives `trainer.fit` from outside, one epoch for each round."""

    def __init__(self, module, make_data, log_every):
        import logging
        import threading

        import pytorch_lightning as pl
        from pytorch_lightning.loggers import TensorBoardLogger

        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._seconds = 0.0
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
        return per_step(self._seconds)


def _warm(epochs):
    epochs()
    epochs()
    return epochs


def bridge(log_every=LOG_EVERY):
    from jaxprob.lightning import ArrayDataModule, LearnerModule

    module = LearnerModule(*_learner())
    return _warm(
        Epochs(module, lambda: ArrayDataModule(data(), batch_size=BATCH), log_every)
    )


def bridge_every_step():
    return bridge(1)


def _torch_parts():
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(1, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 1),
    )
    return net, torch.nn.functional.mse_loss


def torch_loop():
    import torch

    net, loss = _torch_parts()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    x, y = map(torch.from_numpy, data())

    def epoch():
        order = torch.randperm(len(x))
        for i in range(STEPS):
            rows = order[i * BATCH : (i + 1) * BATCH]
            value = loss(net(x[rows]), y[rows])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            if i % LOG_EVERY == LOG_EVERY - 1:
                value.item()

    return timed(epoch)


def torch_lightning(log_every=LOG_EVERY):
    import pytorch_lightning as pl
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    net, loss = _torch_parts()

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

    tensors = TensorDataset(*map(torch.from_numpy, data()))
    return _warm(
        Epochs(
            Module(),
            lambda: DataLoader(tensors, batch_size=BATCH, shuffle=True),
            log_every,
        )
    )


def torch_lightning_every_step():
    return torch_lightning(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds, no torch")
    parser.add_argument("--every-step", action="store_true", help="log each step too")
    parser.add_argument("--variant", choices=[*VARIANTS, *EVERY_STEP])
    options = parser.parse_args()
    if options.variant:
        serve(globals()[options.variant])
        return
    names = dict(VARIANTS) | (EVERY_STEP if options.every_step else {})
    if options.quick:
        names = {k: v for k, v in names.items() if not k.startswith("torch")}
    figures = medians(
        alternate("benchmarks.bridge", names, rounds=3 if options.quick else 9)
    )
    base, bare = figures["filter_jit_loop"], figures["bare_loop"]
    rows = [("variant", "us/step", "filter_jit / it", "bare / it")]
    rows += [
        (names[k], f"{v:.1f}", f"{base / v:.2f}", f"{bare / v:.2f}")
        for k, v in figures.items()
    ]
    report(
        f"1-64-64-1 MLP, batch {BATCH}, microseconds per training step",
        rows,
        {f"{name}_us": round(value, 2) for name, value in figures.items()},
    )


if __name__ == "__main__":
    main()
