"""Signals in training, validation and sampling: saved, and left with the right code."""

import os
import random
import signal
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger

import jaxprob
from jaxprob import diffusion
from jaxprob.lightning import ArrayDataModule, DiffusionModule, SaveOnSignal
from jaxprob.lightning._checkpoint.checkpoint_io import load_verified

from ._children import Child
from ._run import K, hash_of, make_data, make_module, make_trainer, quiet

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75}
STAGES = ("training", "validation", "predict", "previews")
EPOCHS = 6


class Announce(pl.Callback):
    """Says where the run is, so that a signal can be sent into a stage."""

    sees_every_batch = False

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        print("training", trainer.global_step, flush=True)

    def on_validation_batch_end(self, trainer, *args) -> None:
        print("validation", trainer.global_step, flush=True)

    def on_predict_batch_end(self, trainer, *args) -> None:
        print("predict", flush=True)


class Listen(SaveOnSignal):
    """Says at which step the signal came."""

    trainer: pl.Trainer

    def setup(self, trainer, pl_module, stage: str) -> None:
        self.trainer = trainer

    def _note(self, number, frame):
        # One write: the handler may be called in the middle of a `print`.
        os.write(1, f"received {self.trainer.global_step}\n".encode())
        super()._note(number, frame)


class Previewing(DiffusionModule):
    def previews(self) -> np.ndarray:
        print("previews", self.trainer.global_step, flush=True)
        return super().previews()


def make_diffusion() -> DiffusionModule:
    net = diffusion.kidger_mixer(
        (1, 4, 4),
        patch_size=2,
        hidden_size=8,
        mix_patch_size=8,
        mix_hidden_size=8,
        num_blocks=1,
        predict="edm",
        key=jax.random.key(0),
    )
    learner = jaxprob.GradientDescent(diffusion.DenoisingLoss(), optax.adam(1e-3))
    return Previewing(learner, net, shape=(1, 4, 4), num_previews=4)


def work(folder: Path, stage: str, listening: bool = True) -> None:
    """The run that gets the signal, or, when it is not listening, the whole of it."""
    quiet()
    callbacks = [Listen(folder), Announce()] if listening else []
    x = np.random.default_rng(1).normal(size=(4000, 1)).astype(np.float32)
    images = np.random.default_rng(2).normal(size=(64, 1, 4, 4)).astype(np.float32)
    resume = SaveOnSignal.latest(folder)
    if stage in ("training", "validation"):
        # Validation in 500 batches: most of an epoch.
        extra = {"validation": (x, x)} if stage == "validation" else {}
        module = make_module()
        trainer = make_trainer(folder, EPOCHS if extra else 400, callbacks)
        trainer.fit(module, make_data(**extra), ckpt_path=resume)
    elif stage == "previews":
        module = make_diffusion()
        trainer = make_trainer(folder, EPOCHS, callbacks)
        trainer.loggers = [CSVLogger(folder)]
        data = ArrayDataModule(train=images, batch_size=8)
        trainer.fit(module, data, ckpt_path=resume)
    else:
        module = make_diffusion()
        trainer = make_trainer(folder, 1, callbacks)
        rows = jaxprob.ArrayLoader(np.arange(4000.0), batch_size=8)
        trainer.predict(module, rows)
    print("done", hash_of(module), flush=True)


def signal_campaign(runs: int, seed: int = 0) -> dict[str, int | float]:
    """Exit codes, checkpoints, and how many steps after the signal they were taken."""
    rng = random.Random(seed)
    counts: dict[str, int | float] = {
        "signals": 0,
        "right_code": 0,
        "saved": 0,
        "to_save": 0,
        "most_steps_late": 0,
        "most_seconds": 0.0,
        "resumed": 0,
        "same_hash": 0,
    }
    plan = [(stage, number) for stage in STAGES for number in CODES]
    whole: dict[str, str] = {}
    for i in range(runs):
        stage, number = plan[i % len(plan)]
        with tempfile.TemporaryDirectory() as folder:
            while not _one(Path(folder), stage, number, rng, counts):
                pass
            if i < len(plan) and stage != "predict":
                if stage not in whole:
                    with tempfile.TemporaryDirectory() as other:
                        child = Child(work, Path(other), stage, False)
                        whole[stage] = child.end()[1][-1]
                end = Child(work, Path(folder), stage, False).end()[1][-1]
                counts["resumed"] += 1
                counts["same_hash"] += end == whole[stage]
    return counts


def _one(folder, stage, number, rng, counts):
    """Whether the run had not ended by itself when the signal came."""
    child = Child(work, folder, stage)
    child.wait_for(stage)
    time.sleep(rng.uniform(0.0, 0.02))
    sent = time.monotonic()
    child.send(number)
    code, said = child.end()
    received = [int(s.split()[1]) for s in said if s.startswith("received")]
    if not received and said and said[-1].startswith("done"):
        return False
    counts["signals"] += 1
    counts["right_code"] += code == CODES[number]
    counts["most_seconds"] = max(counts["most_seconds"], time.monotonic() - sent)
    if stage == "predict":
        return True  # nothing is trained, so there is nothing to save
    counts["to_save"] += 1
    if (path := SaveOnSignal.latest(folder)) is None:
        return True
    counts["saved"] += 1
    late = load_verified(Path(path))["global_step"] - received[0]
    assert late >= 0, (late, K)
    counts["most_steps_late"] = max(counts["most_steps_late"], late)
    return True
