"""Training steps of the example's Mixer: its own form, ours, PyTorch's.

    python -m benchmarks.mixer [--quick] [--cores N]

28x28 images in batches of 64, the network of Equinox's score-based diffusion example.

- example: its layers under `jax.vmap` in a loop of one's own, as the example has it.
- example, batch in products: our network in that loop.
- jaxprob: our network, trained by `jaxprob.Stepper` with `batch_size=8`.
- PyTorch, eager: the same network with torch.nn's layers and AdamW.

Each runs in a process of its own on so many cores; they take turns.

"""

import os
import time

from ._timing import Round, alternate, medians, pinned_arguments, report, serve

BATCH, STEPS = 64, 4
NAMES = {
    "example": "example",
    "flat": "example, batch in products",
    "jaxprob": "jaxprob",
    "torch": "PyTorch, eager",
}


def images():
    import numpy as np

    return np.random.default_rng(0).normal(size=(BATCH, 1, 28, 28)).astype(np.float32)


def _example_net(key):
    """The example's network from Equinox's layers, each a function of one vector."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    class Block(eqx.Module):
        patch_mixer: eqx.nn.MLP
        hidden_mixer: eqx.nn.MLP
        norm1: eqx.nn.LayerNorm
        norm2: eqx.nn.LayerNorm

        def __init__(self, key):
            patch_key, hidden_key = jax.random.split(key)
            self.patch_mixer = eqx.nn.MLP(49, 49, 512, depth=1, key=patch_key)
            self.hidden_mixer = eqx.nn.MLP(64, 64, 512, depth=1, key=hidden_key)
            self.norm1 = eqx.nn.LayerNorm([64, 49])
            self.norm2 = eqx.nn.LayerNorm((49, 64))

        def __call__(self, y):
            y = y + jax.vmap(self.patch_mixer)(self.norm1(y))
            y = y.T
            return (y + jax.vmap(self.hidden_mixer)(self.norm2(y))).T

    class Net(eqx.Module):
        conv_in: eqx.nn.Conv2d
        blocks: list[Block]
        norm: eqx.nn.LayerNorm
        conv_out: eqx.nn.ConvTranspose2d

        def __init__(self, key):
            in_key, out_key, *keys = jax.random.split(key, 6)
            self.conv_in = eqx.nn.Conv2d(2, 64, 4, stride=4, key=in_key)
            self.blocks = [Block(key) for key in keys]
            self.norm = eqx.nn.LayerNorm([64, 49])
            self.conv_out = eqx.nn.ConvTranspose2d(64, 1, 4, stride=4, key=out_key)

        def __call__(self, y, t):
            y = jnp.concatenate([y, jnp.full((1, 28, 28), t / 10.0, y.dtype)])
            y = self.conv_in(y).reshape(64, 49)
            for block in self.blocks:
                y = block(y)
            return self.conv_out(self.norm(y).reshape(64, 7, 7))

    return Net(key)


def example_loop(net, steps: int = STEPS) -> Round:
    """The example's loop: a jitted step, called from Python."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.adabelief(3e-4)
    opt_state = optimizer.init(eqx.filter(net, eqx.is_inexact_array))
    x = jnp.asarray(images())

    def single(net, x, t, key):
        std = jnp.sqrt(jnp.maximum(1.0 - jnp.exp(-t), 1e-5))
        noise = jax.random.normal(key, x.shape)
        prediction = net(x * jnp.exp(-0.5 * t) + std * noise, t)
        return (1.0 - jnp.exp(-t)) * jnp.mean((prediction + noise / std) ** 2)

    def batch(net, x, key):
        time_key, noise_key = jax.random.split(key)
        keys = jax.random.split(noise_key, BATCH)
        width = 10.0 / BATCH
        t = jax.random.uniform(time_key, (BATCH,), maxval=width)
        t = t + width * jnp.arange(BATCH)
        return jnp.mean(jax.vmap(lambda *row: single(net, *row))(x, t, keys))

    @eqx.filter_jit
    def step(net, opt_state, key):
        loss, grads = eqx.filter_value_and_grad(batch)(net, x, key)
        updates, opt_state = optimizer.update(grads, opt_state)
        key = jax.random.fold_in(key, 1)
        return loss, eqx.apply_updates(net, updates), opt_state, key

    carry = (net, opt_state, jax.random.key(1))

    def measure() -> float:
        nonlocal carry
        begin = time.perf_counter()
        for _ in range(steps):
            loss, *carry = step(*carry)
            loss.item()
        return BATCH * steps / (time.perf_counter() - begin)

    measure()
    return measure


def stepper_round(denoiser, batch_size: int | None = 8, steps: int = STEPS) -> Round:
    """A denoiser trained by `jaxprob.Stepper`."""
    import jax
    import optax

    import jaxprob
    from jaxprob.diffusion import DenoisingLoss

    learner = jaxprob.GradientDescent(
        DenoisingLoss(batch_size=batch_size), optax.adabelief(3e-4)
    )
    state = learner.init(denoiser, key=jax.random.key(0))
    stepper = jaxprob.Stepper(
        learner, state, key=jax.random.key(1), steps_per_dispatch=steps
    )
    batches = [images()] * steps

    def measure() -> float:
        begin = time.perf_counter()
        jax.block_until_ready(dict(stepper(batches))["loss"])
        return BATCH * steps / (time.perf_counter() - begin)

    measure()
    return measure


def _torch() -> Round:
    import torch
    from torch import nn

    torch.set_num_threads(len(os.sched_getaffinity(0)))

    def mlp(narrow):
        return nn.Sequential(nn.Linear(narrow, 512), nn.ReLU(), nn.Linear(512, narrow))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch_mixer, self.hidden_mixer = mlp(49), mlp(64)
            self.norm1, self.norm2 = nn.LayerNorm([64, 49]), nn.LayerNorm([49, 64])

        def forward(self, y):
            y = (y + self.patch_mixer(self.norm1(y))).transpose(1, 2)
            return (y + self.hidden_mixer(self.norm2(y))).transpose(1, 2)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv_in = nn.Conv2d(2, 64, 4, stride=4)
            self.blocks = nn.Sequential(*(Block() for _ in range(4)))
            self.norm = nn.LayerNorm([64, 49])
            self.conv_out = nn.ConvTranspose2d(64, 1, 4, stride=4)

        def forward(self, y, t):
            t = (t / 10.0).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
            y = self.conv_in(torch.cat([y, t], dim=1)).flatten(2)
            return self.conv_out(self.norm(self.blocks(y)).unflatten(2, (7, 7)))

    net, x = Net(), torch.from_numpy(images())
    optimizer = torch.optim.AdamW(net.parameters(), 3e-4)

    def step():
        t = (torch.rand(BATCH) + torch.arange(BATCH)) * (10.0 / BATCH)
        scale = torch.exp(-0.5 * t).view(-1, 1, 1, 1)
        std = torch.sqrt(-torch.expm1(-t)).view(-1, 1, 1, 1)
        noise = torch.randn_like(x)
        prediction = net(x * scale + std * noise, t)
        loss = (std**2 * (prediction + noise / std) ** 2).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    def measure() -> float:
        begin = time.perf_counter()
        for _ in range(STEPS):
            step().item()
        return BATCH * STEPS / (time.perf_counter() - begin)

    measure()
    return measure


def _make(name: str) -> Round:
    if name == "torch":
        return _torch()
    import jax

    if name == "example":
        return example_loop(_example_net(jax.random.key(0)))
    from jaxprob.diffusion import kidger_mixer

    denoiser = kidger_mixer((1, 28, 28), key=jax.random.key(0))
    return stepper_round(denoiser) if name == "jaxprob" else example_loop(denoiser.net)


def main() -> None:
    arguments = pinned_arguments(__doc__, NAMES)
    if arguments.variant:
        return serve(lambda: _make(arguments.variant))
    rates = medians(
        alternate(
            "benchmarks.mixer",
            NAMES,
            rounds=3 if arguments.quick else 9,
            arguments=["--cores", str(arguments.cores)],
        )
    )
    rows = [("training step", "images/s", "times the example", "times PyTorch")]
    rows += [
        (
            label,
            f"{rates[name]:.0f}",
            f"{rates[name] / rates['example']:.2f}",
            f"{rates[name] / rates['torch']:.2f}",
        )
        for name, label in NAMES.items()
    ]
    report(f"Mixer2d on {arguments.cores} core(s)", rows, rates)


if __name__ == "__main__":
    main()
