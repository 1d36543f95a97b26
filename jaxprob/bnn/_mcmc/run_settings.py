"""Settings of a run of chains, which its parts must share."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import equinox as eqx
from jaxtyping import PyTree

from ..._io.atomic import replace_whole
from ..._io.fingerprint import fingerprint
from ..._types import Model, PRNGKey
from .chains import AbstractChains


def run_settings(
    method: AbstractChains,
    model: Model,
    data: PyTree,
    *,
    key: PRNGKey,
    batch_size: int | None,
    checkpoint_every: int,
) -> dict[str, Any]:
    """Return all that must not change between the parts of one run, as text.

    `num_draws` is not among it: a larger one continues a finished run.
    """
    fields = {
        field.name: _setting(getattr(method, field.name))
        for field in dataclasses.fields(method)
        if field.name != "num_draws"
    }
    return {
        "method": type(method).__name__,
        **fields,
        "batch_size": batch_size,
        "checkpoint_every": checkpoint_every,
        "structure of the model": _text(model),
        "model": fingerprint(model),
        "data": fingerprint(data),
        "key": fingerprint(key),
    }


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a new run, or compare them with those of the folder.

    **Raises:** `ValueError` that names each difference.
    """
    path = folder / "run.json"
    if not path.exists():
        if (folder / "state.safetensors").exists():
            raise ValueError(
                f"{folder} holds a state without run.json, so it is not the folder of "
                "a run: give another one"
            )
        text = json.dumps(settings, indent=1)
        replace_whole(path, lambda partial: partial.write_text(text))
        return
    stored = json.loads(path.read_text())
    differ = [
        f"{name} was {stored.get(name)} and is {settings.get(name)}"
        for name in sorted(settings.keys() | stored.keys())
        if stored.get(name) != settings.get(name)
    ]
    if differ:
        raise ValueError(
            f"{folder} holds another run: {'; '.join(differ)}. Give the run another "
            "folder, or remove this one."
        )


def _setting(value):
    text = _text(value)
    if value is None or isinstance(value, bool | int | float | str):
        return text
    # The text of an array is its shape, that of a distribution or function its name.
    return f"{text} ({fingerprint(value)})"


def _text(value):
    """All settings in a tree, the same in every process."""
    text = eqx.tree_pformat(value)
    # A function whose types are checked is a wrapped one, and the same.
    text = text.replace("<wrapped function ", "<function ")
    return " ".join(re.sub(r" at 0x[0-9a-fA-F]+", "", text).split())
