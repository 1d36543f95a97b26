"""Saving and loading of posteriors."""

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..._io.describe import Spec, describe
from ..._io.differences import Inside, combine, render
from ..._io.errors import DamagedFileError, FileMismatchError
from ..._io.rebuild import MISSING, children, needs, needs_message
from ..._io.registry import find_class
from ..._io.save import DescribedFile, read_described, write_described
from ..._types import Model
from .posterior import AbstractPosterior

WHOLE_FIELDS = ("model", "tree")
"""Fields of posteriors that contain a model."""

HALF_FIELDS = ("params", "draws", "rest")
"""Fields with some leaves of a model, and `None` for those in another field."""

MODEL_FIELDS = (*WHOLE_FIELDS, *HALF_FIELDS)

FLAG_FIELDS = ("chosen",)
"""Fields with tuples of trees of bools that have the structure of the model."""


def save_posterior(path: str | Path, posterior: AbstractPosterior) -> None:
    """Write a posterior with its settings to one safetensors file.

    ```python
    save_posterior("posterior.safetensors", method.posterior(state))
    posterior = load_posterior("posterior.safetensors", model=make_model(key))
    ```

    It is `jaxprob.save` for posteriors, whose model may be of the user's own class;
    see there for the contents of the file.

    **Arguments:**

    - `path`: the file, replaced whole or not at all.
    - `posterior`: of any method here.

    **Raises:** `TypeError` naming the part that cannot be saved, such as a prior that
    is a function.
    """
    write_described(path, *described(posterior))


def load_posterior(
    path: str | Path, *, model: Model | None = None, using: Iterable[Any] = ()
) -> AbstractPosterior:
    """Return the posterior that `save_posterior` wrote.

    **Arguments:**

    - `path`: the file.
    - `model`: built with the settings of the saved one. Its weights and its inference
        mode do not matter; every setting is compared. A model of classes and functions
        of jaxprob, Equinox and JAX is rebuilt without it.
    - `using`: your classes and functions, instead of a `model`.

    **Raises:** `jaxprob.DamagedFileError` (a `ValueError`) when the file is damaged or
    of another kind; `jaxprob.FileMismatchError` (a `ValueError`) naming each setting,
    function, shape or dtype that differs from the model's.
    """
    return rebuilt(read_described(path), model=model, using=using)


def described(posterior: AbstractPosterior) -> tuple[Spec, dict[str, Any]]:
    """Return the description of a posterior, and its arrays.

    **Raises:** as `save_posterior`.
    """
    spec, arrays = describe(posterior)
    _check_outside_of_models(spec, "posterior")
    return spec, arrays


def rebuilt(
    file: DescribedFile, *, model: Model | None = None, using: Iterable[Any] = ()
) -> AbstractPosterior:
    """Return the posterior of a description.

    **Arguments and raises:** as `load_posterior`, for a file that was read.
    """
    _check_kind(file)
    if model is not None:
        expected, _ = describe(model)
        for spec, partial in _models(file.spec):
            inside: Inside = "part" if partial else "whole"
            file.compare(spec, expected, inside_posterior=inside)
    field_template = None if model is None else functools.partial(_like, model)
    try:
        posterior = file.rebuild(using=using, field_template=field_template)
    except FileMismatchError as error:
        missing = needs(file.spec, using)
        if model is not None or not missing:
            raise
        message = needs_message(missing).replace(
            "load(path, template=model)", "load_posterior(path, model=model)"
        )
        raise FileMismatchError(f"{file.path}: {message}", error.differences) from None
    return posterior


def _like(model: Model, cls: type, name: str, spec: Spec) -> Any:
    """Example of a posterior's field, where it is a model or flags of one."""
    if issubclass(cls, AbstractPosterior) and name in FLAG_FIELDS:
        return (model,) * len(spec["tuple"])
    if issubclass(cls, AbstractPosterior) and name in MODEL_FIELDS:
        return model
    return MISSING


def _check_kind(file: DescribedFile):
    cls = _posterior_class(file.spec)
    if cls is None:
        raise DamagedFileError(
            f"{file.path} contains {render(file.spec)}, which is not a posterior of "
            "jaxprob.bnn: read it with jaxprob.load"
        )


def _posterior_class(node: Spec) -> type | None:
    """Class of a described posterior of jaxprob; `None` for anything else."""
    if not isinstance(node, dict) or "class" not in node:
        return None
    try:
        cls = find_class(node["class"])
    except KeyError:
        return None
    return cls if issubclass(cls, AbstractPosterior) else None


def _model_fields(node):
    if _posterior_class(node) is None:
        return []
    return [name for name in MODEL_FIELDS if name in node["fields"]]


def _models(spec: Spec, partial: bool = False) -> Iterator[tuple[Spec, bool]]:
    """Yield the described models of a posterior, and whether leaves may be missing."""
    if not isinstance(spec, dict):
        return
    inner = children(spec)
    if _posterior_class(spec) is not None:
        fields = spec["fields"]
        for name in WHOLE_FIELDS:
            if name in fields:
                yield fields[name], partial
        halves = [fields[name] for name in HALF_FIELDS if name in fields]
        if halves:
            yield functools.reduce(combine, halves), partial
        yield from _models(
            fields.get("parts"), True
        )  # leaves of the model in another field
        outside = (*MODEL_FIELDS, *FLAG_FIELDS, "parts")
        inner = (v for k, v in fields.items() if k not in outside)
    for child in inner:
        yield from _models(child, partial)


def _check_outside_of_models(spec: Spec, path: str):
    """Reject functions outside of the models: they cannot be rebuilt from a file."""
    if not isinstance(spec, dict):
        return
    if "code" in spec:
        raise TypeError(
            f"{path} is {render(spec)}, which cannot be saved. Posteriors, priors and "
            "likelihoods of jaxprob.bnn, numpyro's distributions, arrays and numbers "
            "can: write a prior that is a function as a PriorByPath, and set a "
            "likelihood that is a function to None by eqx.tree_at first."
        )
    ours = _model_fields(spec) if _posterior_class(spec) is not None else []
    flags = FLAG_FIELDS if _posterior_class(spec) is not None else ()
    for name, child in spec.get("fields", {}).items():
        if name not in (*ours, *flags):
            _check_outside_of_models(child, f"{path}.{name}")
    for kind in ("tuple", "list", "args"):
        for i, child in enumerate(spec.get(kind, ())):
            _check_outside_of_models(child, f"{path}.{i}")
    for kind in ("dict", "keywords"):
        for name, child in spec.get(kind, {}).items():
            _check_outside_of_models(child, f"{path}.{name}")
    for kind in ("partial", "self"):
        _check_outside_of_models(spec.get(kind), path)
