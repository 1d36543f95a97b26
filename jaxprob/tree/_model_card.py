"""A table of the parts of a model and their parameters."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import PyTree

from .._checks import path_name

ROLES: tuple[str, ...] = ("random", "point", "frozen")


@dataclasses.dataclass(frozen=True)
class Part:
    """One row: a part of the model, and its parameters by role."""

    path: str
    kind: str
    counts: dict[str, int]
    nbytes: int

    @property
    def total(self) -> int:
        """Parameters of the part, whatever their role."""
        return sum(self.counts.values())


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """A model's parts, outermost first; printing it prints the table.

    **Fields:**

    - `parts`: the rows; parts without parameters have none.
    - `total`: the whole model.
    """

    parts: tuple[Part, ...]
    total: Part

    def __str__(self) -> str:
        header = ("part", "type", *ROLES, "memory")
        rows = [header, *(_cells(p) for p in self.parts), _cells(self.total)]
        # A role that nothing has is no column.
        keep = [0, 1]
        keep += [i for i, r in enumerate(ROLES, 2) if self.total.counts[r]]
        keep.append(len(header) - 1)
        widths = [max(len(row[i]) for row in rows) for i in keep]
        lines = []
        for row in rows:
            cells = [
                row[i].ljust(w) if i < 2 else row[i].rjust(w)
                for i, w in zip(keep, widths, strict=True)
            ]
            lines.append("  ".join(cells).rstrip())
        rule = "-" * max(len(line) for line in lines)
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    __repr__ = __str__


def model_card(
    model: PyTree, role: Callable[[str], str | None], depth: int | None
) -> ModelCard:
    """The table of a model whose leaves have the roles that `role(path)` says.

    An array without a role is no parameter: it takes memory and is not counted.
    """
    leaves = [
        (path, leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(model)
        if eqx.is_array(leaf)
    ]

    def part(prefix, name, node):
        counts = dict.fromkeys(ROLES, 0)
        nbytes = 0
        for path, leaf in leaves:
            if path[: len(prefix)] == prefix:
                nbytes += leaf.nbytes
                found = role(path_name(path))
                if found is not None:
                    counts[found] += leaf.size
        return Part(name, type(node).__name__, counts, nbytes)

    rows = []

    def walk(node, prefix, level):
        for key, child in _children(node):
            here = (*prefix, *key)
            row = part(here, path_name(here), child)
            if row.total:
                rows.append(row)
                if depth is None or level < depth:
                    walk(child, here, level + 1)

    walk(model, (), 1)
    return ModelCard(tuple(rows), part((), "all", model))


def _children(node):
    if eqx.is_array(node):
        return []
    children, _ = jax.tree_util.tree_flatten_with_path(
        node, is_leaf=lambda child: child is not node
    )
    return children


def _cells(part):
    counts = [f"{part.counts[role]:,}" for role in ROLES]
    return (part.path, part.kind, *counts, _size(part.nbytes))


def _size(nbytes):
    size, unit = float(nbytes), "B"
    for larger in ("kB", "MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.4g} {unit}"
