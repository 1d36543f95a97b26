"""Probabilistic deep learning on Equinox.

The core trains anything. A **learner** is four pure functions,

    state = learner.init(model, key=key)
    state, info = learner.update(state, batch, key=key)
    info = learner.evaluate(state, batch, key=key)
    model = learner.model(state)

and `fit` (a plain JAX loop) and `jaxprob.lightning` (PyTorch Lightning) both run it.
`GradientDescent` is the plain learner; every inference method in `jaxprob.bnn` is
another; `jaxprob.diffusion` makes losses for the first.

- `jaxprob.bnn`: prior + likelihood -> inference -> posterior -> predictive.
- `jaxprob.diffusion`: schedule -> denoiser -> loss -> sampler, log-likelihood.
- `jaxprob.metrics`: arrays in, scalars out: is the uncertainty to be trusted?
- `jaxprob.recalibrate`: temperature, variance scaling, conformal intervals and sets.
- `jaxprob.tree`: choose, freeze and swap parts of any model by their path.
- `jaxprob.datasets`, `jaxprob.plot`, `jaxprob.testing`, `jaxprob.lightning` are
  imported by name.
"""

import importlib
from typing import TYPE_CHECKING

from . import tree as tree
from ._training.batch import (
    Batch as Batch,
    masked_mean as masked_mean,
    mean_loss as mean_loss,
    unpack as unpack,
)
from ._training.ema import EMA as EMA
from ._engine.evaluate import evaluate as evaluate
from ._engine.fit import fit as fit
from ._io import (
    DamagedFileError as DamagedFileError,
    FileMismatchError as FileMismatchError,
    load as load,
    load_weights as load_weights,
    save as save,
)
from ._random.streams import KeyStreams as KeyStreams
from ._random.keys import example_keys as example_keys, leaf_keys as leaf_keys
from ._training.non_finite import NonFiniteError as NonFiniteError
from ._engine.layout import Layout as Layout
from ._training.learner import (
    AbstractCapability as AbstractCapability,
    AbstractLearner as AbstractLearner,
)
from ._training.capabilities import (
    AbstractAcceptReject as AbstractAcceptReject,
    AbstractDataCheck as AbstractDataCheck,
    AbstractGradient as AbstractGradient,
    AbstractLowPrecision as AbstractLowPrecision,
    AbstractMembers as AbstractMembers,
    AbstractOptimized as AbstractOptimized,
    AbstractSequentialMembers as AbstractSequentialMembers,
)
from ._training.wrapper import AbstractLearnerWrapper as AbstractLearnerWrapper
from ._training.call_loss import AbstractCheckedLoss as AbstractCheckedLoss
from ._training.gradient_descent import (
    GradientDescent as GradientDescent,
    TrainState as TrainState,
)
from ._training.gradient_norm import log_gradient_norm as log_gradient_norm
from ._training.loader import ArrayLoader as ArrayLoader
from ._training.loss_scale import (
    LossScaleState as LossScaleState,
    dynamic_loss_scale as dynamic_loss_scale,
)
from ._training.low_precision import LowPrecisionLoss as LowPrecisionLoss
from ._training.plateau import (
    PlateauState as PlateauState,
    reduce_on_plateau as reduce_on_plateau,
)
from ._training.total_steps import from_total_steps as from_total_steps
from ._engine.processes import join_processes as join_processes
from ._engine.stepper import Stepper as Stepper
from ._engine.total_steps import with_total_steps as with_total_steps
from ._version import __version__ as __version__

if TYPE_CHECKING:
    from . import (
        bnn as bnn,
        diffusion as diffusion,
        metrics as metrics,
        recalibrate as recalibrate,
    )

_LAZY = ("bnn", "diffusion", "metrics", "recalibrate")


def __getattr__(name: str):
    # Imported when first used: importing one half does not wait for the other.
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
