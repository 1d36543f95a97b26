"""What can go wrong with a checkpoint, as types that a program can catch."""


class CheckpointError(RuntimeError):
    """Any failure to write or to read a checkpoint."""


class CheckpointWriteError(CheckpointError):
    """It could not be written: no space, no permission. What stood there stands."""


class CheckpointLockedError(CheckpointError):
    """Another process writes checkpoints into the same folder."""


class CheckpointCorruptError(CheckpointError):
    """The file is not what was written: cut short, altered, or no checkpoint at all."""


class CheckpointContentError(CheckpointError):
    """It holds objects that only code could rebuild, and no plain data."""


class CheckpointMismatchError(CheckpointError):
    """The checkpoint is of another model: its leaves differ in name, shape or dtype."""
