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

from ._schedule.schedule import AbstractSchedule as AbstractSchedule
from ._schedule.vp import VP as VP
from ._schedule.sub_vp import SubVP as SubVP
from ._schedule.cosine import Cosine as Cosine
from ._schedule.rectified import RectifiedFlow as RectifiedFlow
from ._schedule.ve import VE as VE
from ._schedule.edm import EDM as EDM
from ._schedule.shifted import Shifted as Shifted
from ._denoiser.parameterisation import from_x0 as from_x0, to_x0 as to_x0
from ._denoiser.units import Units as Units
from ._denoiser.denoiser import (
    AbstractDenoiser as AbstractDenoiser,
    AbstractDenoiserWrapper as AbstractDenoiserWrapper,
)
from ._denoiser.preconditioned import Preconditioned as Preconditioned
from ._loss.times import (
    AbstractTimes as AbstractTimes,
    LogitNormalTimes as LogitNormalTimes,
    LogNormalLevels as LogNormalLevels,
    UniformLogSNR as UniformLogSNR,
    UniformTimes as UniformTimes,
)
from ._loss.weighting import (
    EDMWeighting as EDMWeighting,
    ErrorOf as ErrorOf,
    LikelihoodWeighting as LikelihoodWeighting,
    MinSNR as MinSNR,
    ScoreWeighting as ScoreWeighting,
)
from ._loss.level_errors import LevelErrors as LevelErrors, level_errors as level_errors
from ._loss.loss import (
    DenoisingLoss as DenoisingLoss,
    denoising_error as denoising_error,
)
from ._sampler.grids import (
    AbstractGrid as AbstractGrid,
    CustomGrid as CustomGrid,
    Focused as Focused,
    Karras as Karras,
    LogSNR as LogSNR,
    UniformTime as UniformTime,
)
from ._sampler.sampler import (
    AbstractSampler as AbstractSampler,
    Draw as Draw,
    sample as sample,
)
from ._sampler.ode import ODESampler as ODESampler
from ._sampler.sde import SDESampler as SDESampler
from ._sampler.grid_sampler import AbstractGridSampler as AbstractGridSampler
from ._sampler.multistep import AbstractMultistep as AbstractMultistep
from ._sampler.ddim import DDIM as DDIM
from ._sampler.dpm_solver import DPMSolverPP as DPMSolverPP
from ._sampler.exponential import ExpAB as ExpAB
from ._sampler.heun import Heun as Heun
from ._sampler.predictor_corrector import PredictorCorrector as PredictorCorrector
from ._density.trace import (
    AbstractTrace as AbstractTrace,
    ExactTrace as ExactTrace,
    Hutchinson as Hutchinson,
    HutchPP as HutchPP,
)
from ._density.log_prob import (
    LogProb as LogProb,
    bits_per_dim as bits_per_dim,
    dequantise as dequantise,
    log_prob as log_prob,
)
from ._density.latent import (
    decode as decode,
    encode as encode,
    interpolate as interpolate,
)
from ._density.many import (
    decode_many as decode_many,
    encode_many as encode_many,
    log_prob_many as log_prob_many,
)
from ._denoiser.guidance import Guided as Guided
from ._denoiser.threshold import Thresholded as Thresholded
from ._denoiser.recipes import kidger_mixer as kidger_mixer
from . import nn as nn
