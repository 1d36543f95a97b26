"""Abstract or final: behaviour is changed by wrapping, never by subclassing."""

import importlib
import inspect
import pkgutil

import equinox as eqx
import pytest

import jaxprob

# Lightning's own modules are written to be subclassed by the user.
LIGHT = [
    name
    for _, name, _ in pkgutil.walk_packages(jaxprob.__path__, "jaxprob.")
    if not name.startswith("jaxprob.lightning") and name != "jaxprob.plot"
]


def modules_of(name):
    module = importlib.import_module(name)
    return [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, eqx.Module) and cls.__module__ == name
    ]


def concrete_bases(cls):
    ours = [base for base in cls.__mro__[1:] if base.__module__.startswith("jaxprob")]
    return [base for base in ours if not base.__name__.startswith("Abstract")]


@pytest.mark.parametrize("name", LIGHT)
def test_only_abstract_classes_have_subclasses(name):
    for cls in modules_of(name):
        assert not concrete_bases(cls), f"{cls.__name__} subclasses a finished class"


def test_the_walk_would_find_a_subclass_of_a_finished_class():
    class Mine(jaxprob.GradientDescent):
        pass

    assert concrete_bases(Mine) == [jaxprob.GradientDescent]


@pytest.mark.parametrize("name", LIGHT)
def test_everything_public_has_a_docstring(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    for cls in modules_of(name):
        if not cls.__name__.startswith("_"):
            # Not `inspect.getdoc`: that inherits the base's, and a dataclass makes one.
            doc = cls.__dict__.get("__doc__") or ""
            generated = doc.startswith(f"{cls.__name__}(")
            documented = bool(doc) and not generated
            assert documented, f"{name}.{cls.__name__} has no docstring"


@pytest.mark.parametrize("name", ["jaxprob", "jaxprob.bnn", "jaxprob.diffusion"])
def test_every_public_name_says_what_it_is(name):
    package = importlib.import_module(name)
    for public in dir(package):
        value = getattr(package, public)
        if public.startswith("_") or inspect.ismodule(value):
            continue
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name}.{public} has no docstring"
