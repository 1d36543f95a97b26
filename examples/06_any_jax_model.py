"""Any JAX model in PyTorch Lightning: all that is asked of it is that it is a pytree.

    python examples/06_any_jax_model.py

One regression, trained six times by one LightningModule: with Equinox, a dict of
arrays, stax, a pair of pure functions as Haiku makes them, Flax Linen and Flax NNX (the
last two where flax is installed). A model comes with `apply(model, x)` for a batch; the
loss is the only place that calls it.
"""

import importlib.util
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytorch_lightning as pl
from jax.example_libraries import stax

import jaxprob
from jaxprob.lightning import ArrayDataModule, LearnerModule

WIDTH = 32
QUIET: Any = dict.fromkeys(
    ["logger", "enable_checkpointing", "enable_progress_bar"], False
)


def equinox(key):
    mlp = eqx.nn.MLP(1, 1, WIDTH, 1, jnp.tanh, key=key)
    return mlp, lambda mlp, x: jax.vmap(mlp)(x)


def dict_of_arrays(key):
    first, second = jax.random.split(key)
    params = {
        "w": jax.random.normal(first, (1, WIDTH)),
        "b": jnp.zeros((1, WIDTH)),
        "out": jax.random.normal(second, (WIDTH, 1)) / WIDTH**0.5,
    }
    return params, lambda p, x: jnp.tanh(x @ p["w"] + p["b"]) @ p["out"]


def stax_layers(key):
    init, apply = stax.serial(stax.Dense(WIDTH), stax.Tanh, stax.Dense(1))
    _, params = init(jax.random.key_data(key), (-1, 1))
    return params, apply


def pure_functions(key):
    # What `haiku.transform(f)` gives: `params = init(key, x)`, `apply(params, key, x)`.
    def init(key, x):
        w = jax.random.normal(key, (2, x.shape[-1], WIDTH))
        return {"linear": {"w": w[0]}, "linear_1": {"w": w[1].T / WIDTH**0.5}}

    def apply(params, key, x):
        return jnp.tanh(x @ params["linear"]["w"]) @ params["linear_1"]["w"]

    return init(key, jnp.zeros((1, 1))), lambda p, x: apply(p, None, x)


def flax_linen(key):
    from flax import linen

    net = linen.Sequential([linen.Dense(WIDTH), jnp.tanh, linen.Dense(1)])
    return net.init(key, jnp.zeros((1, 1))), net.apply


def flax_nnx(key):
    from flax import nnx

    rngs = nnx.Rngs(key)
    net = nnx.Sequential(
        nnx.Linear(1, WIDTH, rngs=rngs), jnp.tanh, nnx.Linear(WIDTH, 1, rngs=rngs)
    )
    return net, lambda net, x: net(x)


MODELS = {
    "Equinox": equinox,
    "dict of arrays": dict_of_arrays,
    "stax": stax_layers,
    "pure functions": pure_functions,
    "Flax Linen": flax_linen,
    "Flax NNX": flax_nnx,
}
if importlib.util.find_spec("flax") is None:
    del MODELS["Flax Linen"], MODELS["Flax NNX"]


def squared_error(apply):
    def loss(model, batch, *, key):
        (x, y), mask = jaxprob.unpack(batch)
        errors = jnp.sum((apply(model, x) - y) ** 2, axis=-1)
        return jaxprob.masked_mean(errors, mask), {}

    return loss


def main(max_epochs: int = 100) -> dict[str, float]:
    x = np.random.default_rng(0).uniform(-2, 2, (512, 1)).astype(np.float32)
    y = np.sin(2 * x)
    data = ArrayDataModule(train=(x, y), validation=(x, y), batch_size=64)
    figures = {}
    for name, make in MODELS.items():
        model, apply = make(jax.random.key(0))
        learner = jaxprob.GradientDescent(squared_error(apply), optax.adam(1e-2))
        trainer = pl.Trainer(max_epochs=max_epochs, accelerator="cpu", **QUIET)
        trainer.fit(LearnerModule(learner, model), data)
        figures[name] = float(trainer.callback_metrics["val_loss"])
        print(f"{name:15} mean squared error {figures[name]:.5f}")
    return figures


if __name__ == "__main__":
    main()
