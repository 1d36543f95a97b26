"""Rows of `jaxprob.diffusion.nn`: the output of each network and its gradient."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxprob import diffusion
from jaxprob.diffusion import nn

from ._problems import rippled

SHAPE = (1, 8, 8)
KEY = jax.random.key(11)


def image():
    return np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)


def vector():
    return np.random.default_rng(3).normal(size=(3,)).astype(np.float32)


def called(make, x, *cond):
    """Return the output of a network for two examples, and a gradient."""
    net = rippled(make())
    x = jnp.stack([jnp.asarray(x()), -jnp.asarray(x())])
    c = jnp.asarray([0.3, -0.7])

    @eqx.filter_jit
    def both(net, x):
        def output(net, x):
            return jax.vmap(lambda x, c: net(x, c, *cond))(x, c)

        grads = eqx.filter_grad(lambda net: jnp.sum(output(net, x) ** 2))(net)
        return output(net, x), jax.tree.leaves(eqx.filter(grads, eqx.is_array))

    output, grads = both(net, x)
    # Sums and largest entries: their order is that of the parameters' paths.
    return {"output": output, "gradient": [jnp.sum(g, dtype=g.dtype) for g in grads]}


def mixer(**settings):
    return nn.Mixer2d(SHAPE, 4, 6, 8, 10, 2, key=KEY, **settings)


def adaptive(**settings):
    return nn.AdaptiveMixer2d(SHAPE, 4, 6, 8, 10, 2, key=KEY, **settings)


def mlp(**settings):
    return nn.ResidualMLP(3, width=8, depth=2, key=KEY, **settings)


def unet(**settings):
    return nn.UNet(
        SHAPE, widths=(4, 8), attention_at=(4,), num_heads=2, key=KEY, **settings
    )


def dit(**settings):
    return nn.DiT(SHAPE, 4, width=8, depth=2, num_heads=2, key=KEY, **settings)


def kidger():
    """Return the output of the example's denoiser."""
    denoiser = rippled(
        diffusion.kidger_mixer(
            SHAPE,
            hidden_size=6,
            mix_patch_size=8,
            mix_hidden_size=10,
            num_blocks=2,
            key=KEY,
        )
    )
    times = jnp.asarray([0.2, 3.0])
    call = eqx.filter_jit(lambda d, x: jax.vmap(lambda t: d(x, t))(times))
    return call(denoiser, jnp.asarray(image()))


def parts():
    """Return outputs of the parts that networks are made of."""
    rows = jnp.asarray(np.random.default_rng(4).normal(size=(5, 8)).astype(np.float32))
    embedding = rippled(nn.Embedding(8, num_classes=3, key=KEY))
    c = jnp.asarray(0.3)
    return {
        "sinusoids": nn.Sinusoids(8)(c),
        "embedding": embedding(c, jnp.asarray(2)),
        "embedding without": embedding(c),
        "attention": rippled(nn.SelfAttention(8, 2, key=KEY))(rows),
    }


def _two(make):
    return lambda: nn.LowPrecision(make())


ONE = jnp.asarray(1)
NETWORKS = {
    "ResidualMLP": (mlp, vector),
    "ResidualMLP, class": (functools.partial(mlp, num_classes=3), vector, ONE),
    "ResidualMLP, vector": (
        functools.partial(mlp, cond_dim=2),
        vector,
        jnp.asarray([0.5, -1.0]),
    ),
    "Mixer2d": (mixer, image),
    "AdaptiveMixer2d": (adaptive, image),
    "AdaptiveMixer2d, class": (
        functools.partial(adaptive, num_classes=3),
        image,
        ONE,
    ),
    "UNet": (unet, image),
    "UNet, class": (functools.partial(unet, num_classes=3), image, ONE),
    "DiT": (dit, image),
    "DiT, class": (functools.partial(dit, num_classes=3), image, ONE),
    "LowPrecision of ResidualMLP": (_two(mlp), vector),
    "LowPrecision of UNet": (_two(unet), image),
}

ROWS = {
    **{
        f"network: {name}": functools.partial(called, *arguments)
        for name, arguments in NETWORKS.items()
    },
    "network: kidger_mixer": kidger,
    "network: parts": parts,
}
