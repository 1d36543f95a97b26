"""A posterior in one file, for a fresh process."""

import json
from pathlib import Path

from .. import _safetensors
from .._paths import local_path
from .._types import Model
from ._encode import Decoder, Encoder
from ._posterior import AbstractPosterior

FORMAT = "jaxprob.posterior"
VERSION = "1"


def save_posterior(path: str | Path, posterior: AbstractPosterior) -> None:
    """Writes a posterior with its settings to one safetensors file.

    ```python
    save_posterior("posterior.safetensors", method.posterior(state))
    posterior = load_posterior("posterior.safetensors", model=make_model(key))
    ```

    Nothing is pickled: arrays stand by the paths of their leaves, classes by name and
    settings as JSON, which any program can read.

    **Arguments:**

    - `path`: the file, replaced whole or not at all.
    - `posterior`: of any method here.

    **Raises:** `TypeError` naming the part that no file can hold, such as a prior that
    is a function.
    """
    target = local_path("path", path)
    encoder = Encoder()
    spec = encoder.encode(posterior, "posterior")
    metadata = {"format": FORMAT, "version": VERSION, "posterior": json.dumps(spec)}
    _safetensors.write(target, encoder.arrays, metadata)


def load_posterior(path: str | Path, *, model: Model) -> AbstractPosterior:
    """The posterior that `save_posterior` wrote.

    **Arguments:**

    - `path`: the file.
    - `model`: built with the settings of the saved one; its weights do not matter, nor
        whether it is in inference mode.

    **Raises:** `ValueError` when the file is damaged or of another kind, or naming the
    leaf whose path, shape, dtype or setting differs from the model's.
    """
    arrays, metadata = _safetensors.read(local_path("path", path))
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} holds no posterior: save_posterior writes them. For the arrays "
            "alone use the safetensors library"
        )
    if metadata.get("version") != VERSION:
        raise ValueError(
            f"{path} has format version {metadata.get('version')}, and this jaxprob "
            f"reads {VERSION}"
        )
    posterior = Decoder(arrays, model).decode(json.loads(metadata["posterior"]))
    if not isinstance(posterior, AbstractPosterior):
        raise ValueError(f"{path} holds a {type(posterior).__name__}, no posterior")
    return posterior
