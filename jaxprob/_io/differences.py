"""Two descriptions compared, setting by setting, by name."""

import platform
from typing import Any, Literal, TypeAlias

import numpy as np

from .arrays import canonical
from .describe import Spec, same_user_name
from .numpyro_parts import KINDS

Inside: TypeAlias = Literal["whole", "part"] | None

PYTHON = ".".join(platform.python_version_tuple()[:2])


class Comparison:
    """Differences between the description in a file and that of a tree.

    **Arguments:**

    - `thing`, `source`: what the tree and the file are called in the sentences.
    - `python`: version of Python that wrote the file. The code of functions compares
        within one version only.
    - `dtypes`: whether dtypes of arrays are compared.
    - `inside_posterior`: of a tree inside a posterior over the model, whose leaves may
        be random or have leading axes of draws or members: `"whole"`, or `"part"`
        where leaves may be missing. `None` elsewhere.

    **Fields:**

    - `differences`: one line for each setting that differs.
    - `changed_code`: names of methods of the user's classes whose code has changed, and
        of functions whose code cannot be compared.
    """

    def __init__(
        self,
        thing: str = "the model",
        *,
        source: str = "the file",
        python: str = PYTHON,
        dtypes: bool = True,
        inside_posterior: Inside = None,
    ):
        self.differences: list[str] = []
        self.changed_code: list[str] = []
        self._thing = thing
        self._source = source
        self._same_python = python == PYTHON
        self._dtypes = dtypes
        self._inside = inside_posterior
        self._lead: list[int] | None = None

    def compare(self, file: Spec, tree: Spec, path: str = "") -> None:
        """Collect what differs at `path` and below."""
        if self._inside == "part" and file is None:
            return  # the posterior's other parts hold it
        if self._inside and _is(file, _UNCONSTRAINED) and not _is(tree, _UNCONSTRAINED):
            file = _constrained(file)
        if self._inside and isinstance(file, dict) and "mean" in file.get("fields", {}):
            random = file["class"] == _GAUSSIAN
            if random and not (
                isinstance(tree, dict) and tree.get("class") == _GAUSSIAN
            ):
                file = file["fields"]["mean"]
        if not isinstance(file, dict) or not isinstance(tree, dict):
            if not _same_constant(file, tree):
                self._note(path, file, tree)
            return
        kind = _kind(file)
        if kind != _kind(tree):
            self._note(path, file, tree)
        elif kind == "array":
            self._compare_arrays(file, tree, path)
        elif kind in ("tuple", "list"):
            self._compare_sequences(file, tree, path)
        elif kind in ("dict", "class", *KINDS):
            self._compare_items(kind, file, tree, path)
        elif kind == "method" and file["method"] == tree["method"]:
            self.compare(file["self"], tree["self"], path)
        elif kind == "node" and _same_node(file, tree):
            self._compare_sequences(
                {"list": file["children"]}, {"list": tree["children"]}, path
            )
        elif kind in ("function", "object", "type") and "code" in file:
            self._compare_code(kind, file, tree, path)
        elif kind in ("partial", "pairs", "set", "frozenset"):
            inner = Comparison(
                self._thing, source=self._source, python=_python(self._same_python)
            )
            inner._compare_parts(file, tree)
            self.changed_code += [_join(path, name) for name in inner.changed_code]
            if inner.differences:
                self._note(path, file, tree)
        elif file != tree:
            self._note(path, file, tree)

    def _compare_arrays(self, file, tree, path):
        shape, dtype = file["shape"], file.get("dtype")
        expected, wanted = tree["shape"], tree.get("dtype")
        lead = shape[: len(shape) - len(expected)] if self._inside else []
        if lead and self._lead is None:
            self._lead = lead
        fits = shape == [*lead, *expected] and lead in ([], self._lead)
        # As JAX takes it: NumPy's float64 is float32 in a process of that precision.
        if "numpy" in file or "numpy" in tree:
            dtype, wanted = (d and canonical(np.dtype(d)) for d in (dtype, wanted))
        if not fits or (self._dtypes and dtype != wanted):
            self._note(path, file, tree)

    def _compare_sequences(self, file, tree, path):
        (kind,) = file
        if len(file[kind]) != len(tree[kind]):
            self._say(
                path,
                f"{self._source} has {len(file[kind])} items, {self._thing} has "
                f"{len(tree[kind])}",
            )
            return
        for i, (a, b) in enumerate(zip(file[kind], tree[kind], strict=True)):
            self.compare(a, b, _join(path, i))

    def _compare_items(self, kind, file, tree, path):
        if kind != "dict" and not same_user_name(file[kind], tree[kind]):
            self._note(path, file, tree)
            return
        groups = ("dict",) if kind == "dict" else ("fields", "settings")
        for group in groups:
            a, b = file.get(group, {}), tree.get(group, {})
            for name in a.keys() | b.keys():
                if name not in b:
                    self._say(_join(path, name), f"{self._thing} has no such part")
                elif name not in a:
                    self._say(_join(path, name), f"{self._source} has no such part")
            for name in a:
                # No setting but a mode: what was trained is used in the other one.
                mode = name == "inference" and _are_bools(a[name], b.get(name))
                if name in b and not mode:
                    self.compare(a[name], b[name], _join(path, name))
        ordered = file.get("ordered") == tree.get("ordered")
        if kind == "dict" and not ordered:
            self._note(path, file, tree)
        if self._same_python and kind == "class":
            self._compare_methods(file, tree)

    def _compare_methods(self, file, tree):
        a, b = file.get("code", {}), tree.get("code", {})
        for name in sorted(a.keys() | b.keys()):
            text = f"{file['class'].rpartition(':')[2]}.{name}"
            if a.get(name) != b.get(name) and text not in self.changed_code:
                self.changed_code.append(text)

    def _compare_code(self, kind, file, tree, path):
        if not same_user_name(file[kind], tree[kind]) or "code" not in tree:
            self._note(path, file, tree)
        elif not self._same_python:
            self.changed_code.append(_short(file[kind]))
        elif file["code"] != tree["code"]:
            self._say(
                path,
                f"{self._source} has {render(file)} with code or values "
                f"{file['code']}, {self._thing} has another of this name with "
                f"{tree['code']}",
            )

    def _compare_parts(self, file, tree):
        for part in ("partial", "args", "keywords", "pairs", "set", "frozenset"):
            if part in file:
                a, b = file[part], tree[part]
                if isinstance(a, list):
                    a, b = {"list": _flat(a)}, {"list": _flat(b)}
                elif part == "keywords":
                    a, b = {"dict": a}, {"dict": b}
                self.compare(a, b)

    def _note(self, path, file, tree):
        self._say(
            path, f"{self._source} has {render(file)}, {self._thing} has {render(tree)}"
        )

    def _say(self, path, text):
        self.differences.append(f"{path}: {text}" if path else text)


def combine(a: Spec, b: Spec) -> Spec:
    """A description with the leaves of one where the other has `None`."""
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, dict) and isinstance(b, dict):
        parts = {k: combine(a[k], b[k]) for k in a if k in b}
        return {**b, **a, **parts}
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [combine(x, y) for x, y in zip(a, b, strict=True)]
    return a


def render(spec: Spec) -> str:
    """A description in a few words."""
    if not isinstance(spec, dict):
        return repr(spec)
    kind = _kind(spec)
    match kind:
        case "array":
            return f"{spec.get('dtype') or 'key'}{spec['shape']}"
        case "function" | "type" | "object" | "node":
            return _short(spec[kind])
        case "partial":
            parts = [render(arg) for arg in spec["args"]]
            parts += [f"{k}={render(v)}" for k, v in spec["keywords"].items()]
            return f"{render(spec['partial'])}({', '.join(parts)})"
        case "method":
            return f"{render(spec['self'])}.{spec['method']}"
        case "tuple" | "list" | "set" | "frozenset":
            inner = ", ".join(map(render, spec[kind][:8]))
            return f"{kind}({inner}{', ...' if len(spec[kind]) > 8 else ''})"
        case "dict":
            items = ", ".join(f"{k}: {render(v)}" for k, v in spec["dict"].items())
            return (
                f"{{{items}}}" if len(items) < 200 else f"a dict of {len(spec['dict'])}"
            )
        case "class" | "distribution" | "constraint" | "transform":
            fields = {**spec["fields"], **spec.get("settings", {})}
            plain = {k: v for k, v in fields.items() if not isinstance(v, dict)}
            inner = ", ".join(f"{k}={render(v)}" for k, v in plain.items())
            return f"{_short(spec[kind])}({inner if len(inner) < 200 else '...'})"
    return str(next(iter(spec.values())))


_GAUSSIAN = "jaxprob.bnn.Gaussian"
_UNCONSTRAINED = "jaxprob.bnn.Unconstrained"
_ORDER = ("array", "class", "partial", "method", "function", "type", "object", "node")


def _is(spec, name):
    return isinstance(spec, dict) and spec.get("class") == name


def _constrained(spec):
    """Array that a leaf in unconstrained coordinates stands for; `None` without it."""
    inner = spec["fields"]["coordinates"]
    if _is(inner, _GAUSSIAN):
        inner = inner["fields"]["mean"]
    if inner is None:
        return None
    return {**inner, "shape": list(spec["fields"]["shape"]["tuple"])}


def _kind(spec):
    for kind in _ORDER:
        if kind in spec:
            return kind
    return next(iter(spec))


def _same_constant(a, b):
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return a == b and isinstance(a, str) == isinstance(b, str)


def _are_bools(a, b):
    return isinstance(a, bool) and isinstance(b, bool)


def _same_node(a, b):
    return same_user_name(a["node"], b["node"]) and a["code"] == b["code"]


def _flat(items):
    """Pairs as a list of keys and values."""
    out: list[Any] = []
    for item in items:
        out += item if isinstance(item, list) else [item]
    return out


def _python(same):
    return PYTHON if same else "another"


def _short(name):
    return name.rpartition(":")[2].rpartition(".")[2]


def _join(path, name):
    return f"{path}.{name}" if path else str(name)
