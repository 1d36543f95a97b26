"""Description of a module in its checkpoint, from which it can be built again.

A state dict holds, beside its other tensors, the bytes of a text in JSON: the module's
arguments with all their settings, and the versions that wrote it. Loading compares the
text with the module, and a module of classes of jaxprob is built from it.

    json.loads(bytes(torch.load(path)["state_dict"]["run.description"].numpy()))
"""

import inspect
import json
import math
import warnings
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import numpy as np
import optax
import torch

from ..._io.arrays import as_numpy
from ..._io.describe import Spec, describe
from ..._io.differences import Comparison
from ..._io.errors import DamagedFileError, FileMismatchError
from ..._io.rebuild import Rebuilder
from ..._io.save import versions, warn_of_code
from ...datasets import Standardizer
from .._errors import CheckpointCorruptError, CheckpointMismatchError
from .torch_arrays import dtype_name, to_numpy, to_torch

TEXT = "run.description"
"""Name of the text in a state dict."""

_CONSTANT = "run.setting."
_OPTIMIZER = "optax.GradientTransformation"
_FORMAT = 1
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
SCALERS = ("x_scaler", "y_scaler")  # fields of a data module
_COMPARED = ("learner", "likelihood", "shape", "conditional")


class Description:
    """Arguments of a module, described once, and the scalers of its data.

    **Arguments:**

    - `learner`, `model`: of the module. Of the model every setting counts; of the
        learner's functions only the names, and nothing of its optimiser, which a run
        may change.
    - `settings`: other arguments that belong in a checkpoint.
    """

    def __init__(self, learner: Any, model: Any, **settings: Any):
        spec, _ = describe({"model": model})  # whose arrays are in the state
        self.model: Spec = spec["dict"]["model"]
        self.arguments: dict[str, Spec] = {}
        self._constants: dict[str, np.ndarray] = {}
        self.add(learner=learner, **settings)

    def add(self, **settings: Any) -> None:
        """Describe further arguments."""
        spec, arrays = describe(settings, code=False)
        self.arguments |= {k: _without(v) for k, v in spec["dict"].items()}
        kept = set(_array_names(self.arguments))
        self._constants |= {k: as_numpy(v) for k, v in arrays.items() if k in kept}

    def tensors(self, scalers: Mapping[str, Standardizer]) -> dict[str, Any]:
        """Return the text and the constants, to be added to a state dict."""
        spec, arrays = describe(dict(scalers))
        text = {
            "format": _FORMAT,
            "versions": versions(),
            "model": self.model,
            "arguments": self.arguments,
            "scalers": spec["dict"],
        }
        constants = {**self._constants, **{k: as_numpy(v) for k, v in arrays.items()}}
        return {
            TEXT: torch.frombuffer(
                bytearray(json.dumps(text).encode()), dtype=torch.uint8
            ),
            **{f"{_CONSTANT}{name}": to_torch(a) for name, a in constants.items()},
        }

    def compare(self, saved: "Saved", strict: bool) -> None:
        """Compare the module with the description in a checkpoint.

        **Raises:** `CheckpointMismatchError` naming each setting of the model that
        differs, and a changed average (EMA). Other settings of the learner that differ
        are a warning, because training may continue with other settings.
        """
        python = saved.versions.get("python", "")
        model = _comparison(python)
        model.compare(saved.model, self.model)
        lines = model.differences
        training = _comparison(python)
        for name in _COMPARED:
            if name in saved.arguments and name in self.arguments:
                training.compare(saved.arguments[name], self.arguments[name], name)
        average = [line for line in training.differences if "ema" in _place(line)]
        others = [line for line in training.differences if line not in average]
        if (lines or average) and strict:
            raise CheckpointMismatchError(
                f"the checkpoint is of another model: {_listing(lines + average)}. "
                "Build the module with the settings that the checkpoint was written "
                "with"
            )
        if not strict:
            others = lines + average + others
        if others:
            warnings.warn(
                f"the checkpoint was written with other settings: {_listing(others)}",
                stacklevel=3,
            )
        warn_of_code("the checkpoint", model, stacklevel=4)


class Saved:
    """Description that was read from a state dict.

    **Raises:** `CheckpointCorruptError` where it cannot be read.
    """

    def __init__(self, state_dict: Mapping[str, Any]):
        try:
            text = json.loads(bytes(state_dict[TEXT].cpu().numpy()))
            self.model: Spec = text["model"]
            self.versions: dict[str, str] = dict(text["versions"])
            self.arguments: dict[str, Spec] = dict(text["arguments"])
            self._scalers: dict[str, Spec] = dict(text["scalers"])
            newer = text["format"] > _FORMAT
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            RecursionError,
        ) as error:
            raise CheckpointCorruptError(
                f"the checkpoint's {TEXT} cannot be read: {error!r}"
            ) from error
        if newer:
            raise CheckpointCorruptError(
                f"the checkpoint's description has format {text['format']}, and this "
                f"jaxprob reads {_FORMAT}: install a newer jaxprob"
            )
        self.constants = {
            name.removeprefix(_CONSTANT): value.numpy()
            for name, value in state_dict.items()
            if name.startswith(_CONSTANT) and isinstance(value, torch.Tensor)
        }
        self.state = state_dict

    def num_bytes(self) -> int:
        """Return the size of all tensors."""
        tensors = (t for t in self.state.values() if isinstance(t, torch.Tensor))
        return sum(t.numel() * t.element_size() for t in tensors)

    def scalers(self) -> dict[str, Standardizer]:
        """Return the scalers of the data that the module was trained on."""
        found = {k: self._build(v, k) for k, v in self._scalers.items() if k in SCALERS}
        return {k: v for k, v in found.items() if isinstance(v, Standardizer)}

    def rebuild(self, name: str, argument: str) -> Any:
        """Build an argument of the module; `"model"` has the weights of the state.

        The optimiser is not in a checkpoint, nor are a user's functions. In the learner
        stand-ins replace them, which raise an error when they are used.

        **Arguments:**

        - `name`: of the argument.
        - `argument`: its name in the constructor of the module's class.

        **Raises:** `CheckpointMismatchError` for a model of a user's classes.
        """
        if name == "model":
            return self._build(self.model, argument)
        return self._build(self.arguments[name], argument, _stand_in)

    def _build(self, spec, argument, stand_in=None):
        build = Rebuilder(_Arrays(spec, self), (), None, stand_in)
        try:
            return build(spec)
        except FileMismatchError as error:
            raise CheckpointMismatchError(
                f"{argument} cannot be built from the checkpoint alone: {error}. Write "
                f"load_from_checkpoint(path, {argument}=...)"
            ) from error
        except DamagedFileError as error:
            raise CheckpointCorruptError(str(error)) from error


class _Arrays(dict[str, np.ndarray]):
    """Arrays of a description: constants, weights of the state, or zeros."""

    def __init__(self, spec: Spec, saved: Saved):
        super().__init__()
        room = 4 * saved.num_bytes() + 2**20
        for node in _array_nodes(spec):
            name, shape = node["array"], tuple(node["shape"])
            tensor = saved.constants.get(name)
            if tensor is None:
                tensor = _weights(saved.state.get(f"state.{name}"), node)
            if tensor is None:
                dtype = np.dtype(node.get("dtype", "uint32"))
                if "key" in node:
                    data = jax.random.key_data(jax.random.key(0, impl=node["key"]))
                    shape, dtype = (*shape, *data.shape), data.dtype
                room -= math.prod(shape) * dtype.itemsize
                if room < 0:
                    raise CheckpointCorruptError(
                        f"the checkpoint's description claims that {name} has shape "
                        f"{list(shape)}, more than its tensors hold"
                    )
                tensor = np.zeros(shape, dtype)
            self[name] = tensor


def _weights(tensor, node):
    """Return a tensor of the state as an array, if it has that dtype and shape."""
    if not isinstance(tensor, torch.Tensor) or dtype_name(tensor) != node.get("dtype"):
        return None
    return to_numpy(tensor) if list(tensor.shape) == node["shape"] else None


def without_description(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a state dict that are no part of the description."""
    return {
        name: value
        for name, value in state_dict.items()
        if name != TEXT and not name.startswith(_CONSTANT)
    }


def rebuilt_arguments(
    cls: type, checkpoint: Mapping[str, Any], names: Mapping[str, str], given: Any
) -> dict[str, Any]:
    """Build the arguments of a module from a checkpoint's description.

    A class with hyper-parameters in the checkpoint builds itself from those, and gets
    none.

    **Arguments:**

    - `cls`: the class of the module.
    - `checkpoint`: as it was read.
    - `names`: names of some arguments in the constructor of the class.
    - `given`: names of the arguments that the caller gives.

    **Raises:** `CheckpointMismatchError` where an argument holds code of the user's.
    """
    state_dict = checkpoint.get("state_dict", {})
    if checkpoint.get("hyper_parameters") or TEXT not in state_dict:
        return {}
    taken = _parameters(cls)
    saved = Saved(state_dict)
    out = {}
    for name in ("model", *saved.arguments):
        argument = names.get(name, name)
        if argument in taken and argument not in given:
            out[argument] = saved.rebuild(name, argument)
    return out


def _parameters(cls):
    """Return the names that `cls(...)` takes, also through `**kwargs`."""
    out: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        named = {p.name for p in parameters if p.kind not in variadic}
        out |= named
        passes_on = any(p.kind == variadic[1] for p in parameters)
        ours = base.__module__.startswith("jaxprob.")
        if not passes_on or not (ours or named == {"self"}):
            break
    return out - {"self"}


def _without(spec: Spec) -> Spec:
    """Return a description without its optimisers."""
    if isinstance(spec, list):
        return [_without(item) for item in spec]
    if not isinstance(spec, dict):
        return spec
    if str(spec.get("class", "")).startswith(_OPTIMIZER):
        return {"object": "an optax transformation", "code": ""}
    return {k: _without(v) for k, v in spec.items()}


def _stand_in(spec: Spec) -> Any:
    name = spec.get("object") or spec.get("function")

    def missing(*args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(
            f"the module was loaded without {name}, which no checkpoint can hold: give "
            "load_from_checkpoint(path, learner=...) to train or to evaluate"
        )

    if spec.get("object") == "an optax transformation":
        return optax.GradientTransformation(lambda params: optax.EmptyState(), missing)
    return missing


def _array_nodes(spec: Spec):
    if isinstance(spec, list):
        for item in spec:
            yield from _array_nodes(item)
    elif isinstance(spec, dict):
        if isinstance(spec.get("array"), str) and "shape" in spec:
            yield spec
        for value in spec.values():
            yield from _array_nodes(value)


def _array_names(spec: Spec) -> list[str]:
    return [node["array"] for node in _array_nodes(spec)]


def _comparison(python):
    return Comparison(
        "the module", source="the checkpoint", python=python, dtypes=False
    )


def _place(line):
    return line.partition(":")[0].split(".")


def _listing(lines):
    return "; ".join(lines[:10]) + ("; ..." if len(lines) > 10 else "")
