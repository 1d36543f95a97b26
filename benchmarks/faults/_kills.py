"""SIGKILL at random instants while one file is overwritten again and again."""

import random
import shutil
import tempfile
from pathlib import Path

import torch
from lightning_fabric.plugins import TorchCheckpointIO

from jaxprob.lightning import AtomicCheckpointIO
from jaxprob.lightning._checkpoint.checkpoint_io import load_verified

from ._children import Child

SIZE = 10**7  # floats: 40 MB


def overwrite(folder: Path, rival: str, begin: int) -> None:
    """Saves for ever, and says the number of each save that is finished."""
    io = TorchCheckpointIO() if rival else AtomicCheckpointIO()
    for number in range(begin, 10**6):  # floats count no further
        content = {"n": number, "w": torch.full((SIZE,), float(number))}
        io.save_checkpoint(content, folder / "last.ckpt")
        print(number, flush=True)


def kill_campaign(runs: int, seed: int = 0, rival: str = "") -> dict[str, int]:
    """How many files were unreadable, and how many acknowledged saves were lost.

    The file is left in its folder from one kill to the next, as in a run that is
    started again. `TMPDIR` is on /dev/shm where there is one.
    """
    torch.set_num_threads(1)  # no pool of threads, so that forking stays safe
    rng = random.Random(seed)
    shm = Path("/dev/shm")
    counts = {"kills": runs, "unreadable": 0, "lost": 0, "saves": 0, "orphans": 0}
    with tempfile.TemporaryDirectory() as name:
        folder, begin = Path(name), 0
        for _ in range(runs):
            elsewhere = tempfile.mkdtemp(dir=shm if shm.is_dir() else None)
            child = Child(overwrite, folder, rival, begin, tmpdir=elsewhere)
            first = child.line()
            said = [first, *child.kill(rng.uniform(0.0, 0.4))]
            counts["saves"] += len(said)
            acknowledged = int(said[-1])
            begin = acknowledged + 2  # one more may have been finished and not said
            found = _read(folder / "last.ckpt", rival)
            if found is None:
                counts["unreadable"] += 1
                (folder / "last.ckpt").unlink(missing_ok=True)
            else:
                whole = bool((found["w"] == found["n"]).all())
                counts["lost"] += found["n"] < acknowledged or not whole
            left = sum(1 for path in folder.iterdir() if "partial" in path.name)
            counts["orphans"] = max(counts["orphans"], left)
            shutil.rmtree(elsewhere)
    return counts


def _read(path, rival):
    try:
        return torch.load(path, weights_only=True) if rival else load_verified(path)
    except Exception:  # whatever a damaged file raises
        return None
