"""Training steps of the UNet and the DiT: per-example layers under vmap, and ours.

    python -m benchmarks.networks [--quick] [--cores N]

28x28 images in batches of 64, each variant in a process of its own; they take turns.

- layers: Equinox's layers, each a function of one vector or image, under `jax.vmap` in
  a loop of one's own, as in Equinox's diffusion example (`benchmarks.mixer`).
- loop: our network in that loop.
- jaxprob: our network, trained by `jaxprob.Stepper`; the DiT with `batch_size=8`, the
  UNet with whole batches, because XLA's loops on a CPU run convolutions slowly.
"""

from ._timing import Round, alternate, medians, pinned_arguments, report, serve
from .mixer import example_loop, stepper_round

STEPS = 2
SETTINGS = {
    "dit": {"patch_size": 4, "width": 64, "depth": 4, "num_heads": 4},
    "unet": {"widths": (16, 32, 32), "attention_at": (7,)},
}
FORMS = {"layers": "Equinox's layers", "loop": "our network", "jaxprob": "jaxprob"}


def _net(kind: str):
    import jax

    from jaxprob.diffusion import nn

    build = {"dit": nn.DiT, "unet": nn.UNet}[kind]
    return build((1, 28, 28), **SETTINGS[kind], key=jax.random.key(0))


def _dit_of_layers():
    """The same DiT of layers that are functions of one vector."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    settings = SETTINGS["dit"]
    width, patch = settings["width"], settings["patch_size"]

    class Block(eqx.Module):
        attention: eqx.nn.MultiheadAttention
        norm: eqx.nn.LayerNorm
        up: eqx.nn.Linear
        down: eqx.nn.Linear
        modulation: eqx.nn.Linear

        def __init__(self, key):
            keys = jax.random.split(key, 4)
            self.attention = eqx.nn.MultiheadAttention(
                settings["num_heads"],
                width,
                use_query_bias=True,
                use_key_bias=True,
                use_value_bias=True,
                use_output_bias=True,
                key=keys[0],
            )
            self.norm = eqx.nn.LayerNorm(width, use_weight=False, use_bias=False)
            self.up = eqx.nn.Linear(width, 4 * width, key=keys[1])
            self.down = eqx.nn.Linear(4 * width, width, key=keys[2])
            self.modulation = eqx.nn.Linear(width, 6 * width, key=keys[3])

        def __call__(self, rows, e):
            a1, b1, g1, a2, b2, g2 = jnp.split(self.modulation(e), 6)
            z = jax.vmap(self.norm)(rows) * (1.0 + a1) + b1
            rows = rows + g1 * self.attention(z, z, z)
            z = jax.vmap(self.norm)(rows) * (1.0 + a2) + b2
            z = jax.nn.gelu(jax.vmap(self.up)(z))
            return rows + g2 * jax.vmap(self.down)(z)

    class Net(eqx.Module):
        embedding: eqx.nn.MLP
        conv_in: eqx.nn.Conv2d
        positions: jax.Array
        blocks: list[Block]
        norm: eqx.nn.LayerNorm
        modulation: eqx.nn.Linear
        conv_out: eqx.nn.ConvTranspose2d

        def __init__(self, key):
            keys = jax.random.split(key, 5 + settings["depth"])
            self.embedding = eqx.nn.MLP(32, width, width, depth=1, key=keys[0])
            self.conv_in = eqx.nn.Conv2d(1, width, patch, patch, key=keys[1])
            self.positions = 0.02 * jax.random.normal(keys[2], (49, width))
            self.blocks = [Block(key) for key in keys[5:]]
            self.norm = eqx.nn.LayerNorm(width, use_weight=False, use_bias=False)
            self.modulation = eqx.nn.Linear(width, 2 * width, key=keys[3])
            self.conv_out = eqx.nn.ConvTranspose2d(width, 1, patch, patch, key=keys[4])

        def __call__(self, x, t):
            angles = t * jnp.geomspace(0.05, 5.0, 16)
            waves = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)])
            e = jax.nn.silu(self.embedding(waves))
            rows = self.conv_in(x).reshape(width, 49).T + self.positions
            for block in self.blocks:
                rows = block(rows, e)
            a, b = jnp.split(self.modulation(e), 2)
            rows = jax.vmap(self.norm)(rows) * (1.0 + a) + b
            return self.conv_out(rows.T.reshape(width, 7, 7))

    return Net(jax.random.key(0))


def _make(name: str) -> Round:
    kind, form = name.split("-")
    if form == "jaxprob":
        from jaxprob.diffusion import VP, Preconditioned

        denoiser = Preconditioned(_net(kind), VP.linear())
        return stepper_round(denoiser, 8 if kind == "dit" else None, STEPS)
    net = _dit_of_layers() if name == "dit-layers" else _net(kind)
    return example_loop(net, STEPS)


def main() -> None:
    # The UNet is made of layers that are functions of one image: one form for both.
    names = ["dit-layers", "dit-loop", "dit-jaxprob", "unet-loop", "unet-jaxprob"]
    arguments = pinned_arguments(__doc__, names)
    if arguments.variant:
        return serve(lambda: _make(arguments.variant))
    passed = ["--cores", str(arguments.cores)]
    rounds = 3 if arguments.quick else 7
    rates = medians(
        alternate("benchmarks.networks", names, rounds=rounds, arguments=passed)
    )
    rows = [("training step", "images/s", "times its layers")]
    for name in names:
        kind, form = name.split("-")
        base = rates["dit-layers" if kind == "dit" else "unet-loop"]
        label = f"{kind}: {FORMS[form]}"
        rows.append((label, f"{rates[name]:.0f}", f"{rates[name] / base:.2f}"))
    report(f"UNet and DiT on {arguments.cores} core(s)", rows, rates)


if __name__ == "__main__":
    main()
