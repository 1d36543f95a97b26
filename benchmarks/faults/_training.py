"""SIGKILL at random instants of a training, resumed until it is done."""

import random
import tempfile
from pathlib import Path

import pytorch_lightning as pl

from ._children import Child
from ._run import hash_of, make_data, make_module, make_trainer, quiet


class SaveEachDispatch(pl.Callback):
    sees_every_batch = False

    def __init__(self, path: Path):
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        trainer.save_checkpoint(self.path)
        print(trainer.global_step, flush=True)


def train(folder: Path, epochs: int) -> None:
    """Trains on from the last checkpoint; says each saved step, and the final hash."""
    quiet()
    last, module = folder / "last.ckpt", make_module()
    trainer = make_trainer(folder, epochs, [SaveEachDispatch(last)])
    trainer.fit(module, make_data(), ckpt_path=last if last.exists() else None)
    print("done", hash_of(module), flush=True)


def training_campaign(runs: int, seed: int = 0, epochs: int = 60) -> dict[str, int]:
    """Whether a training killed again and again ends as the uninterrupted one."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = Child(train, Path(folder), epochs).end()[1][-1]
    counts = {"kills": 0, "trainings": 0, "same_hash": 0, "backwards": 0, "resumes": 0}
    while counts["kills"] < runs:
        with tempfile.TemporaryDirectory() as folder:
            _train_to_the_end(Path(folder), epochs, rng, runs, whole, counts)
    return counts


def _train_to_the_end(folder, epochs, rng, runs, whole, counts):
    reached, last = 0, ""
    while not last.startswith("done"):
        child = Child(train, folder, epochs)
        if counts["kills"] < runs:
            said = [child.line(), *child.kill(rng.uniform(0.0, 0.1))]
            counts["kills"] += not said[-1].startswith("done")
        else:
            said = child.end()[1]
        counts["resumes"] += bool(reached)
        steps = [int(line) for line in said if line.isdigit()]
        counts["backwards"] += bool(steps) and steps[0] <= reached
        reached = max([reached, *steps])
        last = said[-1] if said else ""
        if not last:
            raise RuntimeError("the training failed: run with FAULTS_VERBOSE=1")
    counts["trainings"] += 1
    counts["same_hash"] += last == whole
