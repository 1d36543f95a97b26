"""The fault campaign: kill, cut short, flip, fill; count what was lost.

    python -m benchmarks.faults [--quick]

- `overwrite`: SIGKILL at random instants while one file of 40 MB is overwritten, with
  TMPDIR on another file system where there is one. Afterwards the file must be readable
  and hold a save at least as new as the last one that was acknowledged.
- `training`: SIGKILL at random instants of a training with shuffling, noise, Adam and
  an EMA, resumed until it is done. Its end must be that of the uninterrupted run, bit
  for bit, and its progress must never go back.
- `mutants`: truncations, bit flips, appended bytes. Each must be detected.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ._timing import report


def overwrite_child(folder: str, rival: str) -> None:
    """Overwrites one file for ever; prints the number of each finished save."""
    import torch
    from lightning_fabric.plugins import TorchCheckpointIO

    from jaxprob.lightning import AtomicCheckpointIO

    io = TorchCheckpointIO() if rival == "lightning" else AtomicCheckpointIO()
    path = Path(folder) / "last.ckpt"
    for number in range(10**9):
        io.save_checkpoint({"n": number, "w": torch.full((10**7,), number)}, path)
        print(number, flush=True)


def train_child(folder: str, _: str) -> None:
    """Trains from the last checkpoint on; prints each saved step and the final hash."""
    import logging
    import warnings

    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    import pytorch_lightning as pl

    import jaxprob
    from jaxprob.lightning import ArrayDataModule, LearnerModule

    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

    @jaxprob.mean_loss
    def loss(model, example, *, key):
        x, y = example
        x = x + 0.1 * jax.random.normal(key, x.shape)
        return jnp.sum((model(x) - y) ** 2), {}

    learner = jaxprob.GradientDescent(loss, optax.adam(1e-2), ema=jaxprob.EMA(0.99))
    model = eqx.nn.MLP(1, 1, 16, 1, key=jax.random.key(0))
    module = LearnerModule(learner, model, steps_per_dispatch=8)
    x = np.random.default_rng(0).normal(size=(200, 1)).astype(np.float32)
    data = ArrayDataModule(train=(x, np.sin(x)), batch_size=8)
    last = Path(folder) / "last.ckpt"

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            trainer.save_checkpoint(last)
            print(trainer.global_step, flush=True)

    trainer = pl.Trainer(
        max_epochs=40,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[Save()],
        default_root_dir=folder,
    )
    trainer.fit(module, data, ckpt_path=last if last.exists() else None)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(eqx.filter(module.state, eqx.is_array)):
        digest.update(np.asarray(leaf).tobytes())
    print("done", digest.hexdigest(), flush=True)


def start(child: str, folder: Path, rival: str = "", **environment: str):
    arguments = ["--child", child, "--folder", str(folder), "--rival", rival]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.faults", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | environment,
    )


def kill_after(process, seconds: float) -> list[str]:
    """Kills a child that has begun to work; all it said before."""
    first = process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    lines = [line for line in (first + rest).splitlines(keepends=True) if "\n" in line]
    return [line.strip() for line in lines]


def overwrite_campaign(kills: int, rival: str, seed: int = 0) -> dict[str, int]:
    """How many files were unreadable, and how many acknowledged saves were lost."""
    import torch

    from jaxprob.lightning._checkpoint_io import load_verified

    rng = random.Random(seed)
    counts = {"kills": kills, "unreadable": 0, "lost": 0, "orphans_max": 0}
    shm = Path("/dev/shm")
    elsewhere = tempfile.mkdtemp(dir=shm if shm.is_dir() else None)
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        for _ in range(kills):
            process = start("overwrite", folder, rival, TMPDIR=elsewhere)
            said = kill_after(process, rng.uniform(0.0, 0.4))
            try:
                if rival == "lightning":
                    found = torch.load(folder / "last.ckpt", weights_only=True)
                else:
                    found = load_verified(folder / "last.ckpt")
            except Exception:  # whatever a damaged file raises
                counts["unreadable"] += 1
            else:
                whole = bool((found["w"] == found["n"]).all())
                acknowledged = int(said[-1]) if said else -1
                counts["lost"] += found["n"] < acknowledged or not whole
            orphans = sum(1 for p in folder.iterdir() if "partial" in p.name)
            counts["orphans_max"] = max(counts["orphans_max"], orphans)
            (folder / "last.ckpt").unlink(missing_ok=True)
    for path in Path(elsewhere).iterdir():
        path.unlink()
    os.rmdir(elsewhere)
    return counts


def training_campaign(kills: int, seed: int = 0) -> dict[str, int]:
    """Whether a training killed again and again ends as the uninterrupted one."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = start("train", Path(folder)).communicate()[0].splitlines()[-1]
    done, backwards, reached, last = 0, 0, 0, ""
    with tempfile.TemporaryDirectory() as folder:
        while not last.startswith("done"):
            process = start("train", Path(folder))
            if done < kills:
                said = kill_after(process, rng.uniform(0.0, 0.3))
                done += 1
            else:
                said = process.communicate()[0].splitlines()
            steps = [int(line) for line in said if line.isdigit()]
            backwards += bool(steps) and steps[0] < reached
            reached = max([reached, *steps])
            last = said[-1] if said else ""
    return {"kills": done, "same_hash": int(last == whole), "backwards": backwards}


def mutant_campaign(number: int, seed: int = 0) -> dict[str, int]:
    """How many altered files pass for checkpoints."""
    import torch

    from jaxprob.lightning import AtomicCheckpointIO, CheckpointError
    from jaxprob.lightning._checkpoint_io import load_verified

    rng = random.Random(seed)
    undetected = 0
    with tempfile.TemporaryDirectory() as folder:
        path, mutant = Path(folder) / "a.ckpt", Path(folder) / "b.ckpt"
        io = AtomicCheckpointIO()
        io.save_checkpoint({"w": torch.randn(5000)}, path)
        io.teardown()
        whole = path.read_bytes()
        for i in range(number):
            data = bytearray(whole)
            if i % 3 == 0:
                del data[rng.randrange(len(data)) :]
            elif i % 3 == 1:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            else:
                data += rng.randbytes(rng.randrange(1, 200))
            mutant.write_bytes(bytes(data))
            try:
                load_verified(mutant)
            except CheckpointError:
                continue
            undetected += 1
    return {"mutants": number, "undetected": undetected}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the faults")
    parser.add_argument("--child", choices=["overwrite", "train"])
    parser.add_argument("--folder")
    parser.add_argument("--rival", default="")
    options = parser.parse_args()
    if options.child:
        child = {"overwrite": overwrite_child, "train": train_child}[options.child]
        child(options.folder, options.rival)
        return
    scale = 10 if options.quick else 1
    results = {
        "overwrite": overwrite_campaign(200 // scale, ""),
        "overwrite_lightning": overwrite_campaign(200 // scale, "lightning"),
        "training": training_campaign(100 // scale),
        "mutants": mutant_campaign(1000 // scale),
    }
    rows = [("campaign", "what was counted")]
    rows += [
        (name, ", ".join(f"{k} {v}" for k, v in counts.items()))
        for name, counts in results.items()
    ]
    report("Faults", rows, results)


if __name__ == "__main__":
    main()
