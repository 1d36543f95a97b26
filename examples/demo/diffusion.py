"""A score-based diffusion model in Kidger's form that draws digits."""

import pathlib
import time

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxprob
from jaxprob import diffusion, metrics, plot
from jaxprob.lightning import DiffusionModule, ImageDataModule

from .console import figures, table, trainer


def run(out: pathlib.Path, *, quick: bool) -> None:
    epochs = 2 if quick else 350
    data = ImageDataModule("digits", labels=False, batch_size=64)
    split = data.split
    steps_per_epoch = -(-len(split.x_train) // data.batch_size)

    # VP with int_beta(t) = t up to T = 10, stratified times, weight 1 - exp(-t).
    denoiser = diffusion.kidger_mixer(
        (1, 8, 8),
        patch_size=2,
        hidden_size=64,
        mix_patch_size=32,
        mix_hidden_size=128,
        num_blocks=3,
        predict="edm",
        key=jax.random.key(0),
    )
    schedule = optax.cosine_decay_schedule(3e-3, epochs * steps_per_epoch)
    learner = jaxprob.GradientDescent(
        diffusion.DenoisingLoss(), optax.adam(schedule), ema=jaxprob.EMA(0.999)
    )
    module = DiffusionModule(
        learner, denoiser, shape=(1, 8, 8), num_previews=0, lr_schedule=schedule
    )
    trainer(out, epochs, steps_per_epoch).fit(module, data)

    num = len(split.x_test)
    module.sample(num, index=1)  # compiles
    begin = time.perf_counter()
    draws = module.sample(num)
    samples = np.asarray(draws.x_0)
    seconds = time.perf_counter() - begin
    evaluations = np.asarray(draws.num_evaluations)
    figures(
        {
            "weights": jaxprob.tree.count(denoiser),
            "samples": num,
            "function evaluations (mean, most)": (
                f"{evaluations.mean():.0f}, {evaluations.max()}"
            ),
            "seconds for all samples": seconds,
        }
    )
    compare(samples, split)
    pixels = [
        np.clip(data.x_scaler.inverse(x[:80]), 0.0, 1.0)
        for x in (samples, split.x_test)
    ]
    figure = plot.sample_grid(pixels[0], real=pixels[1])
    figure.savefig(out / "diffusion_digits.png", dpi=120)
    plt.close(figure)


def compare(samples: np.ndarray, split) -> None:
    """Two-sample figures against held-out digits that no training saw."""
    rng = np.random.default_rng(0)
    candidates = {
        "samples": samples,
        "real digits (training rows)": rng.permutation(split.x_train)[: len(samples)],
        "Gaussian noise": rng.normal(size=samples.shape).astype(np.float32),
    }
    rows = []
    for name, x in candidates.items():
        # The sliced distance sees the marginals, and hardly that samples are blurred.
        sliced = metrics.sliced_wasserstein(x, split.x_test, key=jax.random.key(0))
        frechet = metrics.frechet_distance(x, split.x_test)
        overlap = metrics.precision_recall_density_coverage(x, split.x_test)
        rows.append(
            (name, *map(float, (sliced, frechet, overlap.density, overlap.coverage)))
        )
    print("  Against held-out digits:")
    table(("", "sliced W2", "Frechet", "density", "coverage"), rows)
