"""Imports between the folders point one way.

The folders of each list stand in the order in which they may be imported: a file
imports from its own folder and from those before it. Folders of one set do not import
each other.
"""

import ast
from collections.abc import Iterator

import pytest

from .source import FILES, imports, tree_of

Row = str | frozenset[str]

CORE: tuple[Row, ...] = (
    frozenset({"_version", "_exports", "_types", "_checks"}),
    "_random",
    frozenset({"_io", "_jaxpr"}),
    frozenset({"tree", "metrics"}),
    frozenset({"_training", "recalibrate"}),
    "_engine",
    "_names",
    "datasets",
    frozenset({"bnn", "diffusion"}),
    frozenset({"lightning", "estimators", "testing", "plot", "export"}),
    "report",
    "cli",
    "__main__",
)
BNN: tuple[Row, ...] = (
    "_weights",
    "_joint",
    "_posterior",
    "_inference",
    frozenset({"_variational", "_ensembles", "_laplace", "_mcmc"}),
    "_predictive",
)
DIFFUSION: tuple[Row, ...] = (
    "_types",
    "nn",
    "_schedule",
    "_denoiser",
    "_velocity",
    "_loss",
    "_sampler",
    "_density",
    "_posterior",
    "_members",
    "_sbi",
)
LIGHTNING: tuple[Row, ...] = (
    "_errors",
    "_trainer",
    "_checkpoint",
    "_data",
    "_logging",
    "_loop",
    "_module",
)
ORDERS = {(): CORE, ("bnn",): BNN, ("diffusion",): DIFFUSION, ("lightning",): LIGHTNING}
HEAVY = {"torch", "pytorch_lightning", "lightning_fabric", "lightning", "matplotlib"}
LIGHT = ("_", "tree", "bnn", "diffusion", "metrics", "recalibrate", "testing", "export")


def floor(order: tuple[Row, ...], room: str) -> int:
    """Return the place of a folder in an order."""
    for index, row in enumerate(order):
        if room == row or (isinstance(row, frozenset) and room in row):
            return index
    raise KeyError(room)


def wrong(name: str, tree: ast.Module) -> Iterator[str]:
    """Yield the imports of a file that point upwards, or into a room beside its own."""
    here = tuple(name.removesuffix(".py").split("/"))
    for house, order in ORDERS.items():
        depth = len(house)
        inside = here[:depth] == house and len(here) > depth
        if not inside or here[depth] == "__init__":
            continue
        room = here[depth]
        for target in imports(name, tree):
            if target[:depth] != house or len(target) <= depth:
                continue
            other = target[depth]
            try:
                above = floor(order, other)
            except KeyError:
                continue  # a package of another project
            if other != room and above >= floor(order, room):
                yield f"{name} imports {'.'.join(target)}"


def test_imports_point_one_way():
    assert not [line for name in FILES for line in wrong(name, tree_of(name))]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("_training/batch.py", "from .._engine.fit import fit"),
        ("_random/keys.py", "from .. import tree"),
        ("bnn/_joint/kl.py", "from .._posterior.draws import DrawsPosterior"),
        ("bnn/_laplace/laplace.py", "from .._mcmc.nuts import NUTS"),
        ("bnn/_mcmc/nuts.py", "from ...diffusion import VP"),
        ("diffusion/_schedule/vp.py", "from .._sampler.heun import Heun"),
        ("plot/_bands.py", "from ..report import Report"),
        ("lightning/_data/data.py", "from .._module.module import LearnerModule"),
    ],
)
def test_a_wrong_import_is_found(name, line):
    assert list(wrong(name, ast.parse(line)))


def test_every_folder_has_a_place():
    for name in FILES:
        here = name.removesuffix(".py").split("/")
        for house, order in ORDERS.items():
            if tuple(here[: len(house)]) == house and len(here) > len(house):
                room = here[len(house)]
                if room != "__init__":
                    floor(order, room)


def test_the_light_half_imports_nothing_heavy():
    for name in FILES:
        if name.startswith(LIGHT):
            roots = {target[0] for target in imports(name, tree_of(name))}
            assert not roots & HEAVY, name


PRIVATE = ("jax.extend", "jax.interpreters", "jax._src", "equinox.internal")


def inside(name: str, tree: ast.Module) -> list[str]:
    """Return the imports of what jax, equinox and diffrax keep for themselves."""
    paths = {".".join(target) for target in imports(name, tree)}
    packages = ("jax", "equinox", "diffrax", "pytorch_lightning", "lightning_fabric")
    return sorted(
        path
        for path in paths
        if path.startswith(PRIVATE) or (path.split(".")[0] in packages and "._" in path)
    )


def test_private_names_are_imported_in_two_places():
    allowed = ("_jaxpr/", "lightning/_trainer/private")
    others = [name for name in FILES if not name.startswith(allowed)]
    found = {name: inside(name, tree_of(name)) for name in others}
    assert not {name: paths for name, paths in found.items() if paths}


def test_a_private_import_is_found():
    line = "from jax.extend.core import Literal"
    assert inside("bnn/_joint/kl.py", ast.parse(line))
    assert inside("tree/_ravel.py", ast.parse("from diffrax._misc import is_tuple"))
