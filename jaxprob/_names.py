"""Public names of the package, behind the attributes of `jaxprob`."""

from ._engine.evaluate import evaluate as evaluate
from ._engine.fit import fit as fit
from ._engine.jobs import run_jobs as run_jobs
from ._engine.layout import Layout as Layout
from ._engine.processes import join_processes as join_processes
from ._engine.stepper import Stepper as Stepper
from ._engine.total_steps import with_total_steps as with_total_steps
from ._exports import public_names as _public_names
from ._io import (
    DamagedFileError as DamagedFileError,
    FileMismatchError as FileMismatchError,
    load as load,
    load_weights as load_weights,
    save as save,
)
from ._random.keys import example_keys as example_keys, leaf_keys as leaf_keys
from ._random.streams import KeyStreams as KeyStreams
from ._training.batch import (
    Batch as Batch,
    masked_mean as masked_mean,
    mean_loss as mean_loss,
    unpack as unpack,
)
from ._training.call_loss import AbstractCheckedLoss as AbstractCheckedLoss
from ._training.capabilities import (
    AbstractAcceptReject as AbstractAcceptReject,
    AbstractDataCheck as AbstractDataCheck,
    AbstractGradient as AbstractGradient,
    AbstractLowPrecision as AbstractLowPrecision,
    AbstractMembers as AbstractMembers,
    AbstractOptimized as AbstractOptimized,
    AbstractSequentialMembers as AbstractSequentialMembers,
)
from ._training.ema import EMA as EMA
from ._training.gradient_descent import (
    GradientDescent as GradientDescent,
    TrainState as TrainState,
)
from ._training.gradient_norm import log_gradient_norm as log_gradient_norm
from ._training.learner import (
    AbstractCapability as AbstractCapability,
    AbstractLearner as AbstractLearner,
)
from ._training.loader import ArrayLoader as ArrayLoader
from ._training.loss_scale import (
    LossScaleState as LossScaleState,
    dynamic_loss_scale as dynamic_loss_scale,
)
from ._training.low_precision import LowPrecisionLoss as LowPrecisionLoss
from ._training.non_finite import NonFiniteError as NonFiniteError
from ._training.plateau import (
    PlateauState as PlateauState,
    reduce_on_plateau as reduce_on_plateau,
)
from ._training.total_steps import from_total_steps as from_total_steps
from ._training.wrapper import AbstractLearnerWrapper as AbstractLearnerWrapper

__all__ = _public_names(__name__)
