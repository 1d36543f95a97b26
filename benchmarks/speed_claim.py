"""Is JAX faster than PyTorch? Training steps of two networks, over batch sizes.

    python -m benchmarks.speed_claim [--nets deep wide] [--batches 1 16 128 1024]
                                     [--cores N] [--quick]

Of JAX it is said that it takes a third of PyTorch's time. That is said of networks with
many small operations, where what is measured is the handing over of work; where the
operations are large, both wait for the same arithmetic. So there are two networks,

- deep: 12 residual layers of width 32, each with its norm, a product and a GELU;
- wide: two hidden layers of width 1024;

and each is trained (squared error, Adam) by

- JAX: an Equinox module, its step compiled by `eqx.filter_jit`, called in a loop;
- jaxprob: the same in a `jaxprob.Stepper`, many steps in one dispatch;
- PyTorch, eager: torch.nn and torch.optim.Adam;
- PyTorch, compiled: `torch.compile` of network and loss, and Adam in one kernel.

Each runs in a process of its own, in turn, on the same cores, or on a GPU where its
library finds one. PyTorch needs a C++ compiler for its compiled variant.
"""

import argparse
import itertools
import os
import time

from ._timing import Round, alternate, medians, report, serve

NAMES = {
    "jax": "JAX",
    "jaxprob": "jaxprob",
    "eager": "PyTorch, eager",
    "compiled": "PyTorch, compiled",
}
NETS = ("deep", "wide")
INPUTS, DEEP, NARROW, WIDE = 32, 12, 32, 1024
RATE = 1e-3


def _data(batch):
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, INPUTS)).astype(np.float32)
    return x, x[:, :1] * x[:, 1:2]


def _equinox(net):
    import equinox as eqx
    import jax

    keys = jax.random.split(jax.random.key(0), DEEP + 1)
    if net == "wide":
        return eqx.nn.MLP(INPUTS, 1, WIDE, 2, jax.nn.gelu, key=keys[0])

    class Deep(eqx.Module):
        norms: list[eqx.nn.LayerNorm]
        layers: list[eqx.nn.Linear]
        last: eqx.nn.Linear

        def __call__(self, x):
            for norm, layer in zip(self.norms, self.layers, strict=True):
                x = x + jax.nn.gelu(layer(norm(x)))
            return self.last(x)

    return Deep(
        [eqx.nn.LayerNorm(NARROW) for _ in range(DEEP)],
        [eqx.nn.Linear(NARROW, NARROW, key=key) for key in keys[1:]],
        eqx.nn.Linear(NARROW, 1, key=keys[0]),
    )


def _torch_net(net):
    from torch import nn

    if net == "wide":
        return nn.Sequential(
            nn.Linear(INPUTS, WIDE),
            nn.GELU("tanh"),
            nn.Linear(WIDE, WIDE),
            nn.GELU("tanh"),
            nn.Linear(WIDE, 1),
        )

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList(nn.LayerNorm(NARROW) for _ in range(DEEP))
            self.layers = nn.ModuleList(nn.Linear(NARROW, NARROW) for _ in range(DEEP))
            self.last = nn.Linear(NARROW, 1)

        def forward(self, x):
            for norm, layer in zip(self.norms, self.layers, strict=True):
                x = x + nn.functional.gelu(layer(norm(x)), approximate="tanh")
            return self.last(x)

    return Deep()


def _jax(net, batch):
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    model, optimizer = _equinox(net), optax.adam(RATE)
    opt_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    x, y = map(jnp.asarray, _data(batch))

    @eqx.filter_value_and_grad
    def loss(model, x, y):
        return jnp.mean((jax.vmap(model)(x) - y) ** 2)

    @eqx.filter_jit(donate="all-except-first")
    def step(data, model, opt_state):
        value, grads = loss(model, *data)
        updates, opt_state = optimizer.update(grads, opt_state)
        return eqx.apply_updates(model, updates), opt_state, value

    def run(num):
        nonlocal model, opt_state
        for _ in range(num):
            model, opt_state, value = step((x, y), model, opt_state)
        return float(value)

    return run


def _jaxprob(net, batch):
    import jax
    import jax.numpy as jnp
    import optax

    import jaxprob

    @jaxprob.mean_loss
    def loss(model, example, *, key):
        x, y = example
        return jnp.mean((model(x) - y) ** 2)

    learner = jaxprob.GradientDescent(loss, optax.adam(RATE))
    state = learner.init(_equinox(net))
    stepper = jaxprob.Stepper(learner, state, key=jax.random.key(1))
    loader = jaxprob.ArrayLoader(_data(batch), batch_size=batch, drop_last=True)
    batches = list(loader)

    def run(num):
        done = 0
        while done < num:
            take = min(stepper.capacity, num - done)
            values = stepper(batches * take)
            done += take
        return float(dict(values)["loss"][-1])

    return run


def _torch(net, batch, *, compiled):
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = _torch_net(net).to(device)
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=compiled or None)
    x, y = (torch.from_numpy(array).to(device) for array in _data(batch))

    def loss(x, y):
        return ((model(x) - y) ** 2).mean()

    if compiled:
        loss = torch.compile(loss, dynamic=False)

    def run(num):
        for _ in range(num):
            optimizer.zero_grad(set_to_none=True)
            value = loss(x, y)
            value.backward()
            optimizer.step()
        return value.item()

    return run


def _measure(name: str, net: str, batch: int, seconds: float) -> Round:
    """Steps in a second, over rounds of about so many seconds."""
    if name == "jax":
        run = _jax(net, batch)
    elif name == "jaxprob":
        run = _jaxprob(net, batch)
    else:
        run = _torch(net, batch, compiled=name == "compiled")
    run(8)  # compiles; jaxprob times its first steps to choose how many to dispatch
    num, taken = 1, 0.0
    while taken < seconds / 4:
        num *= 2
        begin = time.perf_counter()
        run(num)
        taken = time.perf_counter() - begin
    num = max(1, round(num * seconds / taken))

    def measure() -> float:
        begin = time.perf_counter()
        run(num)
        return num / (time.perf_counter() - begin)

    return measure


def _make(name: str, net: str, batches: list[int], seconds: float) -> Round:
    """One batch size after another, and again from the first."""
    turn = itertools.cycle([_measure(name, net, batch, seconds) for batch in batches])
    return lambda: next(turn)()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=NETS, default=NETS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16, 128, 1024])
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="fewer, shorter rounds")
    parser.add_argument("--variant", choices=NAMES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    batches, seconds = arguments.batches, 0.1 if arguments.quick else 0.4
    if arguments.variant:
        (net,) = arguments.nets
        return serve(lambda: _make(arguments.variant, net, batches, seconds))
    rows: list[tuple[str, ...]] = [
        ("network, batch", *NAMES.values(), "JAX / eager", "JAX / compiled")
    ]
    rates = {}
    for net in arguments.nets:
        own = ["--nets", net, "--batches", *map(str, batches)]
        own += ["--cores", str(arguments.cores), *(["--quick"] * arguments.quick)]
        figures = alternate(
            "benchmarks.speed_claim",
            NAMES,
            rounds=(3 if arguments.quick else 5) * len(batches),
            arguments=own,
        )
        for place, batch in enumerate(batches):
            found = medians({k: v[place :: len(batches)] for k, v in figures.items()})
            rates[f"{net}, {batch}"] = found
            ratios = [found["jax"] / found[name] for name in ("eager", "compiled")]
            rows.append(
                (
                    f"{net}, {batch}",
                    *(f"{found[name]:.0f}" for name in NAMES),
                    *(f"{ratio:.2f}" for ratio in ratios),
                )
            )
    report(f"Training steps in a second, {arguments.cores} core(s)", rows, rates)


if __name__ == "__main__":
    main()
