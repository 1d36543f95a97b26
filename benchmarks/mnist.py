"""Classification of MNIST: is the network right, and does it know when it is not?

    python -m benchmarks.mnist --data PATH [--nets mlp cnn] [--methods map ...]
                               [--epochs E] [--results FILE.json]

A multilayer perceptron of 2 x 400 units and a small convolutional network, under each
method that scales to them. Printed are test accuracy, negative log-likelihood, expected
calibration error, and how well the entropy of the predictive tells test digits from
KMNIST characters and from the same digits turned by a quarter (area under the ROC
curve), beside the seconds of training and of predicting. `--data` is the folder that
holds `MNIST` and `kmnist_test`.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxprob
from jaxprob import bnn
from jaxprob.datasets import kmnist_test, mnist
from jaxprob.metrics import accuracy, auroc, categorical_nll, ece, entropy

BATCH = 128
CLASSES = 10
SHIFT = 2
SCORES = ("accuracy", "nll", "ece", "kmnist", "turned", "train_s", "predict_s")


class Perceptron(eqx.Module):
    """784-400-400-10 with dropout that is off unless a method wants it."""

    layers: list[eqx.nn.Linear]
    head: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __init__(self, rate: float, *, key: Any):
        keys = jax.random.split(key, 3)
        self.layers = [
            eqx.nn.Linear(784, 400, key=keys[0]),
            eqx.nn.Linear(400, 400, key=keys[1]),
        ]
        self.head = eqx.nn.Linear(400, CLASSES, key=keys[2])
        self.dropout = eqx.nn.Dropout(rate)

    def __call__(self, x, *, key):
        keys = jax.random.split(key, 2)
        h = x.ravel()
        for layer, k in zip(self.layers, keys, strict=True):
            h = self.dropout(jax.nn.relu(layer(h)), key=k)
        return self.head(h)


def halved(h):
    """The largest of each 2 x 2 pixels; an odd last row or column is left out.

    What `eqx.nn.MaxPool2d(2, 2)` gives, whose gradient is half of a training step on a
    CPU.
    """
    even = h[:, : h.shape[1] // 2 * 2, : h.shape[2] // 2 * 2]
    upper = jnp.maximum(even[:, ::2, ::2], even[:, ::2, 1::2])
    lower = jnp.maximum(even[:, 1::2, ::2], even[:, 1::2, 1::2])
    return jnp.maximum(upper, lower)


class Convolutional(eqx.Module):
    """Three 3 x 3 convolutions of 16, 32 and 64 channels, pooled, and 128 units."""

    convolutions: list[eqx.nn.Conv2d]
    hidden: eqx.nn.Linear
    head: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __init__(self, rate: float, *, key: Any):
        keys = jax.random.split(key, 5)
        channels = (1, 16, 32, 64)
        self.convolutions = [
            eqx.nn.Conv2d(a, b, 3, padding=1, key=k)
            for a, b, k in zip(channels, channels[1:], keys, strict=False)
        ]
        self.hidden = eqx.nn.Linear(64 * 9, 128, key=keys[3])
        self.head = eqx.nn.Linear(128, CLASSES, key=keys[4])
        self.dropout = eqx.nn.Dropout(rate)

    def __call__(self, x, *, key):
        h = x[None]
        for convolution in self.convolutions:
            h = halved(jax.nn.relu(convolution(h)))
        h = self.dropout(jax.nn.relu(self.hidden(h.ravel())), key=key)
        return self.head(h)


NETS = {"mlp": (Perceptron, 20, 1e-3), "cnn": (Convolutional, 10, 2e-3)}
"""Of each network its class, epochs and learning rate."""


class Shifted:
    """Batches of images moved by up to two pixels, anew in each epoch."""

    def __init__(self, x: np.ndarray, y: np.ndarray, seed: int):
        self.x = np.pad(x, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)), mode="edge")
        self.y, self.seed, self.epoch = y, seed, 0

    def __len__(self) -> int:
        return len(self.y) // BATCH

    def __iter__(self):
        rng = np.random.default_rng((self.seed, self.epoch))
        self.epoch += 1
        order = rng.permutation(len(self.y))
        side = self.x.shape[1] - 2 * SHIFT
        windows = np.lib.stride_tricks.sliding_window_view(
            self.x, (side, side), axis=(1, 2)
        )
        for start in range(0, len(self) * BATCH, BATCH):
            rows = order[start : start + BATCH]
            down, right = rng.integers(0, 2 * SHIFT + 1, (2, BATCH))
            yield np.ascontiguousarray(windows[rows, down, right]), self.y[rows]


def decaying(rate: float, steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(rate, steps))


def methods(num_data: int, steps: int, rate: float) -> dict[str, tuple[Any, float]]:
    """Each method, and the dropout rate of its network."""
    likelihood = bnn.CategoricalLikelihood()
    # Pixels are mostly zero, so a layer's inputs are small: of 2, 6 and 20 this scale
    # had the best log-likelihood of 10,000 training images that were held out.
    joint = bnn.LogJoint(likelihood, bnn.FanInNormal(6.0), num_data=num_data)
    point = bnn.MAP(joint, decaying(rate, steps))
    start = 3 * steps // 4
    constant = optax.join_schedules(
        [
            optax.cosine_decay_schedule(rate, start, 0.3),
            optax.constant_schedule(0.3 * rate),
        ],
        [start],
    )
    averaged = bnn.MAP(joint, optax.adam(constant))
    return {
        "map": (point, 0.0),
        "mc-dropout": (bnn.MCDropout(point), 0.25),
        "mean-field-vi": (
            bnn.MeanFieldVI(
                joint, decaying(rate, steps), estimator="local", scale=0.02
            ),
            0.0,
        ),
        "swag": (
            bnn.SWAG(averaged, num_warmup=start, thin=max(1, (steps - start) // 30)),
            0.0,
        ),
        "laplace-last-layer": (
            bnn.Laplace(point, structure="kronecker", where="head"),
            0.0,
        ),
        "ensemble": (bnn.DeepEnsemble(point, num_members=5), 0.0),
    }


def measure(net: str, name: str, root: Path, epochs: int | None, seed: int) -> dict:
    """Train, predict and score."""
    build, usual, learning_rate = NETS[net]
    split = mnist(root / "MNIST")
    x, y = split.x_train, split.y_train
    foreign, _ = kmnist_test(root / "kmnist_test")
    epochs = epochs or usual
    steps = epochs * (len(y) // BATCH)
    method, rate = methods(len(y), steps, learning_rate)[name]
    key = jax.random.key(seed)
    convolves = net == "cnn"

    def fit(method, seed):
        key = jax.random.key(seed)
        state, _ = jaxprob.fit(
            method,
            build(rate, key=jax.random.fold_in(key, 0)),
            Shifted(x, y, seed) if convolves else (x, y),
            key=jax.random.fold_in(key, 1),
            num_steps=steps,
            batch_size=BATCH,
        )
        parts = [(x[i : i + 1000], y[i : i + 1000]) for i in range(0, len(y), 1000)]
        return method.posterior(state, parts, key=jax.random.fold_in(key, 2))

    start = time.perf_counter()
    if name == "ensemble" and convolves:
        # A convolution under `vmap` over its weights is several times slower on a CPU.
        members = range(seed, seed + method.num_members)
        posterior = bnn.Mixture([fit(method.method, each) for each in members])
    else:
        posterior = fit(method, seed)
    trained = time.perf_counter()

    def probs(images):
        predictive = bnn.predict(
            posterior,
            bnn.CategoricalLikelihood(),
            images,
            key=jax.random.fold_in(key, 3),
            num_samples=None if name in ("map", "ensemble") else 30,
            model_batch_size=1 if convolves else 8,
        )
        return np.asarray(predictive.probs)

    test = probs(split.x_test)
    predicted = time.perf_counter()
    known = np.asarray(entropy(test))

    def ood(images):
        return float(auroc(jnp.asarray(known), entropy(probs(images))))

    log_probs = jnp.log(jnp.maximum(test, jnp.finfo(test.dtype).tiny))
    return {
        "accuracy": float(accuracy(split.y_test, test)),
        "nll": float(categorical_nll(split.y_test, log_probs)),
        "ece": float(ece(split.y_test, test)),
        "kmnist": ood(foreign),
        "turned": ood(np.ascontiguousarray(np.rot90(split.x_test, axes=(1, 2)))),
        "train_s": trained - start,
        "predict_s": predicted - trained,
        "epochs": epochs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mnist")
    names = list(methods(1, 4, 1.0))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=NETS)
    parser.add_argument("--methods", nargs="+", default=names, choices=names)
    parser.add_argument("--epochs", type=int, help="default: 20 (mlp), 10 (cnn)")
    parser.add_argument("--results", type=Path, help="JSON file to go on with")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    if arguments.results and arguments.results.exists():
        results = json.loads(arguments.results.read_text())
    for net in arguments.nets:
        for name in arguments.methods:
            label = f"{net}, {name}"
            if label not in results:
                results[label] = measure(
                    net, name, arguments.data, arguments.epochs, arguments.seed
                )
                if arguments.results:
                    arguments.results.write_text(json.dumps(results, indent=1))
    print(f"{'':<26}" + "".join(f"{name:>11}" for name in SCORES))
    for label, row in results.items():
        print(f"{label:<26}" + "".join(f"{row[name]:>11.4g}" for name in SCORES))


if __name__ == "__main__":
    main()
