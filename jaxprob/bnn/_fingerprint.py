"""A few digits that tell two settings apart: arrays, numbers, distributions, functions.

They are the same in every process of one version of Python.
"""

import functools
import hashlib
import inspect
import types
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from .._keys import is_key
from ._encode_numpyro import taken_apart


def fingerprint(tree: PyTree) -> str:
    """Sixteen digits that depend on every bit of a tree's leaves.

    Of a function they depend on its code, its defaults and what it closes over, but on
    no other function that it calls by a global name.
    """
    digest = hashlib.sha256()
    for part in _parts(tree, set()):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]


def as_numpy(leaf: Any) -> np.ndarray:
    """The bits of an array, or of keys."""
    if is_key(leaf):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf, order="C")  # ascontiguousarray gives scalars an axis


def _parts(tree: Any, seen: set[int]) -> Iterator[bytes]:
    leaves = jax.tree.leaves(tree, is_leaf=lambda node: taken_apart(node) is not None)
    for leaf in leaves:
        numpyro = taken_apart(leaf)
        if numpyro is not None:
            kind, name, fields, settings = numpyro
            yield f"{kind} {name}".encode()
            # numpyro gathers its fields in a set.
            for key, value in sorted({**fields, **settings}.items()):
                yield key.encode()
                yield from _parts(value, seen)
        elif eqx.is_array(leaf) or isinstance(leaf, np.ndarray | np.generic):
            array = as_numpy(leaf)
            yield f"{array.dtype}{array.shape}".encode()
            yield array.tobytes()
        elif isinstance(leaf, bool | int | float | complex | str | bytes | type(None)):
            yield repr(leaf).encode()
        elif callable(leaf):
            yield from _function(leaf, seen)
        else:
            yield _name(leaf).encode()


def _function(function: Any, seen: set[int]) -> Iterator[bytes]:
    if isinstance(function, functools.partial):
        yield b"partial"
        yield from _parts([function.func, function.args, function.keywords], seen)
        return
    function = inspect.unwrap(function)
    if isinstance(function, types.MethodType):
        yield from _parts(function.__self__, seen)
        function = function.__func__
    if not isinstance(function, types.FunctionType):
        yield _name(function).encode()
        return
    if id(function) in seen:  # it closes over itself
        return
    seen.add(id(function))
    yield from _code(function.__code__)
    cells = [_content(cell) for cell in function.__closure__ or ()]
    yield from _parts([function.__defaults__, function.__kwdefaults__, cells], seen)


def _code(code: types.CodeType) -> Iterator[bytes]:
    yield code.co_code
    yield repr(code.co_names).encode()
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _code(const)
        elif isinstance(const, frozenset):
            yield repr(sorted(const, key=repr)).encode()
        else:
            yield repr(const).encode()


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # still empty
        return None


def _name(value: Any) -> str:
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
