"""A tree from its description and arrays.

Nothing is called that a file could choose: classes come from the registry and are
filled field by field, and what the registry does not know comes from the caller.
"""

import dataclasses
import functools
import inspect
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from . import registry
from .arrays import restore_array
from .describe import (
    PLAIN_TYPES,
    Spec,
    describe,
    same_user_name,
    user_name,
)
from .errors import DamagedFileError, FileMismatchError
from .numpyro_parts import KINDS, put_together

MISSING = object()
"""A `template` that is not there."""


class Rebuilder:
    """Values made from their descriptions.

    **Arguments:**

    - `arrays`: of the file.
    - `using`: classes and functions of the user's that a description may name.
    - `field_template`: the template of a field, from its class, name and description,
        if it is not the field of the `template` of the whole.
    - `stand_in`: from the description of a function or object that nothing else
        gives, what stands in for it.
    """

    def __init__(
        self,
        arrays: dict[str, np.ndarray],
        using: Iterable[Any] = (),
        field_template: Callable[[type, str, Spec], Any] | None = None,
        stand_in: Callable[[Spec], Any] | None = None,
    ):
        self.arrays = arrays
        self.used: set[str] = set()
        self._field_template = field_template
        self._stand_in = stand_in
        self._using = {_named(described): thing for thing, described in _each(using)}

    def __call__(self, spec: Spec, template: Any = MISSING) -> Any:
        """The value of a description.

        **Arguments:**

        - `spec`: from `describe`.
        - `template`: a value at the same place, whose classes and functions serve where
            the registry has none.

        **Raises:** `DamagedFileError` or `FileMismatchError`.
        """
        try:
            return self._value(spec, template)
        except (DamagedFileError, FileMismatchError):
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
            raise DamagedFileError(
                f"the file describes nothing that can be built here: {e!r}"
            ) from e

    def _value(self, spec, template):
        if not isinstance(spec, dict):
            return spec
        for kind, rule in _RULES.items():
            if kind in spec:
                return rule(self, spec, template)
        for kind in KINDS:
            if kind in spec:
                fields = self._items(spec["fields"])
                return put_together(
                    kind, spec[kind], fields, self._items(spec["settings"])
                )
        raise DamagedFileError(f"the file describes a {sorted(spec)[:3]}")

    def _items(self, specs):
        return {k: self._value(v, MISSING) for k, v in specs.items()}

    def _array(self, spec, template):
        name = spec["array"]
        if name not in self.arrays:
            raise DamagedFileError(f"the file lacks the array {name}: it is damaged")
        self.used.add(name)
        return restore_array(name, self.arrays[name], spec)

    def _texts(self, spec, template):
        texts = spec["texts"]
        if spec["kind"] == "S":
            texts = [text.encode("latin-1") for text in texts]
        elif not all(type(text) is str for text in texts):
            raise TypeError("an array of texts holds something else")
        return np.array(texts, spec["kind"]).reshape(spec["shape"])

    def _sequence(self, spec, template):
        (kind,) = spec
        ordered = isinstance(template, tuple | list) and len(template) == len(
            spec[kind]
        )
        templates = template if ordered else [MISSING] * len(spec[kind])
        items = [
            self._value(s, each) for s, each in zip(spec[kind], templates, strict=True)
        ]
        return _SEQUENCES[kind](items)

    def _dict(self, spec, template):
        templates = template if isinstance(template, dict) else {}
        items = {
            k: self._value(v, templates.get(k, MISSING))
            for k, v in spec["dict"].items()
        }
        return OrderedDict(items) if "ordered" in spec else items

    def _pairs(self, spec, template):
        templates = template if isinstance(template, dict) else {}
        out: dict[Any, Any] = OrderedDict() if "ordered" in spec else {}
        for key, value in spec["pairs"]:
            key = self._value(key, MISSING)
            out[key] = self._value(value, templates.get(key, MISSING))
        return out

    def _type(self, spec, template):
        if "code" in spec:
            return self._given(spec, template)
        module, _, name = spec["type"].rpartition(".")
        if module == "jax.numpy":
            return getattr(jnp, np.dtype(name).name)  # raises for what is no dtype
        if module in ("numpy", "ml_dtypes"):
            return np.dtype(name).type
        if module == "builtins":
            return {cls.__name__: cls for cls in PLAIN_TYPES}[name]
        return registry.find_class(spec["type"])

    def _function(self, spec, template):
        if "code" in spec:
            return self._given(spec, template)
        return registry.find_function(spec["function"])

    def _given(self, spec, template):
        if _named(spec) in self._using:
            return self._using[_named(spec)]
        if template is not MISSING:
            return template
        if self._stand_in is not None:
            return self._stand_in(spec)
        raise FileMismatchError(needs_message([_needed(spec)]))

    def _partial(self, spec, template):
        same = isinstance(template, functools.partial)
        func = self._value(spec["partial"], template.func if same else MISSING)
        args = self._sequence(
            {"tuple": spec["args"]}, template.args if same else MISSING
        )
        keywords = self._dict(
            {"dict": spec["keywords"]}, template.keywords if same else MISSING
        )
        cls = jax.tree_util.Partial if "pytree" in spec else functools.partial
        if not callable(func):
            raise DamagedFileError("the file describes a partial of no function")
        return cls(func, *args, **keywords)

    def _method(self, spec, template):
        owner = self._value(spec["self"], getattr(template, "__self__", MISSING))
        name = spec["method"]
        function = inspect.getattr_static(type(owner), name)
        function = getattr(function, "method", function)  # equinox wraps them
        plain = isinstance(function, types.FunctionType)
        if not plain or name.startswith("__") or not isinstance(owner, eqx.Module):
            raise DamagedFileError(f"{type(owner).__name__} has no method {name}")
        return getattr(owner, name)

    def _node(self, spec, template):
        if template is MISSING:
            raise FileMismatchError(needs_message([_needed(spec)]))
        templates, structure = jax.tree.flatten(
            template, is_leaf=lambda n: n is not template
        )
        pairs = zip(spec["children"], templates, strict=True)
        return jax.tree.unflatten(structure, [self._value(s, v) for s, v in pairs])

    def _class(self, spec, template):
        cls = self._find_class(spec, template)
        inner = {}
        for name, value in spec["fields"].items():
            inner[name] = self._value(
                value, self._template_of(cls, name, value, template)
            )
        if registry.is_named_tuple(cls):
            return tuple.__new__(cls, [inner[name] for name in cls._fields])  # pyright: ignore
        if cls is eqx.nn.State:
            inner = {"_state": inner}
        elif spec["class"] in registry.ATTRIBUTES:
            inner = {k: v for k, v in inner.items() if not k.startswith("__")}
        else:
            _check_fields(cls, inner)
        module = object.__new__(cls)
        for name, value in inner.items():
            object.__setattr__(module, name, value)
        return module

    def _template_of(self, cls, name, spec, template):
        if self._field_template is not None:
            found = self._field_template(cls, name, spec)
            if found is not MISSING:
                return found
        same = type(template) is cls
        if same and cls is eqx.nn.State:
            return template._state.get(name, MISSING)
        return getattr(template, name, MISSING) if same else MISSING

    def _find_class(self, spec, template):
        name = spec["class"]
        if "code" not in spec:
            try:
                return registry.find_class(name)
            except KeyError:
                raise FileMismatchError(
                    f"the file holds a {name}, which the versions installed here do "
                    "not have"
                ) from None
        for key, thing in self._using.items():
            if key[1] == name.rpartition(":")[2] and isinstance(thing, type):
                return thing
        if template is not MISSING and same_user_name(user_name(type(template)), name):
            return type(template)
        raise FileMismatchError(needs_message([name.replace(":", ".")]))


def needs(spec: Spec, using: Iterable[Any] = ()) -> list[str]:
    """Names of the user's classes and functions that a description has, in order."""
    given = {_named(described) for _, described in _each(using)}
    classes = {key[1] for key in given}
    found: dict[str, None] = {}
    for node in walk(spec):
        missing = "code" in node and _named(node) not in given
        if missing and not ("class" in node and _named(node)[1] in classes):
            found[_needed(node)] = None
    return list(found)


def needs_message(names: list[str]) -> str:
    """Return what to write where a file names code that is not ours."""
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return (
        f"the file holds {listed}: code that no file can hold. Give a tree with it, "
        "built with the settings of the saved one, load(path, template=model), or the "
        f"classes and functions themselves, load(path, using=[...])"
    )


def walk(spec: Spec) -> Iterator[dict[str, Any]]:
    """Every node of a description, outermost first."""
    if isinstance(spec, dict):
        yield spec
        for child in children(spec):
            yield from walk(child)


def children(spec: dict[str, Any]) -> Iterator[Spec]:
    """The descriptions inside of a node."""
    for kind in _SEQUENCES:
        yield from spec.get(kind, ())
    for kind in ("dict", "fields", "settings", "keywords"):
        yield from spec.get(kind, {}).values()
    for key, value in spec.get("pairs", ()):
        yield from (key, value)
    for kind in ("args", "children"):
        yield from spec.get(kind, ())
    for kind in ("partial", "self"):
        if kind in spec:
            yield spec[kind]


def _each(using):
    for thing in using:
        spec, _ = describe(thing)
        yield thing, spec


def _named(spec):
    """Kind, name and code of a described function or class."""
    for kind in ("type", "function", "class", "node", "object"):
        if isinstance(spec, dict) and kind in spec:
            code = spec.get("code") if kind in ("function", "object") else None
            return kind, spec[kind].rpartition(":")[2], code
    raise TypeError(f"using holds {spec!r}: it takes classes and functions")


def _needed(spec):
    """The name of what is needed, with its module."""
    kinds = ("type", "function", "class", "node", "object")
    return next(spec[kind] for kind in kinds if kind in spec).replace(":", ".")


def _check_fields(cls, inner):
    known = [field.name for field in dataclasses.fields(cls)]
    required = {f.name for f in dataclasses.fields(cls)} - _unset(cls)
    if not set(inner) <= set(known) or not required <= set(inner):
        raise FileMismatchError(
            f"{cls.__name__} has the fields {known} here, and the file has "
            f"{list(inner)}: it was written by another version"
        )


def _unset(cls):
    """Fields that a class may leave without a value."""
    return {field.name for field in dataclasses.fields(cls) if not field.init}


_SEQUENCES = {"tuple": tuple, "list": list, "set": set, "frozenset": frozenset}

_RULES = {
    "array": Rebuilder._array,
    "texts": Rebuilder._texts,
    **dict.fromkeys(_SEQUENCES, Rebuilder._sequence),
    "dict": Rebuilder._dict,
    "pairs": Rebuilder._pairs,
    "float": lambda self, spec, template: float(spec["float"]),
    "complex": lambda self, spec, template: complex(*map(float, spec["complex"])),
    "bytes": lambda self, spec, template: bytes.fromhex(spec["bytes"]),
    "ellipsis": lambda self, spec, template: ...,
    "numpy_dtype": lambda self, spec, template: np.dtype(spec["numpy_dtype"]),
    "method": Rebuilder._method,
    "partial": Rebuilder._partial,
    "type": Rebuilder._type,
    "function": Rebuilder._function,
    "object": Rebuilder._given,
    "node": Rebuilder._node,
    "class": Rebuilder._class,
}
