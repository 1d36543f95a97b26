"""Warnings of Lightning's that are false alarms here, silenced one by one."""

import warnings

_FALSE_ALARMS = (
    # Our module passes batches on as they are, whatever the data module is.
    "You have overridden `transfer_batch_to_device` in `LightningModule`",
    "You have overridden `transfer_batch_to_device` in both",
    # Every `LearnerModule` has one; whether there is data to validate on is a choice.
    "You defined a `validation_step` but have no `val_dataloader`",
    # It describes what a torch user of manual optimisation may have forgotten.
    "Using ModelCheckpoint with manual optimization and every_n_train_steps",
    # Lightning calls a name that torch has renamed.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)


def silence_false_alarms() -> None:
    """Called at the start of each run: `warnings.catch_warnings` may have undone it."""
    for message in _FALSE_ALARMS:
        warnings.filterwarnings("ignore", message=message)
