"""Any learner inside PyTorch Lightning, at the speed of the bare JAX loop.

A `LearnerModule` takes a learner and a model; the Trainer drives it like any other
LightningModule. Underneath, batches are gathered until somebody would look (a logger, a
checkpoint, a validation, the end), and then run as one dispatch.

    data -> ArrayDataModule -> Trainer -> LearnerModule -> jaxprob.Stepper -> XLA

This is the only part of jaxprob that imports torch.
"""

from ._module import LearnerModule as LearnerModule
from ._bnn import BNNModule as BNNModule
from ._diffusion import DiffusionModule as DiffusionModule
from ._data import ArrayDataModule as ArrayDataModule
from ._split_data import (
    ImageDataModule as ImageDataModule,
    TabularDataModule as TabularDataModule,
)
from ._strategy import JaxStrategy as JaxStrategy
from ._optimizer import OptaxOptimizer as OptaxOptimizer
from ._summary import TreeSummary as TreeSummary
from ._histograms import (
    ParameterHistograms as ParameterHistograms,
    log_histogram as log_histogram,
)
from ._images import image_grid as image_grid, log_image as log_image
from ._checkpoint_io import AtomicCheckpointIO as AtomicCheckpointIO
from ._newest_good import newest_good_checkpoint as newest_good_checkpoint
from ._save_on_signal import SaveOnSignal as SaveOnSignal
from ._safetensors import (
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
