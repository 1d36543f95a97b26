"""An ensemble of 32: vectorised, in a JAX loop over members, in a PyTorch loop.

    python -m benchmarks.ensembles [--quick]

A tabular MLP 8-50-50-1, batch 100, Adam; milliseconds for one step of all members. The
JAX loop trains each member with its own compiled loop of steps, one after the other.
"""

import argparse
import time

from ._timing import alternate, medians, report, serve

MEMBERS, BATCH, STEPS = 32, 100, 50
VARIANTS = {
    "vmap": "DeepEnsemble, vmap",
    "jax_loop": "JAX, each member's compiled loop",
    "jax_steps": "JAX, one jitted step at a time",
    "torch": "PyTorch loop over members",
}


def jax_round(name):
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    from jaxprob import bnn

    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=1000)
    single = bnn.MAP(joint, optax.adam(1e-3))
    method = bnn.DeepEnsemble(single, MEMBERS) if name == "vmap" else single
    model = eqx.nn.MLP(8, "scalar", 50, 2, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (BATCH, 8))
    batch = (x, jnp.sin(x[:, 0]))
    state = eqx.filter_jit(method.init)(model, key=jax.random.key(2))
    arrays, static = eqx.partition(state, eqx.is_array)

    def step(arrays, key):
        state, _ = method.update(eqx.combine(arrays, static), batch, key=key)
        return eqx.filter(state, eqx.is_array), None

    one = jax.jit(lambda a, k: step(a, k)[0])
    run = jax.jit(lambda a, k: jax.lax.scan(step, a, jax.random.split(k, STEPS))[0])
    key = jax.random.key(3)

    def all_members():
        if name == "vmap":
            return run(arrays, key)
        if name == "jax_loop":
            return [run(arrays, key) for _ in range(MEMBERS)]
        out = []
        for _ in range(MEMBERS):
            carry = arrays
            for _ in range(STEPS):
                carry = one(carry, key)
            out.append(carry)
        return out

    jax.block_until_ready(all_members())

    def measure():
        begin = time.perf_counter()
        jax.block_until_ready(all_members())
        return 1e3 * (time.perf_counter() - begin) / STEPS

    return measure


def torch_round():
    import torch

    x = torch.randn(BATCH, 8)
    y = torch.sin(x[:, 0])
    members = []
    for _ in range(MEMBERS):
        net = torch.nn.Sequential(
            torch.nn.Linear(8, 50),
            torch.nn.ReLU(),
            torch.nn.Linear(50, 50),
            torch.nn.ReLU(),
            torch.nn.Linear(50, 1),
        )
        members.append((net, torch.optim.Adam(net.parameters(), 1e-3)))

    def measure():
        begin = time.perf_counter()
        for net, optimizer in members:
            for _ in range(STEPS):
                optimizer.zero_grad()
                torch.mean((net(x)[:, 0] - y) ** 2).backward()
                optimizer.step()
        return 1e3 * (time.perf_counter() - begin) / STEPS

    measure()
    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant == "torch":
        serve(torch_round)
        return
    if args.variant:
        serve(lambda: jax_round(args.variant))
        return
    times = alternate("benchmarks.ensembles", VARIANTS, rounds=3 if args.quick else 9)
    rows = [("", "ms per step of 32", "times slower than vmap")]
    figures = {}
    for name, value in medians(times).items():
        ratios = [a / b for a, b in zip(times[name], times["vmap"], strict=True)]
        ratio = medians({"ratio": ratios})["ratio"]
        figures[f"{name}_ms"] = value
        figures[f"{name}_ratio"] = ratio
        rows.append((VARIANTS[name], f"{value:.2f}", f"{ratio:.1f}"))
    report("Training an ensemble of 32", rows, figures)


if __name__ == "__main__":
    main()
