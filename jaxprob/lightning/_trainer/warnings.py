"""Warnings of Lightning that are false alarms here, silenced one by one."""

import warnings

_FALSE_ALARMS = (
    # Our module returns batches as they are, with any data module.
    "You have overridden `transfer_batch_to_device` in `LightningModule`",
    "You have overridden `transfer_batch_to_device` in both",
    # Every `LearnerModule` has one; data to validate on are optional.
    "You defined a `validation_step` but have no `val_dataloader`",
    # It describes an omission in manual optimisation that cannot happen here.
    "Using ModelCheckpoint with manual optimization and every_n_train_steps",
    # Lightning calls a name that torch has renamed.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)


def silence_false_alarms() -> None:
    """Ignore them, at the start of each run: `catch_warnings` may have undone it."""
    for message in _FALSE_ALARMS:
        warnings.filterwarnings("ignore", message=message)
