"""Training of a diffusion model in Lightning."""

from typing import Any

import jax
import numpy as np
import optax

from .. import diffusion
from .._training.ema import EMA
from .._training.gradient_descent import GradientDescent
from ..datasets import Standardizer
from ..lightning import (
    ArrayDataModule,
    DiffusionModule,
    newest_good_checkpoint,
)
from ..lightning._checkpoint.run_folder import folder_trainer
from ._arrays import Examples, read_examples
from ._config import DiffusionConfig
from ._errors import CommandError
from ._run import CHECKPOINTS, MODEL, Run
from ._tables import split


class DiffusionTraining:
    """Examples, read and checked, and the denoiser that they train."""

    def __init__(self, config: DiffusionConfig):
        self.config = config
        self.examples = read_examples(config)
        rows = len(self.examples.x)
        self.train, self.test = split(rows, config.test, config.seed)
        self.scaler = scaler_of(self.examples, self.train)
        self.denoiser = denoiser_of(config, self.examples)
        self.facts = {
            "examples": rows,
            "held_out": len(self.test),
            "shape": list(self.examples.x.shape[1:]),
            "classes": list(self.examples.names),
        }

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return -(-len(self.train) // self.config.batch_size)

    @property
    def rows(self) -> Any:
        """Training rows in standardised units, with their classes."""
        x = self.scaler(self.examples.x[self.train])
        labels = self.examples.labels
        return x if labels is None else (x, labels[self.train])

    def learner(self) -> GradientDescent:
        """Return a new learner of the configuration."""
        config = self.config
        steps = config.epochs * self.steps_per_epoch
        loss = diffusion.DenoisingLoss(
            diffusion.EDMWeighting(),
            diffusion.LogNormalLevels(),
            cond_dropout=0.1 if config.classes else 0.0,
        )
        schedule = optax.cosine_decay_schedule(config.learning_rate, steps, 0.01)
        return GradientDescent(loss, optax.adam(schedule), ema=EMA(config.ema))

    def run(self, run: Run) -> None:
        """Train from the newest checkpoint, if there is one, and save the model."""
        from .._io import save

        module = DiffusionModule(
            self.learner(),
            self.denoiser,
            shape=self.examples.x.shape[1:],
            conditional=self.config.classes,
            num_previews=0,
            seed=self.config.seed,
        )
        data = ArrayDataModule(train=self.rows, batch_size=self.config.batch_size)
        folder = run.folder / CHECKPOINTS
        trainer = folder_trainer(
            run.folder,
            folder,
            max_epochs=self.config.epochs,
            save_every_n_epochs=self.config.save_every,
            log_every_n_steps=self.steps_per_epoch,
            progress=not self.config.quiet,
        )
        start = newest_good_checkpoint(folder) if folder.is_dir() else None
        if start is not None:
            print(f"going on from {start}")
        trainer.fit(module, data, ckpt_path=start)
        if trainer.interrupted:
            raise KeyboardInterrupt
        save(run.folder / MODEL, {"denoiser": module.model, "scaler": self.scaler})


def scaler_of(examples: Examples, train: np.ndarray) -> Standardizer:
    """Return the scaler of the training rows: one scale for all pixels of images."""
    rows = examples.x[train]
    try:
        return Standardizer.fit(
            rows,
            shared=examples.is_image,
            constant="raise" if examples.is_image else "keep",
        )
    except ValueError:
        raise CommandError("all pixels of the images have one value") from None


def denoiser_of(config: DiffusionConfig, examples: Examples) -> Any:
    """Return a new denoiser for the shape of the examples."""
    shape = tuple(examples.x.shape[1:])
    num_classes = len(examples.names) if config.classes else None
    name = config.network
    if name == "auto":
        name = "mlp" if not examples.is_image else "mixer"
        if examples.is_image and (config.classes or shape[1] > 32 or shape[1] % 2):
            name = "unet"
    if (name == "mlp") == examples.is_image:
        raise CommandError(
            f"network: {name} is for {'vectors' if name == 'mlp' else 'images'}, and "
            f"an example has shape {shape}: give --network auto"
        )
    if name == "mixer" and config.classes:
        raise CommandError("network: mixer takes no classes: give --network unet")
    key = jax.random.key(config.seed)
    if name == "mixer":
        return diffusion.kidger_mixer(
            shape,
            patch_size=2,
            hidden_size=config.width,
            mix_patch_size=32,
            mix_hidden_size=2 * config.width,
            predict="edm",
            condition_on="noise",
            key=key,
        )
    width = config.width
    if name == "unet":
        levels = 1 + sum(shape[1] % 2**k == shape[2] % 2**k == 0 for k in (1, 2))
        widths = (width // 2, width, width)[:levels]
        net: Any = diffusion.nn.UNet(
            shape, widths=widths, num_classes=num_classes, key=key
        )
    else:
        net = diffusion.nn.ResidualMLP(
            shape[0], width=width, num_classes=num_classes, key=key
        )
    return diffusion.Preconditioned(
        net, diffusion.VP.linear(), "edm", condition_on="noise"
    )
