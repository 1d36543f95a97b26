"""Public names of all packages, and the page of each."""

import ast
import collections
import dataclasses
import functools
import importlib
import inspect
import re
from typing import Any

PACKAGES = (
    *("jaxprob", "jaxprob.bnn", "jaxprob.diffusion", "jaxprob.diffusion.nn"),
    *("jaxprob.lightning", "jaxprob.estimators", "jaxprob.metrics"),
    *("jaxprob.recalibrate", "jaxprob.plot", "jaxprob.report", "jaxprob.export"),
    *("jaxprob.testing", "jaxprob.tree", "jaxprob.datasets", "jaxprob.cli"),
)
"""In the order in which a reader meets them."""


@dataclasses.dataclass(frozen=True)
class PublicName:
    """A name of a package and what it stands for."""

    package: str
    name: str
    value: Any
    stem: str

    @property
    def full(self) -> str:
        return f"{self.package}.{self.name}"

    @property
    def page(self) -> str:
        """The document of its page, a path without suffix."""
        return f"reference/{self.package}/{self.stem}"

    @property
    def docstring(self) -> str:
        if inspect.isclass(self.value) or inspect.isroutine(self.value):
            return inspect.getdoc(self.value) or ""
        return docstring_of_alias(self.package, self.name)

    @property
    def summary(self) -> str:
        """The first sentence, which is the first line."""
        return self.docstring.partition("\n\n")[0].replace("\n", " ")


def public_names(package: str) -> list[PublicName]:
    """Return the names of `__all__` that are no packages."""
    module = importlib.import_module(package)
    values = {name: getattr(module, name) for name in module.__all__}
    folded = collections.Counter(name.lower() for name in values)
    return [
        PublicName(package, name, value, name + _suffix(name, folded))
        for name, value in values.items()
        if not inspect.ismodule(value)
    ]


def _suffix(name: str, folded: collections.Counter) -> str:
    """Keep `unconstrained` apart from `Unconstrained` where files ignore case."""
    return "-function" if name.islower() and folded[name] > 1 else ""


def docstring_of_alias(package: str, name: str) -> str:
    """Return the string below `name: TypeAlias = ...` in the file that defines it."""
    module = importlib.import_module(package)
    table = ast.parse(inspect.getsource(module))
    for node in table.body:
        if isinstance(node, ast.ImportFrom) and name in {a.name for a in node.names}:
            home = importlib.import_module(
                "." * node.level + (node.module or ""), package
            )
            text = inspect.getsource(home)
            found = re.search(rf'^{name}: .*\n"""(.*?)"""', text, re.MULTILINE)
            return found[1] if found else ""
    return ""


@functools.cache
def pages() -> dict[str, dict[str, str]]:
    """Return the documents of each name, by package."""
    found: dict[str, dict[str, str]] = {}
    for package in PACKAGES:
        for item in public_names(package):
            found.setdefault(item.name, {})[package] = item.page
        found[package] = {package: f"reference/{package}/index"}
    return found


def page_of_literal(text: str, docname: str) -> str | None:
    """Return the document of the public name that a literal such as `bnn.MAP` is.

    A word that is no class and has no dot is taken for a name on the pages of its own
    package alone: `sample` is a method of posteriors too.
    """
    name = text.removeprefix("jaxprob.") if text.startswith("jaxprob.") else text
    name = name.split("(")[0]
    if text in PACKAGES:
        return pages()[text][text]
    qualifier, _, last = name.rpartition(".")
    found = pages().get(last, {})
    if qualifier:
        return found.get(f"jaxprob.{qualifier}")
    if text.startswith("jaxprob."):
        return found.get("jaxprob")
    own = docname.split("/")[1] if docname.startswith("reference/") else None
    if own in found:
        return found[own]
    distinct = re.search("[A-Z_]", last) or text.endswith(")")
    return next(iter(found.values())) if len(found) == 1 and distinct else None
