"""The scalers of a data module, which a trained module keeps."""

import warnings
from typing import Any

from ...datasets import Standardizer
from .._checkpoint.description import SCALERS


def scalers_of(data: Any) -> dict[str, Standardizer]:
    """Return the scalers of any data module by the names of its fields."""
    found = {name: getattr(data, name, None) for name in SCALERS}
    return {k: v for k, v in found.items() if isinstance(v, Standardizer)}


def take_scalers(
    scalers: dict[str, Standardizer], trainer: Any, *, fitting: bool
) -> None:
    """Take over the scalers of the Trainer's data module, in place.

    **Arguments:**

    - `scalers`: those that the module was trained with, by name.
    - `fitting`: whether the module is trained on these data. Otherwise only scalers
        that are missing are taken.

    **Warns:** where scalers of the data differ from those of the module.
    """
    for name, scaler in scalers_of(trainer.datamodule).items():
        before = scalers.setdefault(name, scaler)
        if not before.equals(scaler):
            warnings.warn(
                f"the data module's {name} has mean {scaler.mean} and std "
                f"{scaler.std}, and the module was trained with mean {before.mean} "
                f"and std {before.std}: its inputs or outputs are in other units. "
                "Standardise by the scaler of the training data, module.x_scaler",
                stacklevel=2,
            )
        if fitting:
            scalers[name] = scaler
