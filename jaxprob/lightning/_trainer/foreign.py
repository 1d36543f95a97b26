"""Whose code a hook is: Lightning's and ours are known, all else is the user's."""

import inspect
from typing import Any

_KNOWN = ("pytorch_lightning", "lightning_fabric", "jaxprob")


def is_foreign(watcher: Any, hook: str) -> bool:
    """Whether a hook of a callback or module is a function of the user's.

    A subclass of Lightning's `ModelCheckpoint` with a hook of its own is; so is a
    function given to `LambdaCallback`.
    """
    method = getattr(watcher, hook)
    function = inspect.unwrap(getattr(method, "__func__", method))
    module = getattr(function, "__module__", None) or ""
    return module.partition(".")[0] not in _KNOWN


def mentions(function: Any, name: str) -> bool:
    """Whether a function, or one nested in it, reads an attribute of that name.

    `True` of what has no Python code.
    """
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is None or _names(code, name)


def _names(code, name):
    nested = [const for const in code.co_consts if inspect.iscode(const)]
    return name in code.co_names or any(_names(inner, name) for inner in nested)
