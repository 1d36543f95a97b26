"""The checkpoint of a folder that a run is to resume from."""

import contextlib
import os
import warnings
from pathlib import Path

from ..._io.paths import is_url, local_path
from .._errors import CheckpointContentError, CheckpointCorruptError
from . import remote as _remote
from .checkpoint_io import load_verified


def newest_good_checkpoint(folder: str | Path, pattern: str = "*.ckpt") -> str | None:
    """Return the checkpoint of most training steps in a folder that can be trusted.

    The Trainer rejects a damaged checkpoint and searches for no other. This function
    finds the one to resume from.

    ```python
    trainer.fit(module, data, ckpt_path=newest_good_checkpoint(folder))
    ```

    Of checkpoints with equally many steps it is the one that was written last. Weights
    alone (`save_weights_only`), from which no run can be resumed, come after all
    others. Files without a seal, as Lightning writes them, are checked by torch alone.

    **Arguments:**

    - `folder`: where the checkpoints are, also as a URL (`s3://...`, through fsspec);
        folders in it are searched too.
    - `pattern`: of their names.

    **Returns:** the path to give to the Trainer; `None` where there is no checkpoint,
    with which the Trainer begins a new run.

    **Raises:** `CheckpointCorruptError` when there are checkpoints and none can be
    read. `NotADirectoryError` for a file.

    **Warns:** about each file that cannot be read and might have been newer, by name.
    """
    good: list[tuple[bool, int, int, int, str]] = []
    unread: dict[str, Exception] = {}
    written = _find(folder, pattern)
    for path, stamp in written.items():
        try:
            checkpoint = load_verified(path)
        except (CheckpointCorruptError, CheckpointContentError) as error:
            unread[path] = error
        except FileNotFoundError:
            continue  # the run that wrote it has replaced it since
        else:
            good.append((*_progress(checkpoint), stamp, path))
    if not good:
        if unread:
            raise CheckpointCorruptError(
                f"every checkpoint in {os.fspath(folder)} is unreadable: "
                + "; ".join(map(str, unread.values()))
            )
        return None
    *_, stamp, newest = max(good)
    for path, error in unread.items():
        if written[path] >= stamp:
            warnings.warn(f"skipped a checkpoint: {error}", stacklevel=2)
    return newest


def _progress(checkpoint):
    """Return whether a run can be resumed, its steps, and those of its last Trainer."""
    of_trainer = int(checkpoint.get("global_step", 0))
    tensors = checkpoint.get("state_dict") or {}
    steps = int(tensors.get("run.step", of_trainer))
    return "optimizer_states" in checkpoint, steps, of_trainer


def _find(folder, pattern):
    """Return the time at which each file was written, by path or URL."""
    if is_url(folder):
        url = os.fspath(folder)
        if _remote.is_file(url):
            raise NotADirectoryError(_no_folder(url))
        return dict(sorted(_remote.find(url, pattern).items()))
    root = local_path("folder", folder)
    if root.is_file():
        raise NotADirectoryError(_no_folder(root))
    found = {}
    for path in sorted(root.rglob(pattern)):
        with contextlib.suppress(FileNotFoundError):  # removed by a run meanwhile
            if path.is_file():
                found[str(path)] = path.stat().st_mtime_ns
    return found


def _no_folder(path):
    return (
        f"{path} is a file: give the folder that holds the checkpoints, or this path "
        "itself to the Trainer (ckpt_path=...)"
    )
