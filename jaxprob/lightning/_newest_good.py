"""Which checkpoint of a folder to resume from when the newest one is damaged."""

import warnings
from pathlib import Path

from ._checkpoint_io import load_verified
from ._errors import CheckpointCorruptError


def newest_good_checkpoint(folder: str | Path, pattern: str = "*.ckpt") -> str | None:
    """The newest checkpoint in a folder that can be trusted, as a path to resume from.

    Resuming from a damaged checkpoint is refused, and the Trainer does not look for
    another by itself: what a run goes on from is for you to say. This says it.

    ```python
    trainer.fit(module, data, ckpt_path=newest_good_checkpoint(folder))
    ```

    Newest is the one with the most training steps; of equals, the one written last.
    Files without a seal, as Lightning alone writes them, are read as far as torch does.

    **Arguments:**

    - `folder`: where the checkpoints are; folders in it are searched too.
    - `pattern`: of their names.

    **Returns:** the path; `None` where there is no checkpoint, which to the Trainer
    means a run from the beginning.

    **Raises:** `CheckpointCorruptError` when there are checkpoints and all are damaged:
    then it is not for us to begin anew.

    **Warns:** of each damaged file that might have been newer, by name.
    """
    good: list[tuple[int, int, Path]] = []
    damaged: dict[Path, CheckpointCorruptError] = {}
    for path in sorted(Path(folder).rglob(pattern)):
        try:
            steps = int(load_verified(path).get("global_step", 0))
        except CheckpointCorruptError as error:
            damaged[path] = error
        else:
            good.append((steps, path.stat().st_mtime_ns, path))
    if not good:
        if damaged:
            raise CheckpointCorruptError(
                f"every checkpoint in {folder} is damaged: "
                + "; ".join(map(str, damaged.values()))
            )
        return None
    *_, written, newest = max(good)
    for path, error in damaged.items():
        if path.stat().st_mtime_ns >= written:
            warnings.warn(f"skipped a checkpoint: {error}", stacklevel=2)
    return str(newest)
