"""The pages of packages and names, as Markdown for MyST."""

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

from .names import PublicName, public_names
from .signatures import signature_of

TITLES = {
    "jaxprob": "learners, `fit`, saving",
    "jaxprob.bnn": "Bayesian neural networks",
    "jaxprob.diffusion": "diffusion and flow matching",
    "jaxprob.diffusion.nn": "networks for denoisers",
    "jaxprob.lightning": "PyTorch Lightning",
    "jaxprob.estimators": "scikit-learn's interface",
    "jaxprob.metrics": "scores, calibration, distances",
    "jaxprob.recalibrate": "conformal and scaled",
    "jaxprob.plot": "pictures",
    "jaxprob.report": "HTML pages about a result",
    "jaxprob.export": "compiled programs, folders for others",
    "jaxprob.testing": "problems with known answers",
    "jaxprob.tree": "parts of a model by path",
    "jaxprob.datasets": "data as arrays",
    "jaxprob.cli": "the command",
}
SHOWN = ("__call__",)
"""Methods with underscores that are called by users."""


def prepared(text: str) -> str:
    """Return a docstring as MyST reads it: bare addresses become links."""
    return re.sub(
        r"(?<![<(\[\"`])(https?://[^\s<>)\]`]*[^\s<>)\]`.,;:])", r"<\1>", text
    )


def in_cell(text: str) -> str:
    """Return a text for a cell of a table, where a bar would end it."""
    return text.replace("|", r"\|")


def package_page(package: str) -> str:
    """Return the page of a package: its docstring and a table of its names."""
    module = importlib.import_module(package)
    names = public_names(package)
    rows = [f"| [`{n.name}`]({n.stem}.md) | {in_cell(n.summary)} |" for n in names]
    return "\n".join(
        [
            f"# `{package}`",
            "",
            f"```{{py:module}} {package}\n```",
            "",
            prepared(inspect.getdoc(module) or ""),
            "",
            "## Names",
            "",
            "| name | |",
            "|---|---|",
            *rows,
            "",
            "```{toctree}",
            ":hidden:",
            "",
            *(item.stem for item in names),
            "```",
            "",
        ]
    )


def name_page(item: PublicName) -> str:
    """Return the page of a name: signature, docstring, methods."""
    kind, head = kind_of(item.value), item.name
    if kind != "data":
        head += signature_of(item.value)
    methods = members(item.value) if kind == "class" else ()
    body = [
        prepared(item.docstring),
        *(directive("py:" + what, text, doc, 4) for what, text, doc in methods),
    ]
    return "\n".join(
        [
            f"# {item.name}",
            "",
            f"```{{py:currentmodule}} {item.package}\n```",
            "",
            directive(f"py:{kind}", head, "\n\n".join(body), 6),
            "",
        ]
    )


def kind_of(value: object) -> str:
    """Return Sphinx's word for a value; an alias of types is `data`."""
    if inspect.isclass(value):
        return "class"
    return "function" if inspect.isroutine(value) else "data"


def directive(name: str, argument: str, body: str, colons: int) -> str:
    """Return a block of MyST; one around another has more colons."""
    fence = ":" * colons
    return f"{fence}{{{name}}} {argument}\n\n{body}\n\n{fence}"


def members(cls: type) -> Iterator[tuple[str, str, str]]:
    """Yield kind, signature and docstring of each public method and property.

    Those of other libraries (a module's of Equinox, a distribution's of numpyro) are
    documented there.
    """
    for name, defined in inherited(cls).items():
        text = documentation(cls, name)
        if isinstance(defined, property):
            if text:
                yield "property", name, text
            continue
        static = isinstance(defined, staticmethod)
        method: Any = (
            defined.__func__
            if isinstance(defined, classmethod | staticmethod)
            else defined
        )
        if not inspect.isfunction(inspect.unwrap(method)):
            continue
        kind = {staticmethod: "staticmethod", classmethod: "classmethod"}
        head = name + signature_of(method, bound=not static)
        yield kind.get(type(defined), "method"), head, text


def inherited(cls: type) -> dict[str, object]:
    """Return the public members that classes of ours define, those of bases last."""
    found: dict[str, object] = {}
    for base in cls.__mro__:
        if not base.__module__.startswith("jaxprob"):
            continue
        for name, value in vars(base).items():
            if not name.startswith("_") or (
                name in SHOWN and inspect.isfunction(value)
            ):
                found.setdefault(name, value)
    return found


def documentation(cls: type, name: str) -> str:
    """Return the docstring of a member, or that of the method which it overrides."""
    for base in cls.__mro__:
        value = vars(base).get(name)
        text = inspect.getdoc(value) if value is not None else None
        if text and base.__module__.startswith("jaxprob"):
            return prepared(text)
    return ""
