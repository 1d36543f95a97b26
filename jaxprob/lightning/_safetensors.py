"""The weights alone, in a format that any program can read and none can run."""

from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from .._types import Model
from ._atomic_write import atomic_write
from ._errors import CheckpointCorruptError, CheckpointMismatchError
from ._torch_arrays import leaf_names, pack, unpack


def export_safetensors(model: Model, path: str | Path) -> None:
    """Writes all arrays of a model, by their path in the tree.

    ```python
    export_safetensors(module.model, "model.safetensors")
    model = import_safetensors(fresh_model, "model.safetensors")
    ```

    **Arguments:**

    - `model`: any pytree.
    - `path`: the file, replaced whole or not at all.
    """
    tensors = pack(model)
    atomic_write(
        Path(path), lambda partial: safetensors.torch.save_file(tensors, partial)
    )


def import_safetensors(like: Model, path: str | Path) -> Model:
    """A model with the arrays of a file.

    **Arguments:**

    - `like`: a model built with the same settings; it says what is expected.
    - `path`: the file.

    **Raises:** `CheckpointMismatchError` naming the leaf that is missing, unexpected,
    or of another shape or dtype; `CheckpointCorruptError` for a damaged file.
    """
    try:
        tensors: dict[str, Any] = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise CheckpointCorruptError(f"{path} cannot be read: {error}") from error
    expected = leaf_names(like).keys()
    if expected != tensors.keys():
        missing = sorted(expected - tensors.keys())
        unexpected = sorted(tensors.keys() - expected)
        raise CheckpointMismatchError(
            f"{path}: missing {missing[:5]}, unexpected {unexpected[:5]}. Build the "
            "model with the settings that the file was written with"
        )
    return unpack(like, tensors)
