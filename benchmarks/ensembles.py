"""An ensemble of 32: vectorised, in a JAX loop over members, in a PyTorch loop.

    python -m benchmarks.ensembles [--quick]

A tabular MLP 8-50-50-1, batch 100, Adam; milliseconds for one step of all members. The
vectorised ensemble runs in `jaxprob.Stepper`, on one device or with its members on two,
into which JAX can divide a CPU. The JAX loops train the members one after the other: a
step at a time, as Equinox's own examples do it (`eqx.filter_jit`) or with `jax.jit`
over the bare arrays, or with each member's steps in a compiled loop.
"""

import argparse
import time

from ._timing import alternate, medians, report, serve

MEMBERS, BATCH, STEPS = 32, 100, 50
VARIANTS = {
    "devices": "DeepEnsemble, two devices",
    "vmap": "DeepEnsemble, one device",
    "jax_loop": "JAX, each member's compiled loop",
    "jax_steps": "JAX, one jitted step at a time",
    "equinox": "JAX, eqx.filter_jit steps",
    "torch": "PyTorch loop over members",
}
OURS = "devices"


def scene():
    """Method for one member, model and batch."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    from jaxprob import bnn

    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=1000)
    model = eqx.nn.MLP(8, "scalar", 50, 2, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (BATCH, 8))
    return bnn.MAP(joint, optax.adam(1e-3)), model, (x, jnp.sin(x[:, 0]))


def ensemble_round(devices):
    import equinox as eqx
    import jax

    import jaxprob
    from jaxprob import bnn

    jax.config.update("jax_num_cpu_devices", devices)
    single, model, batch = scene()
    method = bnn.DeepEnsemble(single, MEMBERS)
    stepper = jaxprob.Stepper(
        method,
        eqx.filter_jit(method.init)(model, key=jax.random.key(2)),
        key=jax.random.key(3),
        steps_per_dispatch=STEPS,
        layout=jaxprob.Layout(members=devices),
    )

    def measure():
        begin = time.perf_counter()
        jax.block_until_ready(dict(stepper([batch] * STEPS))["loss"])
        return 1e3 * (time.perf_counter() - begin) / STEPS

    measure()
    return measure


def step_megabytes(members):
    """Return the peak memory of a step in megabytes, as the compiler reports it."""
    import equinox as eqx
    import jax

    from jaxprob import bnn

    single, model, batch = scene()
    method = bnn.DeepEnsemble(single, members)
    state = eqx.filter_jit(method.init)(model, key=jax.random.key(2))
    arrays, static = eqx.partition(state, eqx.is_array)

    def step(arrays, key):
        state, _ = method.update(eqx.combine(arrays, static), batch, key=key)
        return eqx.filter(state, eqx.is_array)

    program = jax.jit(step, donate_argnums=0).lower(arrays, jax.random.key(3))
    memory = program.compile().memory_analysis()
    assert memory is not None  # this backend counts it
    return (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 1e6


def loop_round(name):
    import equinox as eqx
    import jax

    method, model, batch = scene()
    state = eqx.filter_jit(method.init)(model, key=jax.random.key(2))
    arrays, static = eqx.partition(state, eqx.is_array)
    key = jax.random.key(3)

    def step(arrays, key):
        state, _ = method.update(eqx.combine(arrays, static), batch, key=key)
        return eqx.filter(state, eqx.is_array), None

    one = jax.jit(lambda a, k: step(a, k)[0])
    run = jax.jit(lambda a, k: jax.lax.scan(step, a, jax.random.split(k, STEPS))[0])

    @eqx.filter_jit
    def update(state, batch, key):
        return method.update(state, batch, key=key)

    def member():
        if name == "jax_loop":
            return run(arrays, key)
        if name == "jax_steps":
            carry = arrays
            for _ in range(STEPS):
                carry = one(carry, key)
            return carry
        carry = state
        for _ in range(STEPS):
            carry, _ = update(carry, batch, key)
        return eqx.filter(carry, eqx.is_array)

    def all_members():
        return [member() for _ in range(MEMBERS)]

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
    if args.variant in ("devices", "vmap"):
        serve(lambda: ensemble_round(2 if args.variant == "devices" else 1))
        return
    if args.variant:
        serve(lambda: loop_round(args.variant))
        return
    times = alternate("benchmarks.ensembles", VARIANTS, rounds=3 if args.quick else 9)
    rows = [("", "ms per step of 32", "times slower than the first")]
    figures = {}
    for name, value in medians(times).items():
        ratios = [a / b for a, b in zip(times[name], times[OURS], strict=True)]
        ratio = medians({"ratio": ratios})["ratio"]
        figures[f"{name}_ms"] = value
        figures[f"{name}_ratio"] = ratio
        rows.append((VARIANTS[name], f"{value:.2f}", f"{ratio:.1f}"))
    report("Training an ensemble of 32", rows, figures)
    sizes = {members: step_megabytes(members) for members in (8, 32, 128)}
    rows = [("members", "MB of a step")]
    rows += [(str(members), f"{size:.1f}") for members, size in sizes.items()]
    report("\nMemory, one device", rows, {f"mb_{m}": s for m, s in sizes.items()})


if __name__ == "__main__":
    main()
