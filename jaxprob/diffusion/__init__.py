r"""Score-based diffusion: schedule -> denoiser -> loss -> sampler.

A **schedule** turns data into noise, $x_t = \alpha_t x_0 + \sigma_t z$: `VP`,
`SubVP`, `Cosine`, `RectifiedFlow`, `VE`, `EDM`, and any of them `Shifted`.

A **denoiser** knows the way back: $D(x_t, t) = E[x_0 \mid x_t]$, which is the score,
the noise, v and the flow's velocity in other words. `Preconditioned` makes one of any
network `net(x, c, cond, *, key)`; networks are in `jaxprob.diffusion.nn`.

A **loss** trains it. `DenoisingLoss` is a choice of weights and of times and goes into
`jaxprob.GradientDescent`.

`level_errors` compares a trained one with the best linear denoiser at each noise level.

A **sampler** turns noise into data with it: `ODESampler` (the probability flow, any
diffrax solver, adaptive), `ExpAB` (our default at few evaluations), `DPMSolverPP`,
`DDIM`, `Heun`, `SDESampler` (the reverse SDE) and `PredictorCorrector` (Langevin
steps at each level). `sample` draws many.

`log_prob` is the density of one example, by the same flow; `encode` and `decode` are
the flow as a map between data and noise. `log_prob_many`, `encode_many` and
`decode_many` take many examples.

`Guided` and `Thresholded` take a denoiser and are denoisers, so all of the above works
with them.

All noise levels are in units of the data's standard deviation: a schedule noises
standardised data, and a denoiser knows the scale of its own (`standardised`).

All maths is for one example; `jax.vmap` it. `kidger_mixer` puts the parts of Equinox's
diffusion example together.
"""

from ._schedule import AbstractSchedule as AbstractSchedule
from ._vp import VP as VP
from ._sub_vp import SubVP as SubVP
from ._cosine import Cosine as Cosine
from ._rectified import RectifiedFlow as RectifiedFlow
from ._ve import VE as VE
from ._edm import EDM as EDM
from ._shifted import Shifted as Shifted
from ._parameterisation import from_x0 as from_x0, to_x0 as to_x0
from ._units import Units as Units
from ._denoiser import (
    AbstractDenoiser as AbstractDenoiser,
    AbstractDenoiserWrapper as AbstractDenoiserWrapper,
)
from ._preconditioned import Preconditioned as Preconditioned
from ._times import (
    AbstractTimes as AbstractTimes,
    LogitNormalTimes as LogitNormalTimes,
    LogNormalLevels as LogNormalLevels,
    UniformLogSNR as UniformLogSNR,
    UniformTimes as UniformTimes,
)
from ._weighting import (
    EDMWeighting as EDMWeighting,
    ErrorOf as ErrorOf,
    LikelihoodWeighting as LikelihoodWeighting,
    MinSNR as MinSNR,
    ScoreWeighting as ScoreWeighting,
)
from ._level_errors import LevelErrors as LevelErrors, level_errors as level_errors
from ._loss import DenoisingLoss as DenoisingLoss, denoising_error as denoising_error
from ._grids import (
    AbstractGrid as AbstractGrid,
    CustomGrid as CustomGrid,
    Focused as Focused,
    Karras as Karras,
    LogSNR as LogSNR,
    UniformTime as UniformTime,
)
from ._sampler import AbstractSampler as AbstractSampler, Draw as Draw, sample as sample
from ._ode import ODESampler as ODESampler
from ._sde import SDESampler as SDESampler
from ._grid_sampler import AbstractGridSampler as AbstractGridSampler
from ._multistep import AbstractMultistep as AbstractMultistep
from ._ddim import DDIM as DDIM
from ._dpm_solver import DPMSolverPP as DPMSolverPP
from ._exponential import ExpAB as ExpAB
from ._heun import Heun as Heun
from ._predictor_corrector import PredictorCorrector as PredictorCorrector
from ._trace import (
    AbstractTrace as AbstractTrace,
    ExactTrace as ExactTrace,
    Hutchinson as Hutchinson,
    HutchPP as HutchPP,
)
from ._log_prob import (
    LogProb as LogProb,
    bits_per_dim as bits_per_dim,
    dequantise as dequantise,
    log_prob as log_prob,
)
from ._latent import decode as decode, encode as encode, interpolate as interpolate
from ._many import (
    decode_many as decode_many,
    encode_many as encode_many,
    log_prob_many as log_prob_many,
)
from ._guidance import Guided as Guided
from ._threshold import Thresholded as Thresholded
from ._recipes import kidger_mixer as kidger_mixer
from . import nn as nn
