"""Every package lists its public names, and `help` shows them."""

import ast
import importlib
import inspect
import pydoc

import equinox as eqx
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob.diffusion import nn

from .source import PACKAGE, tree_of
from .test_names import PACKAGES


def contents(package: str) -> set[str]:
    """Return the names that the `__init__` of a package imports, from its source."""
    below = package.split(".")[1:]
    name = "/".join([*below, "__init__.py"]) if below else "_names.py"
    return {
        alias.asname or alias.name
        for node in tree_of(name).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if not (alias.asname or alias.name).startswith("_")
    }


def test_no_package_is_left_out():
    public = {
        "jaxprob." + ".".join(folder.relative_to(PACKAGE).parts)
        for folder in (path.parent for path in PACKAGE.rglob("__init__.py"))
        if folder != PACKAGE
        and not any(part.startswith("_") for part in folder.relative_to(PACKAGE).parts)
    }
    assert public | {"jaxprob"} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_states_the_names_of_its_table_of_contents(package):
    module = importlib.import_module(package)
    stated = list(module.__all__)
    assert len(stated) == len(set(stated))
    packages = {"bnn", "diffusion", "metrics", "recalibrate", "tree"}
    assert set(stated) == contents(package) | (packages if module is jaxprob else set())
    assert set(stated) <= set(dir(module))


def test_a_star_import_brings_the_names_of_the_core():
    scope: dict = {}
    exec("from jaxprob import *", scope)
    assert scope["fit"] is jaxprob.fit
    assert scope["bnn"] is bnn
    assert "importlib" not in scope


@pytest.mark.slow
@pytest.mark.parametrize("package", ["jaxprob", "jaxprob.recalibrate", "jaxprob.nn"])
def test_help_lists_the_public_names(package):
    package = package.replace("jaxprob.nn", "jaxprob.diffusion.nn")
    module = importlib.import_module(package)
    text = pydoc.render_doc(module, renderer=pydoc.plaintext)
    assert not [name for name in module.__all__ if name not in text]


def layers():
    """Yield each public class that is called on an input."""
    for package in (nn, bnn):
        for name in package.__all__:
            value = getattr(package, name)
            if not inspect.isclass(value) or not issubclass(value, eqx.Module):
                continue
            call = vars(value).get("__call__")
            if call and (package is nn or "x" in inspect.signature(call).parameters):
                yield name, value


LAYERS = dict(layers())


def test_layers_are_found():
    assert {"UNet", "ResidualBlock", "LearnedNoise"} <= set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_the_call_of_a_layer_is_documented(name):
    call = vars(LAYERS[name])["__call__"]
    assert call.__doc__
    signature = inspect.signature(call)
    _, *parameters = signature.parameters.values()
    assert not [
        p.name for p in parameters if p.annotation is p.empty and p.name != "dtype"
    ]
    assert signature.return_annotation is not signature.empty


# It takes a tree, and returns what its kinds of conditions return.
@pytest.mark.parametrize(
    "name", sorted(set(nn.__all__) & set(LAYERS) - {"ConditionReader"})
)
def test_the_call_of_a_network_states_its_shapes(name):
    signature = inspect.signature(vars(LAYERS[name])["__call__"])
    _, first, *_ = signature.parameters.values()
    for annotation in (first.annotation, signature.return_annotation):
        assert annotation.dim_str is not None
