"""Files made to run code, or to claim more memory than they hold."""

import contextlib
import io
import os
import pickle
import random
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from jaxprob.lightning import (
    CheckpointContentError,
    CheckpointCorruptError,
    CheckpointError,
)
from jaxprob.lightning._checkpoint.checkpoint_io import load_verified
from jaxprob.lightning._checkpoint.seal import seal

from ._children import Child

SLACK = 2**22  # bytes of the interpreter's own, whatever the file


class Runs:
    """Unpickled, it would run something."""

    def __init__(self, function: Callable, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


def _pickled(rng, marker):
    functions = [
        (os.system, f"touch {marker}"),
        (exec, f"open({str(marker)!r}, 'w')"),
        (eval, f"open({str(marker)!r}, 'w')"),
        (open, str(marker), "w"),
    ]
    return Runs(*rng.choice(functions))


def torch_file(path: Path, rng: random.Random, marker: Path) -> None:
    """Code in a file of torch's, sealed as one of ours half of the time."""
    torch.save({"state_dict": {"w": torch.ones(100)}, "x": _pickled(rng, marker)}, path)
    if rng.random() < 0.5:
        with path.open("r+b") as file:
            seal(file)


def bare_pickle(path: Path, rng: random.Random, marker: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": _pickled(rng, marker)}))


def compressed(path: Path, rng: random.Random, marker: Path) -> None:
    """Ten kilobytes that unpack to ten megabytes or more."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * rng.randrange(10**7, 10**8))


def claiming(path: Path, rng: random.Random, marker: Path) -> None:
    """A tensor of gigabytes over a storage of a few bytes, or a header that lies."""
    torch.save({"state_dict": {"w": torch.ones(100)}}, path)
    data = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        # The size of the tensor and its storage, as pickle writes a byte: K\x64.
        small, huge = b"K\x64", b"J" + struct.pack("<i", 2**31 - 1)
        source = zipfile.ZipFile(io.BytesIO(bytes(data)))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for entry in source.namelist():
                content = source.read(entry)
                if entry.endswith("data.pkl"):
                    content = content.replace(small, huge)
                archive.writestr(entry, content)
    else:
        # The sizes in the directory of the archive.
        start = data.index(b"PK\x01\x02")
        data[start + 20 : start + 28] = struct.pack("<II", 2**31, 2**31)
        path.write_bytes(bytes(data))


def climbing(path: Path, rng: random.Random, marker: Path) -> None:
    """Entries whose names lead out of the folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"../{marker.name}", b"owned")
        archive.writestr(str(marker), b"owned")
        archive.writestr("archive/data.pkl", pickle.dumps({}))


def noise(path: Path, rng: random.Random, marker: Path) -> None:
    """Random bytes, perhaps behind a beginning and before an end that look right."""
    middle = rng.randbytes(rng.randrange(0, 5000))
    begin = rng.choice([b"", b"PK\x03\x04", b"\x80\x02", b"PK\x05\x06"])
    end = rng.choice([b"", b"PK\x05\x06" + bytes(18), b"jaxprob-sha256:" + b"0" * 64])
    path.write_bytes(begin + middle + end)


KINDS = (torch_file, bare_pickle, compressed, claiming, climbing, noise)


def read(path: Path, honest: Path) -> None:
    """Says how reading it ended, and how many bytes were taken meanwhile.

    An honest file is read first: what torch imports for that counts for no other.
    """
    load_verified(honest)
    with contextlib.suppress(CheckpointError):
        load_verified(honest.with_suffix(".damaged"))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _peak()
    try:
        load_verified(path)
    except (CheckpointCorruptError, CheckpointContentError):
        outcome = "typed"
    except CheckpointError:
        outcome = "untyped"
    except BaseException as error:
        outcome = f"untyped {type(error).__name__}"
    else:
        outcome = "accepted"
    print(outcome.split()[0], _peak() - before, flush=True)


def _peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def hostile_campaign(runs: int, seed: int = 0) -> dict[str, dict[str, int]]:
    """By kind: refused with a typed error, code run, too much memory taken."""
    torch.set_num_threads(1)
    rng = random.Random(seed)
    counts: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "in"
        folder.mkdir()
        path, marker = folder / "a.ckpt", Path(name) / "owned"
        honest = Path(name) / "honest.ckpt"
        torch.save({"state_dict": {"w": torch.ones(100)}}, honest)
        torch_file(honest.with_suffix(".damaged"), random.Random(0), marker)
        for i in range(runs):
            kind = KINDS[i % len(KINDS)]
            kind(path, rng, marker)
            _, said = Child(read, path, honest).end()
            outcome, taken = said[-1].split() if said else ("untyped", "0")
            row = counts.setdefault(
                kind.__name__,
                {"made": 0, "typed": 0, "code_run": 0, "memory": 0},
            )
            row["made"] += 1
            row["typed"] += outcome == "typed"
            row["code_run"] += marker.exists()
            row["memory"] += int(taken) > 2 * path.stat().st_size + SLACK
            marker.unlink(missing_ok=True)
    return counts
