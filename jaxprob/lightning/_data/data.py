"""Arrays in memory as a LightningDataModule."""

from typing import Any

import pytorch_lightning as pl
from jaxtyping import PyTree

from ..._training.loader import ArrayLoader
from .._checkpoint.checkpoint_io import verified_source
from .seed import resolve_seed


class ArrayDataModule(pl.LightningDataModule):
    """Data module of arrays: `(x, y)` tuples, or pytrees with one leading axis.

    ```python
    data = ArrayDataModule(train=(x, y), validation=(x_val, y_val), batch_size=128)
    trainer.fit(module, data)
    ```

    Training is shuffled anew in each epoch, in an order that depends on `(seed, epoch)`
    alone, so a resumed run sees what the uninterrupted one saw. The last batch is
    padded and carries a mask (`jaxprob.Batch`).

    **Arguments:**

    - `train`, `validation`, `test`, `predict`: the arrays of each stage; those that
        are missing leave their stage out. With weights of rows `train=(x, y, weight)`.
    - `batch_size`: rows in a batch.
    - `seed`: of the order; by default that of `pl.seed_everything` if it was called,
        else 0.
    - `drop_last`: leave out the ragged last training batch, and yield plain data.

    **Raises:** as `jaxprob.ArrayLoader`, before any training: for no rows, arrays of
    different lengths, NaN and infinite values.
    """

    def __init__(
        self,
        train: PyTree = None,
        validation: PyTree = None,
        test: PyTree = None,
        predict: PyTree = None,
        *,
        batch_size: int = 32,
        seed: int | None = None,
        drop_last: bool = False,
    ):
        super().__init__()
        given = {
            "train": train,
            "validation": validation,
            "test": test,
            "predict": predict,
        }
        self.batch_size = batch_size
        self.seed = resolve_seed(seed)
        self._loaders: dict[str, ArrayLoader] = {}
        for stage, arrays in given.items():
            if arrays is None:
                continue
            training = stage == "train"
            try:
                self._loaders[stage] = ArrayLoader(
                    arrays,
                    batch_size=batch_size,
                    shuffle=training,
                    seed=self.seed,
                    drop_last=drop_last and training,
                )
            except (ValueError, TypeError) as error:
                raise type(error)(f"{stage}: {error}") from None
        if not self._loaders:
            raise ValueError(
                "ArrayDataModule got no arrays: give train=(x, y), validation=..., "
                "test=... or predict=x"
            )

        if "validation" not in self._loaders:
            # Lightning leaves validation out only if the hook is not overridden.
            self.val_dataloader = super().val_dataloader

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args, **kwargs) -> Any:
        """Build the data module from a checkpoint, after the file has been verified.

        **Raises:** as `LearnerModule.load_from_checkpoint`.
        """
        checkpoint_path, _ = verified_source(checkpoint_path, *args, **kwargs)
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    def train_dataloader(self) -> ArrayLoader:
        return self._loader("train")

    def val_dataloader(self) -> ArrayLoader:
        return self._loader("validation")

    def test_dataloader(self) -> ArrayLoader:
        return self._loader("test")

    def predict_dataloader(self) -> ArrayLoader:
        return self._loader("predict")

    def holds(self, stage: str) -> bool:
        """Return whether there are arrays for a stage."""
        return stage in self._loaders

    def _loader(self, stage):
        if stage not in self._loaders:
            raise ValueError(
                f"this ArrayDataModule has no arrays for {stage!r}: give {stage}=(x, y)"
            )
        return self._loaders[stage]
