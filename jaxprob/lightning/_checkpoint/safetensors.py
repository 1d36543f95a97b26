"""Models as safetensors files, also behind a URL, and files of other programs."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..._io.errors import DamagedFileError, FileMismatchError
from ..._io.paths import is_url, local_path
from ..._io.save import is_described, load, load_weights, save
from ..._types import Model
from .._errors import CheckpointCorruptError, CheckpointMismatchError
from . import remote as _remote
from .atomic_write import explained


def export_safetensors(model: Model, path: str | Path) -> None:
    """Write a model, its structure and its settings to one file: `jaxprob.save`.

    ```python
    export_safetensors(module.model, "model.safetensors")
    model = import_safetensors(fresh_model, "model.safetensors")
    ```

    **Arguments:**

    - `model`: any pytree.
    - `path`: the file, replaced whole or not at all; also a URL (`s3://...`).

    **Raises:** `CheckpointWriteError` for a full disk or a missing permission.
    """
    if is_url(path):
        with _temporary() as local:
            save(local, model)
            _remote.write(os.fspath(path), io.BytesIO(local.read_bytes()))
        return
    with explained(local_path("path", path)):
        save(path, model)


def import_safetensors(template: Model, path: str | Path) -> Model:
    """Return a model with the arrays of a file.

    A file of jaxprob is compared setting by setting (`jaxprob.load`). A file of another
    program has no settings, and is compared by names, shapes and dtypes
    (`jaxprob.load_weights`).

    **Arguments:**

    - `template`: a model built with the same settings, with which the file is compared.
    - `path`: the file; also a URL.

    **Raises:** `CheckpointMismatchError` naming each setting that differs, or the leaf
    that is missing, unexpected, or of another shape or dtype; `CheckpointCorruptError`
    for a damaged file.
    """
    if is_url(path):
        with _temporary() as local:
            local.write_bytes(_remote.read(os.fspath(path)).getvalue())
            return import_safetensors(template, local)
    try:
        if is_described(path):
            return load(path, template=template)
        return load_weights(path, template)
    except DamagedFileError as error:
        raise CheckpointCorruptError(str(error)) from error
    except FileMismatchError as error:
        raise CheckpointMismatchError(str(error)) from error


@contextlib.contextmanager
def _temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "remote.safetensors"
