"""A score-based diffusion model in Kidger's form, trained in Lightning.

    python examples/03_diffusion_digits.py

Variance preserving with int_beta(t) = t up to T = 10, a Mixer, stratified times, an
EMA of the weights, and the probability flow solved by diffrax. Prints what sampling
cost and how far the samples are from held-out digits; writes `runs/digits.png`.
"""

import argparse
import pathlib

import jax
import numpy as np
import optax
import pytorch_lightning as pl

import jaxprob
from jaxprob import diffusion, metrics, plot
from jaxprob.lightning import DiffusionModule, ImageDataModule


def main(num_epochs: int = 150, num_samples: int = 100) -> dict[str, float]:
    data = ImageDataModule("digits", labels=False, batch_size=64)
    split = data.split

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
    steps = num_epochs * -(-len(split.x_train) // data.batch_size)
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    learner = jaxprob.GradientDescent(
        diffusion.DenoisingLoss(), optimizer, ema=jaxprob.EMA(0.999)
    )
    module = DiffusionModule(learner, denoiser, shape=(1, 8, 8), num_previews=0)
    trainer = pl.Trainer(
        max_epochs=num_epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)

    draws = module.sample(num_samples)
    samples, real = np.asarray(draws.x_0), split.x_test[:num_samples]

    def distance(x):
        held_out = split.x_test[-num_samples:]
        return float(metrics.sliced_wasserstein(x, held_out, key=jax.random.key(1)))

    figures = {
        "function evaluations": float(np.max(draws.num_evaluations)),
        "sliced W2 of samples to held-out digits": distance(samples),
        "sliced W2 of real digits to held-out digits": distance(real),
    }
    for name, value in figures.items():
        print(f"{name}: {value:.3f}")
    path = pathlib.Path("runs/digits.png")
    path.parent.mkdir(exist_ok=True)
    pixels = [np.clip(data.x_scaler.inverse(x), 0.0, 1.0) for x in (samples, real)]
    plot.sample_grid(pixels[0], real=pixels[1]).savefig(path)
    print(f"samples next to real digits: {path}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=150)
    main(parser.parse_args().epochs)
