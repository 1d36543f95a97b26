"""Errors of checkpoints that callbacks write when a run fails.

In Lightning the error of such a callback, e.g. a full disk, replaces the error that
ended the run. Here it becomes a note of that error.
"""

import functools
import warnings
from typing import Any

from pytorch_lightning.callbacks import Checkpoint


def keep_first_error(trainer: Any) -> None:
    """Let checkpoint callbacks add their own error to the first one as a note.

    It must be called before their `on_exception`, once in a run that fails.
    """
    for callback in trainer.callbacks:
        if isinstance(callback, Checkpoint):
            vars(callback)["on_exception"] = functools.partial(_on_exception, callback)


def _on_exception(callback, trainer, pl_module, exception):
    vars(callback).pop("on_exception", None)
    try:
        callback.on_exception(trainer, pl_module, exception)
    except Exception as second:
        kind = type(second).__name__
        note = f"{type(callback).__name__} wrote no checkpoint: {kind}: {second}"
        exception.add_note(f"jaxprob: {note}")
        if not isinstance(exception, Exception):  # Ctrl-C is shown without its notes
            warnings.warn(note, stacklevel=2)
