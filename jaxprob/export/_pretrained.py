"""A folder in the layout of the Hugging Face Hub: weights, settings, model card."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from .._io import DamagedFileError, FileMismatchError, load, save
from .._io.atomic import replace_whole
from .._io.paths import local_path
from .._io.save import read_described
from ..tree import count
from ._card import card

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def save_pretrained(
    folder: str | Path,
    tree: PyTree,
    *,
    name: str,
    description: str,
    figures: Mapping[str, float] | None = None,
    license: str = "other",
) -> None:
    """Write a model to a local folder that the Hub's tools can upload.

    The folder has the weights (`model.safetensors`, the file of `jaxprob.save`), the
    configuration (`config.json`: classes, their settings and the versions) and a model
    card (`README.md`) with the measured figures. Nothing is sent.

    ```python
    save_pretrained(
        "my-model",
        posterior,
        name="Diabetes progression",
        description="A posterior over the weights of a perceptron.",
        figures={"test log-likelihood": -1.08},
    )
    posterior = from_pretrained("my-model")
    ```

    **Arguments:**

    - `folder`: is made. Files of an earlier model in it are replaced one by one, the
        configuration last: a folder that was half written is rejected when it is read.
    - `tree`: a posterior, a denoiser, or any tree that `jaxprob.save` takes.
    - `name`, `description`: for the card.
    - `figures`: what was measured, and on which rows.
    - `license`: an identifier of the Hub, e.g. `"apache-2.0"`.

    **Raises:** those of `jaxprob.save`; `ValueError` for a path that is a file or a
    URL, and for a figure that is not a finite number.
    """
    folder = _local_folder(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder={folder} is a file: give the path of a folder")
    kind = type(tree).__name__
    text = card(name, description, kind, count(tree), figures or {}, license)
    save(folder / WEIGHTS, tree)
    replace_whole(folder / CARD, lambda at: at.write_text(text, encoding="utf-8"))
    config = json.dumps({"model_type": kind, **_described(folder)}, indent=2) + "\n"
    replace_whole(folder / CONFIG, lambda at: at.write_text(config, encoding="utf-8"))


def from_pretrained(
    folder: str | Path, *, template: PyTree = None, using: Iterable[Any] = ()
) -> Any:
    """Return the model of a folder that `save_pretrained` wrote.

    **Arguments:**

    - `folder`: a local folder; nothing is downloaded. `huggingface_hub`'s
        `snapshot_download` returns one for a name on the Hub.
    - `template`, `using`: as in `jaxprob.load`.

    **Raises:** those of `jaxprob.load`; `FileNotFoundError` naming the file that is
    missing; `jaxprob.FileMismatchError` if weights and configuration are of different
    models.
    """
    folder = _local_folder(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {name}: give a local folder that save_pretrained "
                "wrote, or one that huggingface_hub.snapshot_download returned"
            )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tree, versions = config["tree"], config["versions"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(
            f"{folder / CONFIG} is no configuration of save_pretrained: write the "
            "folder again"
        ) from error
    if {"tree": tree, "versions": versions} != _described(folder, "tree", "versions"):
        line = f"{CONFIG} describes another model than {WEIGHTS}"
        raise FileMismatchError(f"{folder}: {line}. Write the folder again", (line,))
    return load(folder / WEIGHTS, template=template, using=using)


def _local_folder(folder: str | Path) -> Path:
    return local_path("folder", folder)


def _described(folder: Path, *names: str) -> dict[str, Any]:
    """Return what the weights' file says of itself."""
    file = read_described(folder / WEIGHTS)
    all_of_it = {
        "library_name": "jaxprob",
        "versions": file.versions,
        "tree": file.spec,
    }
    return {name: all_of_it[name] for name in names or all_of_it}
