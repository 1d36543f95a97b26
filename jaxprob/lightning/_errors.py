"""What can go wrong with a checkpoint, as types that a program can catch."""


class CheckpointError(RuntimeError):
    """Any failure to write or to read a checkpoint."""


class CheckpointMismatchError(CheckpointError):
    """The checkpoint is of another model: its leaves differ in name, shape or dtype."""
