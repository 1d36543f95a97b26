"""Call of a model on one example."""

import inspect
from typing import Any

from ..._types import Model, PRNGKey


def call_model(model: Model, x: Any, *, key: PRNGKey | None) -> Any:
    """Return `model(x, key=key)` if the model takes a key, else `model(x)`."""
    return model(x, key=key) if takes_key(model) else model(x)


def takes_key(model: Model) -> bool:
    """Return whether the signature of the model's call has a `key`."""
    try:
        return "key" in inspect.signature(model).parameters
    except (TypeError, ValueError):
        return False
