"""Any learner inside PyTorch Lightning, at the speed of the bare JAX loop.

A `LearnerModule` takes a learner and a model; the Trainer drives it like any other
LightningModule. Batches are gathered until the state or a metric is read (by a logger,
a checkpoint, a validation, the end of the run), and then run as one dispatch.

    data -> ArrayDataModule -> Trainer -> LearnerModule -> jaxprob.Stepper -> XLA

This is the only part of jaxprob that imports torch.
"""

from .._exports import public_names as _public_names
from ._module.module import LearnerModule as LearnerModule
from ._module.bnn import BNNModule as BNNModule
from ._module.diffusion import DiffusionModule as DiffusionModule
from ._data.data import ArrayDataModule as ArrayDataModule
from ._data.split_data import (
    ImageDataModule as ImageDataModule,
    TabularDataModule as TabularDataModule,
)
from ._trainer.strategy import JaxStrategy as JaxStrategy
from ._trainer.watchers import BatchWatcher as BatchWatcher
from ._module.optimizer import OptaxOptimizer as OptaxOptimizer
from ._logging.summary import TreeSummary as TreeSummary
from ._logging.histograms import (
    ParameterHistograms as ParameterHistograms,
    log_histogram as log_histogram,
)
from ._logging.images import image_grid as image_grid, log_image as log_image
from ._checkpoint.checkpoint_io import AtomicCheckpointIO as AtomicCheckpointIO
from ._checkpoint.newest_good import newest_good_checkpoint as newest_good_checkpoint
from ._checkpoint.save_on_signal import SaveOnSignal as SaveOnSignal
from ._checkpoint.safetensors import (
    export_safetensors as export_safetensors,
    import_safetensors as import_safetensors,
)
from ._errors import (
    CheckpointContentError as CheckpointContentError,
    CheckpointCorruptError as CheckpointCorruptError,
    CheckpointError as CheckpointError,
    CheckpointLockedError as CheckpointLockedError,
    CheckpointMismatchError as CheckpointMismatchError,
    CheckpointWriteError as CheckpointWriteError,
)

__all__ = _public_names(__name__)
