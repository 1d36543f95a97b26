"""Lightning's model summary with the counts of the Equinox tree."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelSummary

from ... import tree
from .._trainer import private as _private


class TreeSummary(ModelSummary):
    """Summary of an Equinox tree in the layout of Lightning's `ModelSummary`.

    **Arguments:**

    - `original`: the `ModelSummary` or `RichModelSummary` that it replaces.
    """

    def __init__(self, original: ModelSummary):
        super().__init__(max_depth=_private.summary_depth(original))
        self._original = original

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        depth = _private.summary_depth(self)
        if not depth or not trainer.is_global_zero:
            return
        model = pl_module.model
        card = tree.summary(model, depth=None if depth == -1 else depth)
        data = [
            (" ", [str(i) for i in range(len(card.parts))]),
            ("Name", [part.path for part in card.parts]),
            ("Type", [part.kind for part in card.parts]),
            ("Params", [str(part.total) for part in card.parts]),
        ]
        total = card.total.total
        self._original.summarize(
            data,
            total,
            trainable_parameters=total,
            model_size=card.total.nbytes / 1e6,
            total_training_modes={"train": 1, "eval": 0},
            total_flops=0,
        )
