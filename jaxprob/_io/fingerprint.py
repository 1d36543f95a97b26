"""A few digits that tell two settings apart: arrays, numbers, distributions, functions.

They are the same in every process of one version of Python.
"""

import dataclasses
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

from .arrays import as_numpy
from .numpyro_parts import taken_apart

_LIBRARIES = {
    *("beartype", "blackjax", "builtins", "diffrax", "einops", "equinox", "flax"),
    *("functools", "jax", "jaxlib", "jaxprob", "jaxtyping", "lineax", "math", "numpy"),
    *("numpyro", "operator", "optax", "optimistix", "scipy", "sklearn", "torch"),
}
"""Packages whose functions are known by their names; their code is their version's."""


def fingerprint(tree: PyTree) -> str:
    """Sixteen digits that depend on every bit of a tree's leaves.

    Of a user's function they depend on its code, its defaults, what it closes over, and
    the numbers, texts and functions of its module that it reads by a global name.
    """
    digest = hashlib.sha256()
    for part in _parts(tree, set()):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]


def methods(cls: type) -> dict[str, str]:
    """Fingerprints of the functions that a user's class defines, bases included."""
    out = {}
    for base in reversed(cls.__mro__):
        if is_library(base.__module__):
            continue
        for name, value in vars(base).items():
            function = _plain(value)
            if isinstance(function, types.FunctionType) and not _generated(function):
                out[name] = fingerprint(function)
    return out


def is_library(module: Any) -> bool:
    """Return whether a module is of a library whose functions are known by name."""
    return str(module).partition(".")[0] in _LIBRARIES


def _parts(tree: Any, seen: set[int]) -> Iterator[bytes]:
    for leaf in jax.tree.leaves(tree, is_leaf=_is_whole):
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
        elif (
            _is_whole(leaf)
            or isinstance(leaf, type | types.ModuleType)
            or not callable(leaf)
        ):
            yield from _object(leaf, seen)
        else:
            yield from _function(leaf, seen)


def _is_whole(node: Any) -> bool:
    # Of modules the static fields count too, which are no leaves.
    return taken_apart(node) is not None or dataclasses.is_dataclass(node)


def _function(function: Any, seen: set[int]) -> Iterator[bytes]:
    if isinstance(function, functools.partial):
        yield b"partial"
        yield from _parts([function.func, function.args, function.keywords], seen)
        return
    function = _plain(function)
    if isinstance(function, types.MethodType):
        yield from _parts(function.__self__, seen)
        function = _plain(function.__func__)
    if not isinstance(function, types.FunctionType):
        yield from _object(function, seen)
        return
    if id(function) in seen:  # it closes over itself
        return
    seen.add(id(function))
    if is_library(function.__module__):
        yield _name(function).encode()
    else:
        yield from _code(function.__code__, function.__doc__)
        yield from _globals(function, seen)
    cells = [_content(cell) for cell in function.__closure__ or ()]
    yield from _parts([function.__defaults__, function.__kwdefaults__, cells], seen)


def _plain(function: Any) -> Any:
    """The function behind jit, custom derivatives, caches and checks of types.

    `jax.vmap(f)` is another function than `f` and stays.
    """
    while True:
        checked = isinstance(function, types.FunctionType) and (
            function.__code__.co_filename.startswith("<@beartype(")
            or function.__globals__.get("__name__", "").startswith("jaxtyping.")
        )
        compiled = not isinstance(function, types.FunctionType | types.MethodType)
        if (checked or compiled) and "__wrapped__" in getattr(function, "__dict__", {}):
            function = function.__wrapped__
        elif compiled and inspect.isfunction(getattr(function, "fun", None)):
            function = function.fun  # jax.custom_jvp and jax.custom_vjp
        elif isinstance(function, staticmethod | classmethod):
            function = function.__func__
        elif isinstance(function, property):
            function = function.fget
        else:
            wrapped = getattr(function, "__wrapped__", None)
            if not compiled or isinstance(function, eqx.Module) or wrapped is None:
                return function
            function = wrapped


def _object(value: Any, seen: set[int]) -> Iterator[bytes]:
    """Any other object by its class and attributes, a class or module by its name."""
    yield _name(value).encode()
    if isinstance(value, type | types.ModuleType) or id(value) in seen:
        return
    seen.add(id(value))
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        fields = {n: getattr(value, n) for n in names if hasattr(value, n)}
    else:
        fields = getattr(value, "__dict__", {})
    if not is_library(type(value).__module__):
        for name, digits in sorted(methods(type(value)).items()):
            yield f"{name} {digits}".encode()
    for name in sorted(fields, key=str):
        yield str(name).encode()
        yield from _parts(fields[name], seen)


def _code(code: types.CodeType, doc: str | None = None) -> Iterator[bytes]:
    yield code.co_code
    yield repr(code.co_names).encode()
    for i, const in enumerate(code.co_consts):
        if isinstance(const, types.CodeType):
            yield from _code(const)
        elif isinstance(const, frozenset):
            yield repr(sorted(const, key=repr)).encode()
        elif i > 0 or doc is None or const != doc:
            yield repr(const).encode()


def _globals(function: types.FunctionType, seen: set[int]) -> Iterator[bytes]:
    """Values and functions that the code reads by global names."""
    for name in sorted(_names(function.__code__)):
        value = function.__globals__.get(name)
        simple = isinstance(value, bool | int | float | complex | str | tuple)
        if simple or _is_small_array(value):
            yield name.encode()
            yield from _parts(value, seen)
        elif isinstance(_plain(value), types.FunctionType | functools.partial):
            yield name.encode()
            yield from _function(value, seen)


def _names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names |= _names(const)
    return names


def _is_small_array(value: Any) -> bool:
    known = eqx.is_array(value) or isinstance(value, np.ndarray | np.generic)
    return known and value.size <= 2**16


def _generated(function: types.FunctionType) -> bool:
    """True for a function that a decorator such as `dataclass` wrote."""
    return function.__code__.co_filename.startswith("<string>")


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # still empty
        return None


def _name(value: Any) -> str:
    kind = value if hasattr(value, "__qualname__") else type(value)
    name, module = str(getattr(kind, "__qualname__", kind)), str(kind.__module__)
    # A script's own module has another name when it is imported.
    return f"{module}.{name}" if is_library(module) else name
