"""The package's source as syntax trees, for the tests of the house."""

import ast
import functools
import pathlib

import jaxprob

PACKAGE = pathlib.Path(jaxprob.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}


@functools.cache
def tree_of(name: str) -> ast.Module:
    """Return the syntax tree of a file of the package."""
    return ast.parse(FILES[name].read_text())


def module_of(name: str) -> tuple[str, ...]:
    """Return the dotted path of a file below the package, `("bnn", "_joint", "kl")`."""
    parts = name.removesuffix(".py").split("/")
    return tuple(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(name: str, tree: ast.Module) -> set[tuple[str, ...]]:
    """Return the modules that a file imports: ours without `jaxprob`, others whole.

    A name that is imported from a package counts as that package's module where the
    package has one of the name.
    """
    here = module_of(name)
    package = here if name.endswith("__init__.py") else here[:-1]
    known = {module_of(other) for other in FILES}
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        if not isinstance(node, ast.ImportFrom):
            continue
        stem = tuple(node.module.split(".")) if node.module else ()
        if node.level:
            stem = package[: len(package) - (node.level - 1)] + stem
        elif stem[:1] == ("jaxprob",):
            stem = stem[1:]
        for alias in node.names:
            inner = (*stem, alias.name)
            found.add(inner if inner in known or not node.level else stem)
    return found
