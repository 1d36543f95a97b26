"""Quality of samples over the time of training: our recipe and the example's.

    python -m benchmarks.quality --data FOLDER [--minutes M] [--batch B] [--quick]

The Mixer of Equinox's score-based diffusion example learns MNIST, once by the example's
recipe and once by ours. Both take the same number of steps, as many as the example's
needs `--minutes` for, in slices that take turns, through the same `Stepper` with
`batch_size=8`; the example's own loop would be slower by what `benchmarks.mixer`
says. Seconds are those that training takes of one core, which neighbours on the machine
do not stretch; compiling, sampling and scoring do not count.

- example: predicts the score; the noise level is told as t; stratified uniform times;
  weight 1 - exp(-int_beta), the error of eps; adabelief 3e-4; no average.
- jaxprob: as in `examples/03_diffusion_digits.py`, with `--mnist`.

Quality is the Frechet distance between features of samples and of the test images, the
features being the last hidden layer of a small convolutional classifier, trained here
on the training images with a fixed seed. The floor is the distance of as many training
images. Samples take 35 evaluations by `ExpAB`; those of the last models 100 too, as the
sampler is not what is measured. Writes curves, figures and our weights to `runs/`,
for `benchmarks.sampling --weights`.
"""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxprob
from jaxprob.datasets import mnist
from jaxprob.diffusion import (
    DenoisingLoss,
    EDMWeighting,
    ExpAB,
    LogNormalLevels,
    Preconditioned,
    ScoreWeighting,
    kidger_mixer,
    sample,
)
from jaxprob.metrics import frechet_distance

from ._timing import report

SHAPE, WARM = (1, 28, 28), 2
RUNS = Path("runs")


class Classifier(eqx.Module):
    """Two convolutions with stride 2, then 64 units, which are the features."""

    layers: list[Any]

    def __init__(self, *, key: Any):
        keys = jax.random.split(key, 4)
        self.layers = [
            eqx.nn.Conv2d(1, 16, 5, stride=2, padding=2, key=keys[0]),
            eqx.nn.Conv2d(16, 32, 5, stride=2, padding=2, key=keys[1]),
            eqx.nn.Linear(32 * 49, 64, key=keys[2]),
            eqx.nn.Linear(64, 10, key=keys[3]),
        ]

    def features(self, x):
        for layer in self.layers[:2]:
            x = jax.nn.relu(layer(x))
        return jax.nn.relu(self.layers[2](x.ravel()))

    def __call__(self, x):
        return self.layers[3](self.features(x))


def cross_entropy(classifier, batch, *, key):
    (x, labels), mask = jaxprob.unpack(batch)
    log_probs = jax.nn.log_softmax(jax.vmap(classifier)(x))
    nll = -jnp.take_along_axis(log_probs, labels[:, None].astype(jnp.int32), 1)[:, 0]
    return jaxprob.masked_mean(nll, mask), {}


def classifier(images, labels, epochs: int) -> Classifier:
    """The network of the features, always the same."""
    steps = epochs * -(-len(labels) // 128)
    learner = jaxprob.GradientDescent(
        cross_entropy, optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    )
    model = Classifier(key=jax.random.key(100))
    state, _ = jaxprob.fit(
        learner,
        model,
        (images, labels),
        key=jax.random.key(101),
        num_steps=steps,
        batch_size=128,
        progress=False,
    )
    return learner.model(state)


@eqx.filter_jit
def _features(net, images):
    return jax.vmap(net.features)(images)


class Judge:
    """Scores images by their distance to the test set."""

    def __init__(self, split, epochs: int, num: int):
        mean, std = split.x_train.mean(), split.x_train.std()
        self.train, self.test = (
            ((x - mean) / std).astype(np.float32).reshape(-1, *SHAPE)
            for x in (split.x_train, split.x_test)
        )
        self.net = classifier(self.train, split.y_train, epochs)
        self.target = self._of(self.test)
        logits = jax.vmap(self.net.layers[3])(self.target)
        self.accuracy = float(np.mean(np.argmax(logits, 1) == split.y_test))
        rows = np.random.default_rng(0).permutation(len(self.train))[:num]
        self.floor = self(self.train[rows])
        self.num = num

    def _of(self, images):
        parts = np.split(images, range(500, len(images), 500))
        return np.concatenate([_features(self.net, part) for part in parts])

    def __call__(self, images) -> float:
        return float(frechet_distance(self._of(np.asarray(images)), self.target))

    def of_model(self, denoiser, sampler) -> float:
        """Distance of samples from always the same noise, clipped as in the example."""
        draws = sample(
            denoiser,
            sampler,
            key=jax.random.key(102),
            num_samples=self.num,
            shape=SHAPE,
            batch_size=20,
        )
        return self(np.clip(draws.x_0, self.train.min(), self.train.max()))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A denoiser to begin with, and how so many steps train it."""

    denoiser: Callable[[], Any]
    learner: Callable[[int], jaxprob.GradientDescent]


def example_learner(steps: int) -> jaxprob.GradientDescent:
    del steps  # its rate is constant
    loss = DenoisingLoss(ScoreWeighting(lambda t: -jnp.expm1(-t)), batch_size=8)
    return jaxprob.GradientDescent(loss, optax.adabelief(3e-4))


def our_denoiser() -> Preconditioned:
    return kidger_mixer(
        SHAPE, predict="edm", condition_on="noise", key=jax.random.key(0)
    )


def our_learner(steps: int) -> jaxprob.GradientDescent:
    rate = optax.warmup_cosine_decay_schedule(0.0, 2e-3, steps // 20, steps)
    loss = DenoisingLoss(EDMWeighting(), LogNormalLevels(), batch_size=8)
    return jaxprob.GradientDescent(loss, optax.adam(rate), ema=jaxprob.EMA(0.999))


RECIPES = {
    "example": Recipe(
        lambda: kidger_mixer(SHAPE, key=jax.random.key(0)), example_learner
    ),
    "jaxprob": Recipe(our_denoiser, our_learner),
}


class Training:
    """One recipe at work, and the seconds it has worked."""

    def __init__(self, recipe: Recipe, images, steps: int, batch: int):
        self.learner = recipe.learner(steps)
        state = self.learner.init(recipe.denoiser(), key=jax.random.key(1))
        self.stepper = jaxprob.Stepper(
            self.learner, state, key=jax.random.key(2), steps_per_dispatch=1
        )
        self.batches = _endless(images, batch)
        self.seconds = 0.0
        self.run(WARM)  # compiles
        self.seconds = 0.0

    def run(self, steps: int) -> None:
        begin = time.process_time()
        for _ in range(steps):
            self.stepper([next(self.batches)])
        jax.block_until_ready(eqx.filter(self.stepper.state, eqx.is_array))
        self.seconds += time.process_time() - begin

    @property
    def model(self):
        return self.learner.model(self.stepper.fetch())


def _endless(images, batch):
    loader = jaxprob.ArrayLoader(
        images, batch_size=batch, shuffle=True, seed=3, drop_last=True
    )
    epoch = 0
    while True:
        loader.set_epoch(epoch)
        yield from loader
        epoch += 1


def train(judge: Judge, minutes: float, batch: int, checkpoints: int):
    """The models at the end, and seconds and distances of each recipe on the way."""
    example = Training(RECIPES["example"], judge.train, 0, batch)
    example.run(3)
    steps = max(checkpoints, round(minutes * 60.0 / (example.seconds / 3)))
    print(f"{steps} steps of {example.seconds / 3:.2f} s", flush=True)
    runs = {
        name: Training(recipe, judge.train, steps, batch)
        for name, recipe in RECIPES.items()
    }
    curves: dict[str, list[tuple[float, float]]] = {name: [] for name in RECIPES}
    ends = np.unique(np.round(steps * np.linspace(0, 1, checkpoints + 1) ** 1.5))
    done = WARM
    for end in ends[ends > WARM].astype(int):
        for name, run in runs.items():
            run.run(end - done)
            distance = judge.of_model(run.model, ExpAB(35))
            curves[name].append((run.seconds, distance))
            print(f"{name:8} {run.seconds:6.0f} s {distance:9.2f}", flush=True)
        done = end
    return {name: run.model for name, run in runs.items()}, curves


def time_to(curve, distance: float) -> float:
    """Seconds until a distance is reached, between checkpoints on straight lines.

    In the logarithm of the distance, whose best so far is what counts.
    """
    seconds, distances = np.array(curve).T
    best = np.minimum.accumulate(distances)
    if best[-1] > distance:
        return float("nan")
    i = int(np.argmax(best <= distance))
    if i == 0:
        return float(seconds[0])
    logs = np.log(best[i - 1 : i + 1])
    part = (logs[0] - np.log(distance)) / (logs[0] - logs[1])
    return float(seconds[i - 1] + part * (seconds[i] - seconds[i - 1]))


def draw(curves, floor: float, path: Path) -> None:
    """Distances over seconds of training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(*np.array(curve).T, marker="o", label=name)
    axes.axhline(floor, color="grey", linestyle=":", label="training images")
    axes.set(xlabel="seconds of training", ylabel="Frechet distance", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="the folder with MNIST's files")
    parser.add_argument("--minutes", type=float, default=5.0, help="for each recipe")
    parser.add_argument("--batch", type=int, default=256, help="the example's is 256")
    parser.add_argument("--quick", action="store_true", help="half a minute each")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    quick = arguments.quick
    judge = Judge(mnist(arguments.data), 1 if quick else 3, 100 if quick else 300)
    print(f"classifier: accuracy {judge.accuracy:.4f}; floor {judge.floor:.2f}")
    models, curves = train(
        judge,
        0.5 if quick else arguments.minutes,
        arguments.batch,
        3 if quick else 6,
    )
    finer = {name: judge.of_model(model, ExpAB(100)) for name, model in models.items()}
    RUNS.mkdir(exist_ok=True)
    from jaxprob.lightning import export_safetensors

    export_safetensors(models["jaxprob"], RUNS / "mnist_mixer.safetensors")
    draw(curves, judge.floor, RUNS / "quality.png")
    rows = [("Frechet distance", "example, s", "jaxprob, s", "ratio")]
    for _, distance in curves["example"]:
        slow, fast = (time_to(curves[name], distance) for name in RECIPES)
        rows.append(
            (f"{distance:.1f}", f"{slow:.0f}", f"{fast:.0f}", f"{slow / fast:.1f}")
        )
    figures = {
        "accuracy": judge.accuracy,
        "floor": judge.floor,
        "curves": curves,
        "100 evaluations": finer,
    }
    (RUNS / "quality.json").write_text(json.dumps(figures, indent=1))
    report("Seconds of training until a distance is reached", rows, figures)


if __name__ == "__main__":
    main()
