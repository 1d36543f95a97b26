"""Strategy for processes that `jaxprob.join_processes` brought together."""

import pickle
from typing import Any

import jax
import numpy as np
import torch
from jax.experimental import multihost_utils
from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.strategies import SingleDeviceStrategy

from ..._training.loader import ArrayLoader


class JaxStrategy(SingleDeviceStrategy):
    """Strategy with one Lightning process for each host; JAX sums the gradients.

    ```python
    jaxprob.join_processes("host0:1234", num_processes=2, process_id=rank)
    module = LearnerModule(learner, model, layout=Layout(data=jax.device_count()))
    trainer = pl.Trainer(strategy=JaxStrategy(), max_epochs=10)
    trainer.fit(module, data)                      # the same call in every process
    ```

    The first process writes checkpoints and logs; the others write nothing. Every
    process has the whole data set and takes a part of the rows of each batch, in one
    common order, so `batch_size` counts the rows of all processes. Checkpoints must be
    in a folder that every process can read.
    """

    strategy_name = "jax"

    def __init__(self, **kwargs: Any):
        super().__init__(device="cpu", **kwargs)
        self.global_rank = self.local_rank = jax.process_index()
        self.world_size = jax.process_count()
        # Lightning's switch for work that only one process may do.
        rank_zero_only.rank = self.global_rank

    @property
    def is_global_zero(self) -> bool:
        return self.global_rank == 0

    def process_dataloader(self, dataloader: Any) -> Any:
        loader = super().process_dataloader(dataloader)
        if isinstance(loader, ArrayLoader):
            module: Any = self.lightning_module
            loader.process_rows = module.layout.process_rows()
        return loader

    def barrier(self, name: str | None = None) -> None:
        if self.world_size > 1:
            multihost_utils.sync_global_devices(name or "barrier")

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        if self.world_size == 1:
            return obj
        here = self.global_rank == src
        sent = np.frombuffer(pickle.dumps(obj), np.uint8)
        size = _from_one(np.int32(len(sent)), here)
        buffer = np.zeros(int(size), np.uint8)
        if here:
            buffer[:] = sent
        return pickle.loads(np.asarray(_from_one(buffer, here)).tobytes())

    def all_gather(self, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.world_size == 1:
            return tensor
        return torch.from_numpy(np.array(_gather(tensor.numpy(force=True))))

    def reduce(
        self, tensor: Any, group: Any = None, reduce_op: Any = "mean"
    ) -> torch.Tensor:
        """Reduce a metric, which is equal in every process, computed from all rows."""
        gathered = self.all_gather(torch.as_tensor(tensor))
        if self.world_size == 1:
            return gathered
        mean = str(reduce_op or "mean").lower() in ("mean", "avg")
        if not mean:
            return gathered.sum(0)
        return gathered.double().mean(0).to(gathered.dtype)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        if self.world_size == 1:
            return decision
        decisions = np.asarray(_gather(np.int32(decision)))
        return bool(decisions.all() if all else decisions.any())


def _from_one(array, here):
    return multihost_utils.broadcast_one_to_all(array, is_source=here)


def _gather(array):
    return multihost_utils.process_allgather(array)
