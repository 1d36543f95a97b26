"""The classes and functions that a file may name.

A file is data: it can name what is listed here and nothing else, and nothing is
imported because a file asks for it. Classes are those of our packages,
`equinox.nn`, diffrax's solvers and optax's states; they are filled field by field,
without `__init__`. Functions are pure functions of arrays.
"""

import dataclasses
import functools
import importlib
import sys
import types
from typing import Any

import equinox as eqx
import jax
import optax

PACKAGES = (
    "jaxprob.bnn",
    "jaxprob.datasets",
    "jaxprob.diffusion.nn",
    "jaxprob.diffusion",
    "jaxprob.estimators",
    "jaxprob.metrics",
    "jaxprob.recalibrate",
    "jaxprob.testing",
    "jaxprob",
)
"""Our public packages, a subpackage before what it stands in."""

ATTRIBUTES = {
    "jaxprob.estimators.BNNClassifier",
    "jaxprob.estimators.BNNRegressor",
    "jaxprob.estimators.Fitted",
}
"""Classes whose instances are their attributes; all others are their fields."""

_FUNCTIONS = {
    "jax.nn": """celu elu gelu glu hard_sigmoid hard_silu hard_swish hard_tanh identity
        leaky_relu log_sigmoid log_softmax logsumexp mish relu relu6 selu sigmoid silu
        soft_sign softmax softplus sparse_plus sparse_sigmoid squareplus standardize
        swish""",
    "jax.numpy": """abs absolute acos acosh add all amax amin angle any arccos arccosh
        arcsin arcsinh arctan arctan2 arctanh argmax argmin around asin asinh astype
        atan atan2 atanh atleast_1d atleast_2d average broadcast_to cbrt ceil clip
        concatenate conj conjugate cos cosh cross cumprod cumsum deg2rad degrees diag
        diagonal divide dot exp exp2 expand_dims expm1 fabs flip floor fmax fmin
        heaviside hstack hypot i0 imag inner interp isfinite kron log log10 log1p log2
        logaddexp logaddexp2 matmul matrix_transpose max maximum mean median min
        minimum mod moveaxis multiply nan_to_num negative ones_like outer pad
        permute_dims positive pow power prod ptp rad2deg radians ravel real reciprocal
        remainder reshape rint roll round sign sin sinc sinh sort sqrt square squeeze
        stack std subtract sum swapaxes take tan tanh tensordot tile trace transpose
        tril triu true_divide trunc var vdot vstack where zeros_like""",
    "jax.numpy.linalg": "norm",
    "jax.lax": """abs acos acosh add asin asinh atan atan2 atanh cbrt ceil clamp cos
        cosh digamma div erf erf_inv erfc exp exp2 expm1 floor lgamma log log1p logistic
        max min mul neg pow reciprocal rem round rsqrt sign sin sinh sqrt square
        stop_gradient sub tan tanh""",
    "jax.scipy.special": """digamma entr erf erfc erfinv expit gammaln i0 i0e i1 i1e
        log_ndtr logit ndtr ndtri xlog1py xlogy""",
    "optimistix": "max_norm rms_norm two_norm",
    "jaxprob.bnn": "call_model",
    "jaxprob.estimators": "identity silu",
}


def class_name(cls: type) -> str | None:
    """Name of a class in files; `None` if files cannot hold it."""
    name = cls.__qualname__
    package = _package(cls.__module__)
    if package is not None:
        name = f"{package}.{name}"
    elif cls.__module__.startswith("equinox.nn."):
        name = f"equinox.nn.{name}"
    elif cls in _EQUINOX.values():
        name = f"equinox.{name}"
    elif cls.__module__ in _BLACKJAX:
        name = f"{cls.__module__}.{name}"
    elif cls.__module__.partition(".")[0] in ("diffrax", "optax"):
        name = f"{cls.__module__.partition('.')[0]}.{name}"
    else:
        return None
    try:
        return name if find_class(name) is cls else None
    except KeyError:
        return None


@functools.cache
def find_class(name: str) -> type:
    """The class of that name.

    **Raises:** `KeyError` where no class of that name may stand in a file.
    """
    package, _, simple = name.rpartition(".")
    cls = None
    if package in PACKAGES:
        cls = _ours(package, simple, type)
    elif package == "equinox.nn":
        cls = _STATEFUL.get(simple) or getattr(eqx.nn, simple, None)
    elif package == "equinox":
        cls = _EQUINOX.get(simple)
    elif package in _BLACKJAX:
        cls = getattr(importlib.import_module(package), simple, None)
        cls = cls if is_named_tuple(cls) else None
    elif package == "optax":
        cls = getattr(optax, simple, None) or getattr(optax.contrib, simple, None)
        cls = cls if is_named_tuple(cls) else None
    elif package == "diffrax":
        cls = getattr(importlib.import_module("diffrax"), simple, None)
    if not isinstance(cls, type) or cls.__name__ != simple:
        raise KeyError(name)
    kinds = (eqx.Module, eqx.nn.State)
    fields = dataclasses.is_dataclass(cls) or is_named_tuple(cls)
    if issubclass(cls, kinds) or fields or name in ATTRIBUTES:
        return cls
    raise KeyError(name)


def function_name(function: Any) -> str | None:
    """Name of a public function in files; `None` for all others."""
    found = _by_identity().get(id(function))
    return None if found is None else found[0]


@functools.cache
def find_function(name: str) -> Any:
    """The function of that name.

    **Raises:** `KeyError` where no function of that name may stand in a file.
    """
    if name.startswith("equinox.nn."):
        return _layer_functions()[name]
    package, _, simple = name.rpartition(".")
    if simple not in _FUNCTIONS.get(package, "").split():
        raise KeyError(name)
    if package in PACKAGES:
        function = _ours(package, simple, types.FunctionType)
    else:
        function = getattr(importlib.import_module(package), simple, None)
    if function is None:
        raise KeyError(name)
    return function


def is_named_tuple(cls: Any) -> bool:
    """Return whether a class is a named tuple."""
    return isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_fields")


# What equinox leaves in a layer whose state was taken out.
_Sentinel = type(eqx.nn.delete_init_state(eqx.nn.StateIndex(0)).init)
_EQUINOX = {"Partial": eqx.Partial}
_BLACKJAX = ("blackjax.adaptation.mass_matrix", "blackjax.adaptation.step_size")
_STATEFUL = {_Sentinel.__name__: _Sentinel}


def _layer_functions():
    """Functions without a public name that Equinox's layers hold by default."""

    def layers(key):
        linear = eqx.nn.Linear(1, 1, key=key)
        return eqx.nn.MLP(1, 1, 1, 1, key=key), eqx.nn.WeightNorm(linear)

    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    mlp, norm = eqx.filter_eval_shape(layers, key)
    return {
        "equinox.nn.MLP.final_activation": mlp.final_activation,
        "equinox.nn.WeightNorm.norm": norm._norm.func,
    }


_seen: dict[str, dict[int, tuple[str, Any]]] = {}


def _by_identity():
    # Packages of ours that nobody has imported hold no function that anybody uses.
    present = [p for p in _FUNCTIONS if not p.startswith("jaxprob") or p in sys.modules]
    key = " ".join(present)
    if key not in _seen:
        names = [f"{p}.{n}" for p in present for n in _FUNCTIONS[p].split()]
        table: dict[int, tuple[str, Any]] = {}
        for name in [*names, *_layer_functions()]:
            try:
                function = find_function(name)
            except KeyError:
                continue
            table.setdefault(id(function), (name, function))
        _seen[key] = table
    return _seen[key]


def _package(module):
    for package in PACKAGES:
        if module == package or module.startswith(f"{package}."):
            return package
    return None


def _ours(package, simple, kind):
    """A class or function of a package of ours by its name, private ones too."""
    public = getattr(importlib.import_module(package), simple, None)
    if isinstance(public, kind) and _package(public.__module__) == package:
        return public
    for module in sorted(sys.modules):
        if _package(module) == package:
            found = getattr(sys.modules[module], simple, None)
            if isinstance(found, kind) and found.__module__ == module:
                return found
    return None
