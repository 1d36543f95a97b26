"""A residual network with batch normalisation: a model that keeps running statistics.

    python examples/09_resnet.py

Digits of 8 x 8 pixels (scikit-learn's set). `Stateful` makes one model of the network
and its `eqx.nn.State`: in training a batch is normalised by its own statistics, and
the running ones, which prediction uses, are part of the checkpoint. Prints test
accuracy beside that of a linear model of the same pixels.
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytorch_lightning as pl
from sklearn.linear_model import LogisticRegression

from jaxprob import bnn
from jaxprob.lightning import ArrayDataModule, BNNModule, ImageDataModule


class Block(eqx.Module):
    """x + f(x), each convolution after its normalisation and its ReLU.

    Reference: *Identity Mappings in Deep Residual Networks*, He, Zhang, Ren and Sun,
    2016, https://arxiv.org/abs/1603.05027, figure 4e.
    """

    norms: tuple[eqx.nn.BatchNorm, eqx.nn.BatchNorm]
    convolutions: tuple[eqx.nn.Conv2d, eqx.nn.Conv2d]
    shortcut: eqx.nn.Conv2d | None

    def __init__(self, narrow, wide, *, key):
        first, second, third = jax.random.split(key, 3)
        stride = 1 if narrow == wide else 2
        self.norms = (batch_norm(narrow), batch_norm(wide))
        self.convolutions = (
            convolution(narrow, wide, 3, stride, key=first),
            convolution(wide, wide, 3, key=second),
        )
        self.shortcut = None
        if narrow != wide:
            self.shortcut = convolution(narrow, wide, 1, stride, key=third)

    def __call__(self, x, state):
        h, state = self.norms[0](x, state)
        h = jax.nn.relu(h)
        past = x if self.shortcut is None else self.shortcut(h)
        h, state = self.norms[1](self.convolutions[0](h), state)
        return past + self.convolutions[1](jax.nn.relu(h)), state


class ResNet(eqx.Module):
    """A convolution, residual blocks, the mean over the image, a linear layer."""

    first: eqx.nn.Conv2d
    blocks: list[Block]
    norm: eqx.nn.BatchNorm
    last: eqx.nn.Linear

    def __init__(self, widths=(16, 16, 32, 64), *, key):
        first, last, *keys = jax.random.split(key, len(widths) + 1)
        self.first = convolution(1, widths[0], 3, key=first)
        pairs = zip(widths, widths[1:], keys, strict=False)
        self.blocks = [Block(*pair, key=key) for *pair, key in pairs]
        self.norm = batch_norm(widths[-1])
        self.last = eqx.nn.Linear(widths[-1], 10, key=last)

    def __call__(self, x, state):
        x = self.first(x)
        for block in self.blocks:
            x, state = block(x, state)
        x, state = self.norm(x, state)
        return self.last(jnp.mean(jax.nn.relu(x), axis=(1, 2))), state


def batch_norm(width):
    return eqx.nn.BatchNorm(width, "batch", mode="batch", momentum=0.9)


def convolution(narrow, wide, size, stride=1, *, key):
    return eqx.nn.Conv2d(narrow, wide, size, stride, size // 2, use_bias=False, key=key)


def main(num_epochs: int = 30) -> dict[str, float]:
    split = ImageDataModule("digits").split
    rows = split.x_train, split.y_train
    # Padded rows would count in the statistics of their batch.
    data = ArrayDataModule(rows, batch_size=64, drop_last=True)
    steps = num_epochs * len(data.train_dataloader())
    model = bnn.Stateful(*eqx.nn.make_with_state(ResNet)(key=jax.random.key(0)))
    joint = bnn.LogJoint(
        bnn.CategoricalLikelihood(), bnn.FanInNormal(2.0), num_data=len(rows[0])
    )
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    # Before a normalisation weights have no scale, and a prior would shrink them to 0.
    module = BNNModule(bnn.MAP(joint, optimizer, random="net.last"), model)
    quiet = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    pl.Trainer(max_epochs=num_epochs, **quiet).fit(module, data)

    probs = np.asarray(module.predictive(split.x_test).probs)
    linear = LogisticRegression(max_iter=1000).fit(rows[0].reshape(-1, 64), rows[1])
    pixels = split.x_test.reshape(-1, 64)
    figures = {
        "accuracy": float(np.mean(probs.argmax(-1) == split.y_test)),
        "of a linear model": float(linear.score(pixels, split.y_test)),
    }
    for name, value in figures.items():
        print(f"{name}: {value:.4f}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    main(parser.parse_args().epochs)
