"""Handwritten digits, classified by a perceptron and by a convolutional network.

    python examples/08_mnist.py --data ../shared/data

The folder is to hold MNIST's four files, gzipped or not, or torchvision's folder above
them. Prints test accuracy. Nothing here is probabilistic: this is how any Equinox
model trains in Lightning.
"""

import argparse
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytorch_lightning as pl

import jaxprob
from jaxprob import datasets
from jaxprob.lightning import ImageDataModule, LearnerModule


def perceptron(key):
    """784-512-512-10."""
    keys = jax.random.split(key, 3)
    return eqx.nn.Sequential(
        [
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(784, 512, key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Dropout(0.2),
            eqx.nn.Linear(512, 512, key=keys[1]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Dropout(0.2),
            eqx.nn.Linear(512, 10, key=keys[2]),
        ]
    )


def convolutional(key):
    """Three convolutions over both axes of the image, halved after each, and 128."""
    keys = jax.random.split(key, 5)
    layers = []
    for channels, key in zip(((1, 16), (16, 32), (32, 64)), keys, strict=False):
        layers += [
            eqx.nn.Conv2d(*channels, kernel_size=3, padding=1, key=key),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.MaxPool2d(2, 2),
        ]
    return eqx.nn.Sequential(
        [
            *layers,
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(64 * 3 * 3, 128, key=keys[3]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Dropout(0.3),
            eqx.nn.Linear(128, 10, key=keys[4]),
        ]
    )


# The network, and epochs of training.
NETS = {"perceptron": (perceptron, 10), "convolutional": (convolutional, 8)}


@jaxprob.mean_loss
def cross_entropy(model, example, *, key):
    image, label = example
    logits = model(image, key=key)
    value = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    hit = (jnp.argmax(logits) == label).astype(value.dtype)
    return value, {"accuracy": hit}


def main(
    data: str = "../shared/data",
    nets: tuple[str, ...] = tuple(NETS),
    num_epochs: int | None = None,
    max_steps: int = -1,
) -> dict[str, float]:
    images = ImageDataModule(datasets.mnist(data), batch_size=100)
    figures = {}
    for name in nets:
        build, epochs = NETS[name]
        epochs = num_epochs or epochs
        steps = epochs * len(images.train_dataloader())
        optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, steps))
        learner = jaxprob.GradientDescent(cross_entropy, optimizer)
        module = LearnerModule(learner, build(jax.random.key(0)))
        trainer = pl.Trainer(
            max_epochs=epochs,
            max_steps=max_steps,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        begin = time.perf_counter()
        trainer.fit(module, images)
        seconds = time.perf_counter() - begin
        (found,) = trainer.test(module, images, verbose=False)
        figures[name] = found["test_accuracy"]
        print(f"{name}: accuracy {figures[name]:.4f}, trained in {seconds:.0f} s")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=tuple(NETS))
    parser.add_argument("--epochs", type=int)
    arguments = parser.parse_args()
    main(arguments.data, tuple(arguments.nets), arguments.epochs)
