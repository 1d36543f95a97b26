"""The weights alone, in a format that any program can read and none can run."""

import io
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from .._paths import is_url, local_path
from .._types import Model
from . import _remote
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
    - `path`: the file, replaced whole or not at all; also a URL (`s3://...`).
    """
    tensors = pack(model)
    if is_url(path):
        _remote.write(os.fspath(path), io.BytesIO(safetensors.torch.save(tensors)))
        return
    atomic_write(
        local_path("path", path),
        lambda partial: safetensors.torch.save_file(tensors, partial),
    )


def import_safetensors(like: Model, path: str | Path) -> Model:
    """A model with the arrays of a file.

    **Arguments:**

    - `like`: a model built with the same settings; it says what is expected.
    - `path`: the file; also a URL.

    **Raises:** `CheckpointMismatchError` naming the leaf that is missing, unexpected,
    or of another shape or dtype; `CheckpointCorruptError` for a damaged file.
    """
    try:
        if is_url(path):
            content = _remote.read(os.fspath(path)).getvalue()
            tensors: dict[str, Any] = safetensors.torch.load(content)
        else:
            tensors = safetensors.torch.load_file(local_path("path", path))
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
