"""Tests whether a hook is code of the user's, and not of Lightning or jaxprob."""

import inspect
from typing import Any

_KNOWN = ("pytorch_lightning", "lightning_fabric", "jaxprob")


def is_foreign(watcher: Any, hook: str) -> bool:
    """Return whether a hook of a callback or module is a function of the user's.

    This includes an overridden hook in a subclass of Lightning's `ModelCheckpoint`, and
    a function given to `LambdaCallback`.
    """
    method = getattr(watcher, hook)
    function = inspect.unwrap(getattr(method, "__func__", method))
    module = getattr(function, "__module__", None) or ""
    return module.partition(".")[0] not in _KNOWN


def mentions(function: Any, name: str) -> bool:
    """Return whether a function, or one nested in it, reads an attribute.

    It is `True` for a callable without Python code.
    """
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is None or _names(code, name)


def _names(code, name):
    nested = [const for const in code.co_consts if inspect.iscode(const)]
    return name in code.co_names or any(_names(inner, name) for inner in nested)
