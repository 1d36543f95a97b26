"""Lightning's model summary with the counts of the Equinox tree."""

from typing import Any

import equinox as eqx
import jax
import pytorch_lightning as pl
from jaxtyping import PyTree
from pytorch_lightning.callbacks import ModelSummary

from .. import tree
from . import _private


class TreeSummary(ModelSummary):
    """Stands in for a `ModelSummary` or `RichModelSummary` and prints as it would."""

    def __init__(self, original: ModelSummary):
        super().__init__(max_depth=_private.summary_depth(original))
        self._original = original

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        depth = _private.summary_depth(self)
        if not depth or not trainer.is_global_zero:
            return
        model = pl_module.model
        rows = summary_rows(model, depth)
        names, types, counts = ([str(row[i]) for row in rows] for i in range(3))
        data = [
            (" ", [str(i) for i in range(len(rows))]),
            ("Name", names),
            ("Type", types),
            ("Params", counts),
        ]
        total = tree.count(model)
        self._original.summarize(
            data,
            total,
            trainable_parameters=total,
            model_size=_nbytes(model) / 1e6,
            total_training_modes={"train": 1, "eval": 0},
            total_flops=0,
        )


def summary_rows(model: PyTree, depth: int) -> list[tuple[str, str, int]]:
    """`(path, type, number of parameters)` of the parts of a model down to a depth.

    `depth=-1` means all the way. A part without parameters has no row.
    """
    rows: list[tuple[str, str, int]] = []

    def walk(node: Any, path: str, level: int):
        for name, child in _children(node):
            count = tree.count(child)
            if not count:
                continue
            full = f"{path}.{name}" if path else name
            rows.append((full, type(child).__name__, count))
            if depth == -1 or level < depth:
                walk(child, full, level + 1)

    walk(model, "", 1)
    return rows


def _children(node):
    if eqx.is_array(node):
        return []
    paths, _ = jax.tree_util.tree_flatten_with_path(
        node, is_leaf=lambda child: child is not node
    )
    return [(jax.tree_util.keystr(p, simple=True), child) for p, child in paths]


def _nbytes(model):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(model) if eqx.is_array(leaf))
