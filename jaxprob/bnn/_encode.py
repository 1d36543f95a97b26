"""A posterior as JSON and named arrays, and back, without pickle.

Our own classes go by name and fields, numpyro's distributions, their supports and their
transforms by name and parameters.
The model inside is of the user's class, which no file can hold: its leaves are written
by path, and reading takes a model to put them into.
"""

import dataclasses
from collections import OrderedDict
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._path_name import path_name
from .._safetensors import describe, restore
from .._types import Model
from ._encode_numpyro import KINDS, put_together, taken_apart
from ._posterior import AbstractPosterior
from ._random import Gaussian, is_random

MODEL_FIELDS = ("model", "tree", "params", "rest", "draws")
FLAG_FIELDS = ("chosen",)  # tuples of trees of bools like the model
Spec = dict[str, Any]


class Encoder:
    """Collects arrays by name while it describes a value."""

    def __init__(self):
        self.arrays: dict[str, np.ndarray] = {}

    def encode(self, value: Any, path: str) -> Spec:
        """What to write for a value that stands at `path`.

        **Raises:** `TypeError` naming the path of what cannot be written.
        """
        if eqx.is_array(value) or isinstance(value, np.ndarray | np.generic):
            return self._array(value, path)
        if value is None or isinstance(value, bool | int | float | str):
            return {"value": value}
        if isinstance(value, tuple | list):
            items = [self.encode(v, f"{path}.{i}") for i, v in enumerate(value)]
            return {"tuple" if isinstance(value, tuple) else "list": items}
        if isinstance(value, OrderedDict):
            pairs = [(k, self.encode(v, f"{path}.{k}")) for k, v in value.items()]
            return {"pairs": pairs}
        if isinstance(value, dict) and all(isinstance(k, str) for k in value):
            return {
                "dict": {k: self.encode(v, f"{path}.{k}") for k, v in value.items()}
            }
        numpyro = taken_apart(value)
        if numpyro is not None:
            kind, name, fields, settings = numpyro
            fields = {k: self.encode(v, f"{path}.{k}") for k, v in fields.items()}
            settings = {k: self.encode(v, f"{path}.{k}") for k, v in settings.items()}
            return {kind: name, "fields": fields, "settings": settings}
        name = type(value).__name__
        if isinstance(value, eqx.Module) and _class(name) is type(value):
            return {"class": name, "fields": self._fields(value, path)}
        raise TypeError(
            f"{path} is {value!r}, which no file can hold: only jaxprob.bnn's own "
            "posteriors, priors and likelihoods, numpyro's distributions, arrays and "
            "numbers are saved. For a prior of your own write a PriorByPath; a "
            "likelihood that is a function can be set to None by eqx.tree_at first."
        )

    def _array(self, value, path):
        weak = getattr(value, "weak_type", False) and value.ndim == 0
        if isinstance(value, np.ndarray | np.generic):
            # As JAX would take it: float64 is float32 in a process of that precision.
            value = np.asarray(value, jax.dtypes.canonicalize_dtype(value.dtype))
        bits, description = describe(value)
        self.arrays[path] = bits
        return {"array": path, **description, **({"weak": True} if weak else {})}

    def _fields(self, module, path):
        out = {}
        for field in dataclasses.fields(module):
            value, inner = getattr(module, field.name), f"{path}.{field.name}"
            if isinstance(module, AbstractPosterior) and field.name in MODEL_FIELDS:
                out[field.name] = {"model": self._leaves(value, inner)}
            elif isinstance(module, AbstractPosterior) and field.name in FLAG_FIELDS:
                out[field.name] = {"flags": [leaves(tree) for tree in value]}
            else:
                out[field.name] = self.encode(value, inner)
        return out

    def _leaves(self, tree, prefix):
        out = {}
        for name, leaf in leaves(tree).items():
            path = f"{prefix}.{name}"
            if is_random(leaf):
                mean = self._array(leaf.mean, f"{path}.mean")
                out[name] = {"mean": mean, "rho": self._array(leaf.rho, f"{path}.rho")}
            elif eqx.is_array(leaf) or isinstance(leaf, np.ndarray):
                out[name] = self._array(leaf, path)
            elif leaf is None or isinstance(leaf, bool | int | float | str):
                out[name] = {"value": leaf}
            else:
                out[name] = {"function": _function(leaf)}
        return out


class Decoder:
    """Makes values from their descriptions.

    **Arguments:**

    - `arrays`: of the file.
    - `model`: of the class that the posterior is over.
    """

    def __init__(self, arrays: dict[str, np.ndarray], model: Model):
        self.arrays = arrays
        self.model = model

    def decode(self, spec: Spec) -> Any:
        """The value of a description.

        **Raises:** `ValueError` naming the leaf that does not fit the model, or the
        class that this version does not know.
        """
        if "array" in spec:
            return self._array(spec)
        if "value" in spec:
            return spec["value"]
        if "tuple" in spec:
            return tuple(map(self.decode, spec["tuple"]))
        if "list" in spec:
            return list(map(self.decode, spec["list"]))
        if "dict" in spec:
            return {k: self.decode(v) for k, v in spec["dict"].items()}
        if "pairs" in spec:
            return OrderedDict((k, self.decode(v)) for k, v in spec["pairs"])
        for kind in KINDS:
            if kind in spec:
                fields = {k: self.decode(v) for k, v in spec["fields"].items()}
                settings = spec.get("settings", {})
                settings = {k: self.decode(v) for k, v in settings.items()}
                return put_together(kind, spec[kind], fields, settings)
        if "model" in spec:
            return self._leaves(spec["model"])
        if "flags" in spec:
            return tuple(map(self._flags, spec["flags"]))
        return self._module(spec)

    def _array(self, spec):
        name = spec["array"]
        if name not in self.arrays:
            raise ValueError(f"the file lacks the array {name}: it is damaged")
        if spec.get("weak"):
            # A number that takes on the dtype it meets, as it did before.
            return jnp.asarray(restore(self.arrays[name], spec).item())
        wide = spec.get("dtype") in ("float64", "int64", "uint64", "complex128")
        if wide and not jax.config.read("jax_enable_x64"):
            raise ValueError(
                f"{name} is {spec['dtype']}, and this process has single precision: "
                "set jax_enable_x64 first"
            )
        return restore(self.arrays[name], spec)

    def _module(self, spec):
        cls = _class(spec["class"])
        if cls is None:
            raise ValueError(f"jaxprob.bnn has no {spec['class']} in this version")
        known = [field.name for field in dataclasses.fields(cls)]
        if sorted(known) != sorted(spec["fields"]):
            raise ValueError(
                f"{spec['class']} has the fields {known} in this version, and the file "
                f"has {list(spec['fields'])}: it was written by another one"
            )
        module = object.__new__(cls)
        for name, inner in spec["fields"].items():
            object.__setattr__(module, name, self.decode(inner))
        return module

    def _flags(self, flags):
        self._check_names(flags)
        structure = jax.tree.structure(self.model, is_leaf=_is_leaf)
        return jax.tree.unflatten(structure, list(flags.values()))

    def _check_names(self, specs):
        expected = leaves(self.model)
        if list(expected) != list(specs):
            missing = [name for name in expected if name not in specs]
            extra = [name for name in specs if name not in expected]
            raise ValueError(
                f"the file's model has other leaves: it lacks {missing[:5]} and has "
                f"{extra[:5]}. Build the model with the settings of the saved one."
            )

    def _leaves(self, specs):
        self._check_names(specs)
        expected = leaves(self.model)
        flat, lead = [], None
        for name, spec in specs.items():
            leaf, extra = self._leaf(name, spec, expected[name])
            if extra is not None:
                lead = extra if lead is None else lead
                if extra != lead:
                    raise _mismatch(name, spec, expected[name])
            flat.append(leaf)
        structure = jax.tree.structure(self.model, is_leaf=_is_leaf)
        return jax.tree.unflatten(structure, flat)

    def _leaf(self, name, spec, like):
        """The leaf, and its leading axes (of draws or members) beyond the model's."""
        array = like.mean if is_random(like) else like
        if "mean" in spec:
            mean, rho = self._array(spec["mean"]), self._array(spec["rho"])
            return Gaussian(mean, rho), self._axes(name, spec["mean"], mean, array)
        if "array" in spec:
            value = self._array(spec)
            return value, self._axes(name, spec, value, array)
        if "value" in spec and spec["value"] is None:
            return None, None
        if "value" in spec:
            if name.rsplit(".", 1)[-1] == "inference" and isinstance(like, bool):
                # No setting but a mode: draws with running statistics are kept in it.
                return spec["value"], None
            same = type(like) is type(spec["value"]) and like == spec["value"]
            if not same:
                raise ValueError(
                    f"leaf {name}: the file holds {spec['value']!r}, the model "
                    f"{like!r}. Build the model with the settings of the saved one."
                )
        elif eqx.is_array(like) or _function(like) != spec["function"]:
            raise ValueError(
                f"leaf {name}: the file was written with {spec['function']}, the model "
                f"has {like!r}. Build the model with the settings of the saved one."
            )
        return like, None

    def _axes(self, name, spec, value, like):
        if not eqx.is_array(like):
            raise _mismatch(name, spec, like)
        extra = value.ndim - like.ndim
        dtype = like.dtype
        if isinstance(like, np.ndarray | np.generic):
            dtype = jax.dtypes.canonicalize_dtype(dtype)
        if extra < 0 or value.shape[extra:] != like.shape or value.dtype != dtype:
            raise _mismatch(name, spec, like)
        return value.shape[:extra]


def leaves(tree: PyTree) -> dict[str, Any]:
    """The leaves of a model by path, `None` and random leaves among them."""
    nodes = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_leaf)
    return {path_name(path): leaf for path, leaf in nodes}


def _is_leaf(node):
    return node is None or is_random(node)


def _mismatch(name, spec, like):
    found = spec.get("array", name)
    what = f"{like.dtype}{list(like.shape)}" if eqx.is_array(like) else f"{like!r}"
    return ValueError(
        f"leaf {name}: the file's {found} is {spec.get('dtype')} of another shape or "
        f"dtype than the model's, {what}. Build the model with the settings of the "
        "saved one."
    )


def _function(leaf):
    return getattr(leaf, "__qualname__", type(leaf).__qualname__)


def _class(name):
    from .. import bnn

    cls = getattr(bnn, name, None)
    return cls if isinstance(cls, type) and issubclass(cls, eqx.Module) else None
