"""Errors of checkpoints, as types that a program can catch."""


class CheckpointError(RuntimeError):
    """Base class of failures to write or to read a checkpoint."""


class CheckpointWriteError(CheckpointError):
    """The file was not written (no space, no permission); an older one is intact."""


class CheckpointLockedError(CheckpointError):
    """The folder is in use: another process writes checkpoints into it."""


class CheckpointCorruptError(CheckpointError):
    """The file differs from what was written: cut short, altered, or no checkpoint."""


class CheckpointContentError(CheckpointError):
    """The checkpoint holds objects that only code could rebuild."""


class CheckpointMismatchError(CheckpointError):
    """The checkpoint is of another model: leaves differ in name, shape or dtype."""
