"""A score-based diffusion model with Kidger's Mixer, trained in Lightning.

    python examples/03_diffusion_digits.py
    python examples/03_diffusion_digits.py --mnist ../shared/data --epochs 5

Variance preserving with int_beta(t) = t up to T = 10 and a Mixer, as in Equinox's
example; the prediction, the noise levels to train at and their weights as in Karras et
al. (2022); a rate that warms up and decays, and an EMA of the weights. The probability
flow is solved by diffrax. Prints what sampling cost and how far the samples are from
held-out digits; writes them beside real ones into `runs/`.
"""

import argparse
import pathlib

import jax
import numpy as np
import optax
import pytorch_lightning as pl

import jaxprob
from jaxprob import datasets, diffusion, metrics, plot
from jaxprob.lightning import DiffusionModule, ImageDataModule

# For 8 x 8 pixels; what `kidger_mixer` takes by default is for MNIST's 28 x 28.
SMALL = {"patch_size": 2, "mix_patch_size": 32, "mix_hidden_size": 128, "num_blocks": 3}


def main(
    num_epochs: int = 150,
    num_samples: int = 100,
    mnist: str | None = None,
    max_steps: int = -1,
) -> dict[str, float]:
    images = datasets.digits() if mnist is None else datasets.mnist(mnist)
    data = ImageDataModule(images, labels=False, batch_size=64)
    split = data.split
    shape = split.x_train.shape[1:]

    denoiser = diffusion.kidger_mixer(
        shape,
        **(SMALL if mnist is None else {}),
        predict="edm",
        condition_on="noise",
        key=jax.random.key(0),
    )
    steps = num_epochs * -(-len(split.x_train) // data.batch_size)
    rate = optax.warmup_cosine_decay_schedule(0.0, 2e-3, steps // 20, steps)
    learner = jaxprob.GradientDescent(
        diffusion.DenoisingLoss(
            diffusion.EDMWeighting(),
            diffusion.LogNormalLevels(),
            # Few images at once, whose activations stay in the processor's cache.
            batch_size=None if mnist is None else 8,
        ),
        optax.adam(rate),
        ema=jaxprob.EMA(0.999),
    )
    module = DiffusionModule(learner, denoiser, shape=shape, num_previews=0)
    trainer = pl.Trainer(
        max_epochs=num_epochs,
        max_steps=max_steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)

    draws = module.sample(num_samples)
    samples, real = np.asarray(draws.x_0), split.x_test[:num_samples]

    def distance(x):
        # Of as many rows each: the distance of few points is larger.
        return float(metrics.frechet_distance(x, split.x_test[-num_samples:]))

    figures = {
        "function evaluations": float(np.max(draws.num_evaluations)),
        "Frechet distance of samples to held-out digits": distance(samples),
        "Frechet distance of real digits to held-out digits": distance(real),
    }
    for name, value in figures.items():
        print(f"{name}: {value:.3f}")
    path = pathlib.Path("runs/digits.png" if mnist is None else "runs/mnist.png")
    path.parent.mkdir(exist_ok=True)
    pixels = [np.clip(data.x_scaler.inverse(x), 0.0, 1.0) for x in (samples, real)]
    plot.sample_grid(pixels[0], real=pixels[1]).savefig(path)
    print(f"samples next to real digits: {path}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--mnist", help="the folder with MNIST's four files")
    arguments = parser.parse_args()
    main(arguments.epochs, mnist=arguments.mnist)
