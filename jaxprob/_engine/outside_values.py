"""Python values that the functions of a learner read from outside their arguments.

A compiled step has them as constants: a global, a variable of an enclosing function, an
attribute of an object. When one has changed, a program that was compiled before would
go on with the old value in silence. So what can be seen of them is noted when a
program is made, and compared before it is used again.
"""

import functools
import inspect
import types
import warnings
from collections.abc import Mapping
from typing import Any, TypeAlias

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from .per_object import PerObject

# Their functions read no value of the user's but through what they enclose.
_LIBRARIES = {
    *("beartype", "builtins", "collections", "diffrax", "einops", "equinox"),
    *("functools", "jax", "jaxlib", "jaxprob", "jaxtyping", "lightning_fabric"),
    *("lineax", "math", "numpy", "numpyro", "optax", "optimistix"),
    *("pytorch_lightning", "torch", "typing"),
}
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
# What Lightning counts, and a loss may read of a module or a Trainer.
_COUNTERS = ("current_epoch", "global_step")
Name: TypeAlias = tuple[str, str]
"""The value that is read, and the function that reads it."""

_MOST_VISITS = 5_000
_MOST_ITEMS = 1_000
_MOST_BYTES = 2**16
_DEPTH = 6


class Outside:
    """Values that a learner, or another tree of functions, reads from outside now.

    **Fields:**

    - `values`: a number or a digest for each name, which is what is read and the
        function that reads it.
    """

    def __init__(self, *trees: PyTree):
        self.values: dict[Name, tuple[str, str]] = {}
        self._seen: set[int] = set()
        self._held: list[Any] = []  # so that no number of an object is used twice
        try:
            for tree in trees:
                self._visit(None, tree, frozenset(), 0)
        except Exception:  # of a user's object: what cannot be read is not compared
            self.values = {}
        self._held.clear()

    def leave_out(self, names: list[Name]) -> None:
        """Forget values that the functions write themselves, such as a counter."""
        for path, reader in names:
            self.values = {
                name: value
                for name, value in self.values.items()
                if name[1] != reader or not name[0].startswith(path)
            }

    def changed(self, now: "Outside") -> list[Name]:
        """Names whose values differ, of those that are known to both."""
        both = self.values.keys() & now.values.keys()
        return sorted(name for name in both if self.values[name] != now.values[name])

    def _note(self, name, value):
        if name is None:
            return
        # 1, 1.0 and True are equal; nan is not equal to itself.
        self.values[name] = (type(value).__name__, repr(value))

    def _visit(self, name, value, attributes, depth):
        """Notes a value; `attributes` are the names that its readers read of it."""
        if isinstance(value, _PLAIN):
            self._note(name, value)
            return
        if isinstance(value, np.ndarray | np.generic):
            self._note_array(name, value)
            return
        if isinstance(value, jax.Array):
            if name is not None and not isinstance(value, Tracer):
                self._note_jax(name, value)
            return
        key = (id(value), attributes, name)
        if hash(key) in self._seen or len(self._seen) > _MOST_VISITS or depth > _DEPTH:
            return
        self._seen.add(hash(key))
        self._held.append(value)
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            self._visit_items(name, value, attributes, depth)
        elif isinstance(value, type):
            return
        elif isinstance(value, types.ModuleType):
            if _root(value.__name__) not in _LIBRARIES:
                self._visit_attributes(name, value, attributes, depth)
        elif isinstance(value, np.random.Generator):
            self._note(_of(name, _RANDOM), repr(value.bit_generator.state))
        elif _is_tensor(value):
            self._note(name, (id(value), value._version))
        elif callable(value):
            self._visit_callable(name, value, attributes, depth)
        else:
            self._visit_object(name, value, attributes, depth)

    def _note_jax(self, name, array):
        small = array.nbytes <= _MOST_BYTES and array.is_fully_addressable
        if small and not jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended):
            self._note_array(name, array)
        else:  # it cannot be written to
            self._note(name, (id(array), array.shape))

    def _note_array(self, name, array):
        if name is None:
            return
        flat = np.ravel(np.asarray(array))
        if flat.nbytes > _MOST_BYTES:  # of a large one, entries spread over it
            flat = flat[:: max(1, len(flat) // 4096)]
        content = repr(flat.tolist()) if flat.dtype == object else flat.tobytes()
        self._note(name, (np.shape(array), str(flat.dtype), hash(content)))

    def _visit_items(self, name, items, attributes, depth):
        if len(items) > _MOST_ITEMS:
            return
        self._note(name, len(items))
        if isinstance(items, set | frozenset):
            if all(isinstance(item, _PLAIN) for item in items):
                self._note(name, sorted(map(repr, items)))
            return
        pairs = items.items() if isinstance(items, Mapping) else enumerate(items)
        for key, item in list(pairs):
            self._visit(_of(name, f"[{key!r}]"), item, attributes, depth + 1)

    def _visit_callable(self, name, value, attributes, depth):
        if isinstance(value, functools.partial):
            # Arguments that were bound are what the function is called with.
            reader = getattr(value.func, "__qualname__", type(value.func).__name__)
            known = ("an argument", f"functools.partial({reader})")
            for bound in (value.args, value.keywords):
                self._visit_items(known, bound, attributes, depth)
            self._visit(None, value.func, attributes, depth + 1)
            return
        if inspect.ismethod(value):
            self._visit_function(value.__func__, depth, value.__self__)
            return
        function = _unwrapped(value)
        if inspect.isfunction(function):
            self._visit_function(function, depth)
        else:
            self._visit_object(name, value, attributes, depth)

    def _visit_function(self, function, depth, owner=None):
        key = hash((id(function), id(owner)))
        if key in self._seen or len(self._seen) > _MOST_VISITS or depth > _DEPTH:
            return
        self._seen.add(key)
        self._held += [function, owner]
        ours = _root(function.__module__) in _LIBRARIES
        names = frozenset() if ours else _names(function.__code__)
        reader = function.__qualname__.replace("<locals>.", "")
        cells = zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=False
        )
        for variable, cell in cells:
            try:
                content = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            if variable == "__class__":
                continue
            known = None if ours else (variable, reader)
            self._visit(known, content, names, depth + 1)
        if ours:
            return
        for default in function.__defaults__ or ():
            self._visit(None, default, names, depth + 1)
        for variable in sorted(names & function.__globals__.keys()):
            content = function.__globals__[variable]
            self._visit((variable, reader), content, names, depth + 1)
        if owner is not None:
            self._visit_attributes(("self", reader), owner, names, depth)

    def _visit_object(self, name, value, attributes, depth):
        foreign = _root(type(value).__module__) not in _LIBRARIES
        if isinstance(value, eqx.Module):
            # Its fields are constants, but functions among them may read others.
            for inner in vars(value).values():
                self._visit(
                    None, inner, attributes, depth if not foreign else depth + 1
                )
        if foreign and callable(value):
            call = inspect.getattr_static(type(value), "__call__", None)
            if inspect.isfunction(call):
                self._visit_function(call, depth + 1, value)
        if foreign and isinstance(value, eqx.Module):
            for method in ("update", "evaluate", "log_prob", "denoise"):
                function = inspect.getattr_static(type(value), method, None)
                if inspect.isfunction(function) and _is_foreign(function):
                    self._visit_function(function, depth + 1, value)
        self._visit_attributes(name, value, attributes, depth)

    def _visit_attributes(self, name, value, attributes, depth):
        """Those attributes of an object that its reader's code names."""
        if name is None:
            return
        fields = getattr(value, "__dict__", {})
        for attribute in sorted(attributes):
            if attribute in fields:
                inner = fields[attribute]
            elif attribute in _COUNTERS:
                inner = _counter(value, attribute)
            else:
                inner = inspect.getattr_static(type(value), attribute, None)
                if isinstance(inner, property):
                    # A property of the user's is code that reads, never run here.
                    inner = inner.fget
                if inspect.isfunction(inner):
                    if _is_foreign(inner):
                        self._visit_function(inner, depth + 1, value)
                    continue
                if not isinstance(inner, (*_PLAIN, list, dict, np.ndarray)):
                    continue
            if inner is not None:
                known = _of(name, f".{attribute}")
                self._visit(known, inner, attributes, depth + 1)


def is_current(owner: object, then: Outside, now: Outside) -> bool:
    """Return whether a program may be used again: nothing that it read has changed.

    Otherwise it warns, once for each owner, and empties JAX's caches.
    """
    changed = then.changed(now)
    if not changed:
        return True
    jax.clear_caches()  # traces of scan, checkpoint and jit inside are kept by function
    _WARNED.get(owner, None, lambda: _warn(changed, then, now))
    return False


def _warn(changed, then, now):
    path, reader = changed[0]
    before, after = then.values[changed[0]][1], now.values[changed[0]][1]
    values = f" ({before} before, {after} now)" if len(before + after) < 60 else ""
    more = f" and {len(changed) - 1} other values" if len(changed) > 1 else ""
    warnings.warn(
        f"{path!r}, read by {reader},{more} changed since the step was compiled"
        f"{values}. Python values that a function reads from outside its arguments are "
        "constants of the compiled step, so it is compiled again now. They are "
        "compared at the start of a fit and of an epoch. For a value that changes "
        "during training write loss(model, batch, *, key, step), where step counts the "
        "updates, which compiles once",
        stacklevel=2,
    )
    return True


_WARNED: PerObject[bool] = PerObject()
_RANDOM = " (a generator of random numbers)"


class HostRandom:
    """Record of whether NumPy draws random numbers from now on.

    In a function that is traced they are drawn once, for all steps. Python's own are
    not looked at: type checkers draw them too.
    """

    def __init__(self):
        self._before = self._now()

    def check(self, written: list[Name]) -> None:
        """Warn of random numbers that a trace has made constants.

        **Arguments:**

        - `written`: values from outside that changed in the trace.
        """
        generators = any(path.endswith(_RANDOM) for path, _ in written)
        if generators or self._now() != self._before:
            warnings.warn(
                "the step drew random numbers from NumPy while it was compiled: they "
                "are the same numbers in every step. Draw them with the key that the "
                "loss is given, such as jax.random.normal(key, shape)",
                stacklevel=2,
            )

    @staticmethod
    def _now():
        state: Any = np.random.get_state()  # noqa: NPY002
        return state[1].tobytes(), state[2]


def _root(module):
    return (module or "").partition(".")[0]


def _is_foreign(function):
    return _root(function.__module__) not in _LIBRARIES


def _unwrapped(function):
    try:
        return inspect.unwrap(function)
    except ValueError:
        return function


@functools.lru_cache(maxsize=1024)
def _names(code):
    """Names of globals and attributes in a piece of code and what is nested in it."""
    names = set(code.co_names)
    for const in code.co_consts:
        if inspect.iscode(const):
            names |= _names(const)
    return frozenset(names)


def _of(name, part):
    """The name of a part of what a name stands for."""
    return None if name is None else (name[0] + part, name[1])


def _is_tensor(value):
    return _root(type(value).__module__) == "torch" and hasattr(value, "_version")


def _counter(value, attribute):
    """A counter of Lightning's; nothing of an object that is in no Trainer."""
    if _root(type(value).__module__) != "pytorch_lightning" and not any(
        _root(kind.__module__) == "pytorch_lightning" for kind in type(value).__mro__
    ):
        return None
    try:
        return getattr(value, attribute)
    except (RuntimeError, AttributeError):
        return None
