"""A tree as a description in JSON and named arrays.

| value | description |
|---|---|
| array, key | `{"array": name, "dtype": ..., "shape": ...}` |
| `None`, bool, int, str, finite float | itself |
| tuple, list, dict | `{"tuple": [...]}`, `{"list": [...]}`, `{"dict": {...}}` |
| module, dataclass, named tuple | `{"class": name, "fields": {...}}` |
| part of numpyro | `{"distribution": name, "fields": {...}, "settings": {...}}` |
| public function | `{"function": name}` |
| partial, method | `{"partial": ..., ...}`, `{"method": name, "self": ...}` |
| function or class of the user | the same with `"code"`, a fingerprint |

Static fields stand beside the others: they are settings.
"""

import dataclasses
import functools
import math
from collections import OrderedDict
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from . import registry
from .arrays import as_numpy, describe_array
from .fingerprint import fingerprint, is_library, methods
from .numpyro_parts import taken_apart

PLAIN_TYPES = (bool, int, float, complex, str)

Spec = Any
"""A description: what JSON can hold."""


def describe(tree: PyTree, *, code: bool = True) -> tuple[Spec, dict[str, Any]]:
    """Return the description of a tree and its arrays by the paths of their leaves.

    Nothing is rejected here but what has no fixed value, such as a traced array: a
    function or an object of the user's is described by a fingerprint, which tells it
    from another and cannot bring it back.

    **Arguments:**

    - `tree`: any tree.
    - `code`: whether functions of the user's get their fingerprint, which takes all
        that they close over; otherwise only their names are written.

    **Raises:** `TypeError` naming the leaf.
    """
    describer = _Describer(code)
    return describer(tree, ""), describer.arrays


class _Describer:
    def __init__(self, code: bool):
        self.arrays: dict[str, Any] = {}
        self._digits = fingerprint if code else lambda value: ""
        self._methods = methods if code else lambda cls: {}

    def __call__(self, value: Any, path: str) -> Spec:
        for rule in (
            *(self._array, self._constant, self._container),
            *(self._numpyro, self._code),
        ):
            spec = rule(value, path)
            if spec is not _UNKNOWN:
                return spec
        return self._object(value, path)

    def _array(self, value, path):
        if isinstance(value, jax.ShapeDtypeStruct):
            return {"array": path, **describe_array(value)}
        known = isinstance(value, np.ndarray | np.generic) or eqx.is_array(value)
        if not known:
            return _UNKNOWN
        if isinstance(value, Tracer):
            raise TypeError(
                f"{path or 'the tree'} is being traced and has no values: save outside "
                "of jit, grad and vmap"
            )
        kind = value.dtype.kind if isinstance(value.dtype, np.dtype) else "key"
        items = value.reshape(-1).tolist() if kind in "USO" else []
        # Names of columns and classes from pandas are arrays of objects, all texts.
        if kind in "US" or (kind == "O" and all(type(item) is str for item in items)):
            texts = items
            if kind == "S":
                texts = [text.decode("latin-1") for text in texts]
            return {"texts": texts, "kind": kind, "shape": list(value.shape)}
        if kind in "OMm" or getattr(value.dtype, "names", None):
            raise TypeError(
                f"{path or 'the tree'} is an array of dtype {value.dtype}: files hold "
                "numbers, bools and texts. Convert it first"
            )
        name = path
        while name in self.arrays:  # a key of a dict may hold a dot
            name += "'"
        self.arrays[name] = value
        return {"array": name, **describe_array(value)}

    def _constant(self, value, path):
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if type(value) is complex:
            return {"complex": [repr(value.real), repr(value.imag)]}
        if type(value) is bytes:
            return {"bytes": value.hex()}
        if value is Ellipsis:
            return {"ellipsis": True}
        if isinstance(value, np.dtype):
            return {"numpy_dtype": value.name}
        scalar = isinstance(value, type) and issubclass(value, np.generic)
        if scalar or (isinstance(value, type) and value in PLAIN_TYPES):
            return {"type": f"{value.__module__}.{value.__name__}"}
        if isinstance(value, type(jax.numpy.float32)):  # a scalar type of JAX's
            return {"type": f"jax.numpy.{value.__name__}"}
        return _UNKNOWN

    def _container(self, value, path):
        if type(value) in (tuple, list):
            kind = type(value).__name__
            return {kind: [self(v, _join(path, i)) for i, v in enumerate(value)]}
        if type(value) in (dict, OrderedDict):
            ordered = {} if type(value) is dict else {"ordered": True}
            if all(type(k) is str for k in value):
                items = {k: self(v, _join(path, k)) for k, v in value.items()}
                return {"dict": items, **ordered}
            pairs = [[self(k, ""), self(v, _join(path, k))] for k, v in value.items()]
            return {"pairs": pairs, **ordered}
        if type(value) in (set, frozenset):
            items = sorted(value, key=repr)
            kind = type(value).__name__
            return {kind: [self(v, _join(path, i)) for i, v in enumerate(items)]}
        if registry.is_named_tuple(type(value)):
            return self._fields(value, path, value._asdict())
        return _UNKNOWN

    def _numpyro(self, value, path):
        found = taken_apart(value)
        if found is None:
            return _UNKNOWN
        kind, name, fields, settings = found
        return {
            kind: name,
            "fields": {k: self(v, _join(path, k)) for k, v in fields.items()},
            "settings": {k: self(v, _join(path, k)) for k, v in settings.items()},
        }

    def _code(self, value, path):
        """Functions, and classes as values."""
        name = registry.function_name(value)
        if name is not None:
            return {"function": name}
        if isinstance(value, functools.partial):
            tree = {"pytree": True} if isinstance(value, jax.tree_util.Partial) else {}
            return {
                "partial": self(value.func, _join(path, "func")),
                "args": [self(v, _join(path, i)) for i, v in enumerate(value.args)],
                "keywords": {
                    k: self(v, _join(path, k)) for k, v in value.keywords.items()
                },
                **tree,
            }
        if isinstance(value, type):
            known = registry.class_name(value)
            if known is not None:
                return {"type": known}
            return {"type": user_name(value), "code": self._digits(value)}
        owner = getattr(value, "__self__", None)
        if isinstance(value, eqx.Module) and isinstance(owner, eqx.Module):
            return {"method": value.__name__, "self": self(owner, path)}  # pyright: ignore
        if isinstance(value, eqx.Module) or dataclasses.is_dataclass(value):
            return _UNKNOWN
        if callable(value):
            return {"function": user_name(value), "code": self._digits(value)}
        return _UNKNOWN

    def _object(self, value, path):
        name = registry.class_name(type(value))
        if name in registry.ATTRIBUTES:
            return self._fields(value, path, vars(value))
        if isinstance(value, eqx.nn.State):
            state = value._state
            if not isinstance(state, dict):
                raise TypeError(
                    f"{path or 'the tree'} is an eqx.nn.State that was used up by "
                    "state.set: save the state that it returned"
                )
            return self._fields(value, path, state)
        if dataclasses.is_dataclass(value):
            names = [field.name for field in dataclasses.fields(value)]
            fields = {n: getattr(value, n) for n in names if hasattr(value, n)}
            return self._fields(value, path, fields)
        children, structure = jax.tree.flatten(value, is_leaf=lambda n: n is not value)
        if not (len(children) == 1 and children[0] is value):
            # A node of another package, whose aux data only Python knows.
            items = [self(v, _join(path, i)) for i, v in enumerate(children)]
            return {"node": user_name(value), "children": items, "code": fingerprint(
                str(structure)
            )}  # fmt: skip
        return {"object": user_name(value), "code": self._digits(value)}

    def _fields(self, value, path, fields):
        cls = type(value)
        name = registry.class_name(cls)
        user = {}
        if name is None:
            code = {} if is_library(cls.__module__) else self._methods(cls)
            name, user = user_name(cls), {"code": code}
        inner = {str(k): self(v, _join(path, k)) for k, v in fields.items()}
        return {"class": name, "fields": inner, **user}


def _join(path, name):
    return f"{path}.{name}" if path else str(name)


def user_name(value: Any) -> str:
    """Name of a user's class, or of a function or of the class of an object."""
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}:{kind.__qualname__}"


def same_user_name(a: str, b: str) -> bool:
    """Return whether two names are equal but for the module.

    A class of a script is in `__main__` there, and in the script's module when it is
    imported.
    """
    return a.partition(":")[2] == b.partition(":")[2] if ":" in a else a == b


_UNKNOWN = object()


def on_host(arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a description as NumPy.

    **Raises:** `TypeError` for one that has no values.
    """
    return {name: as_numpy(array) for name, array in arrays.items()}
