"""Full disks and folders that may not be written: typed errors, the old file stands."""

import os
import resource
import signal
import tempfile
from pathlib import Path

import torch
from lightning_fabric.plugins import TorchCheckpointIO

from jaxprob.lightning import AtomicCheckpointIO, CheckpointWriteError

from ._children import Child

SIZE = 10**5  # floats
NOBODY = 65534


def content(number: int) -> dict:
    return {"n": number, "w": torch.full((SIZE,), float(number))}


def save(folder: Path, rival: str, limit: int | None) -> None:
    """One save beyond a limit on the size of files, or without permission."""
    if limit is None:
        if os.getuid() == 0:
            os.setuid(NOBODY)  # whom permissions stop, as they do not stop root
    else:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    io = TorchCheckpointIO() if rival else AtomicCheckpointIO()
    try:
        io.save_checkpoint(content(1), folder / "last.ckpt")
    except CheckpointWriteError as error:
        named = str(folder / "last.ckpt") in str(error)
        print("typed" if named else "unnamed", flush=True)
    except Exception:
        print("untyped", flush=True)
    else:
        print("silent", flush=True)


def disk_campaign(runs: int, seed: int = 0, rival: str = "") -> dict[str, int]:
    """Half the runs meet a full disk, half a folder without permission.

    A full disk is a limit on the size of files, as a quota is, which needs no mount.
    """
    torch.set_num_threads(1)
    counts = {"faults": runs, "typed": 0, "untyped": 0, "silent": 0, "old_file_lost": 0}
    for i in range(runs):
        with tempfile.TemporaryDirectory() as name:
            os.chmod(name, 0o755)
            folder = Path(name)
            torch.save(content(0), folder / "last.ckpt")
            full = i % 2 == 0
            limit = (4 * SIZE * (i + 1)) // (runs + 1) if full else None
            os.chmod(folder, 0o755 if full else 0o555)
            _, said = Child(save, folder, rival, limit).end()
            os.chmod(folder, 0o755)
            kind = said[-1] if said else "untyped"
            counts[kind if kind in counts else "untyped"] += 1
            counts["old_file_lost"] += not _stands(folder / "last.ckpt")
    return counts


def _stands(path):
    try:
        return torch.load(path, weights_only=True)["n"] == 0
    except Exception:  # whatever a damaged file raises
        return False
