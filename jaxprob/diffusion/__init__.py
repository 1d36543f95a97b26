r"""Score-based diffusion: schedule -> denoiser -> loss -> sampler.

A **schedule** turns data into noise, $x_t = \alpha_t x_0 + \sigma_t z$: `VP`,
`SubVP`, `Cosine`, `RectifiedFlow`, `VE`, `EDM`, any of them `Shifted`, and
`CustomSchedule(alpha, sigma)`.

A **denoiser** is the posterior mean $D(x_t, t) = E[x_0 \mid x_t]$, from which the
score, the noise, v and the flow's velocity follow. `Preconditioned` makes one from any
network `net(x, c, cond, *, key)`; networks are in `jaxprob.diffusion.nn`.

Two words recur: `sigma` is $\sigma_t$, and `level` is the noise level
$\sigma_t/\alpha_t$. In $x = x_t/\alpha_t$ all schedules are alike, so a denoiser is
written as `denoise(x, level, cond)`, and losses, samplers, densities and guidance pass
levels. A time is needed only by a network that was trained on it.

A **loss** trains it. `DenoisingLoss` has weights and a distribution of times, and goes
into `jaxprob.GradientDescent`.

`level_errors` compares a trained one with the best linear denoiser at each noise level.

A **sampler** turns noise into data: `ODESampler` (the probability flow, any
diffrax solver, adaptive), `ExpAB` (our default at few evaluations), `DPMSolverPP`,
`DDIM`, `Heun`, `SDESampler` (the reverse SDE) and `PredictorCorrector` (Langevin
steps at each level). Each steps down a grid of levels, such as `KarrasGrid(18)`.
`sample` draws many samples.

`log_prob` is the density of one example, by the same flow; `encode` and `decode` are
the flow as a map between data and noise. `map_examples` applies them to many examples.

`Guided`, `Autoguided`, `Thresholded`, `Scaled` and `Averaged` take denoisers and are
denoisers, so all of the above works with them.

**Conditioning on measurements**, $y = A(x) + n$: `condition(denoiser, observation)` is
a denoiser of $p(x \mid y)$, by `MMPS` or another method, for every sampler.
`Observation` says what was measured. `sample_particles` (twisted SMC) and the sampler
`SplitGibbs` are exact as particles and steps are added.

**A posterior over the weights.** `DenoisingRows` makes the loss a likelihood, so that
every method of `jaxprob.bnn` has a posterior over a denoiser. Its draws are one
denoiser (`Averaged.drawn`), and as many: `sample_members` and `log_prob_members` say
where they disagree.

**Posterior of a simulator** (simulation-based inference): `simulate` runs it on draws
of the prior, `fit_posterior` trains $p(\theta \mid x)$ for all observations together,
and `SimulatorPosterior` samples it and has its density. `fit_likelihood` trains
$p(x \mid \theta)$ instead, whose `log_joint(x)` goes into NUTS.

**Density of a target** (regression with noise of any shape): `fit_conditional` trains
$p(y \mid x)$, and `ConditionalDensity` gives tables of it that a `Predictive` of
`jaxprob.bnn` takes.

**Flow matching** carries any source to the data: a velocity field (`VelocityField`),
its loss (`FlowMatchingLoss`, with couplings such as `OTCoupling`), its sampler
(`FlowSampler`) and its density (`flow_log_prob`).

All levels are in units of the data's standard deviation: a schedule adds noise to
standardised data, and a denoiser has the scale of its data (`standardised`).

All maths is for one example; `jax.vmap` it. `kidger_mixer` is the model of Equinox's
diffusion example.
"""

from .._exports import public_names as _public_names
from ._schedule.schedule import AbstractSchedule as AbstractSchedule
from ._schedule.vp import VP as VP
from ._schedule.sub_vp import SubVP as SubVP
from ._schedule.cosine import Cosine as Cosine
from ._schedule.rectified import RectifiedFlow as RectifiedFlow
from ._schedule.ve import VE as VE
from ._schedule.edm import EDM as EDM
from ._schedule.shifted import Shifted as Shifted
from ._schedule.custom import CustomSchedule as CustomSchedule
from ._denoiser.parameterisation import from_x0 as from_x0, to_x0 as to_x0
from ._denoiser.units import Units as Units
from ._denoiser.denoiser import AbstractDenoiser as AbstractDenoiser
from ._denoiser.wrapper import AbstractDenoiserWrapper as AbstractDenoiserWrapper
from ._denoiser.preconditioned import Preconditioned as Preconditioned
from ._velocity.source import (
    AbstractSource as AbstractSource,
    EmpiricalSource as EmpiricalSource,
    NormalSource as NormalSource,
    PairedSource as PairedSource,
    SampledSource as SampledSource,
)
from ._velocity.velocity_field import (
    AbstractVelocityField as AbstractVelocityField,
    VelocityField as VelocityField,
)
from ._velocity.coupling import (
    AbstractCoupling as AbstractCoupling,
    IndependentCoupling as IndependentCoupling,
    OTCoupling as OTCoupling,
    SinkhornCoupling as SinkhornCoupling,
)
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
from ._loss.flow_matching import (
    FlowMatchingLoss as FlowMatchingLoss,
    flow_matching_error as flow_matching_error,
)
from ._sampler.grid import AbstractGrid as AbstractGrid
from ._sampler.grids import (
    CustomGrid as CustomGrid,
    FocusedGrid as FocusedGrid,
    KarrasGrid as KarrasGrid,
    LogLevelGrid as LogLevelGrid,
    UniformTimeGrid as UniformTimeGrid,
)
from ._sampler.sampler import AbstractSampler as AbstractSampler, Draw as Draw
from ._sampler.sample import sample as sample
from ._sampler.start import add_noise as add_noise
from ._sampler.ode import ODESampler as ODESampler
from ._sampler.flow_sampler import FlowSampler as FlowSampler
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
from ._density.density_flow import Decoded as Decoded, LogProb as LogProb
from ._density.log_prob import (
    decode_with_log_prob as decode_with_log_prob,
    log_prob as log_prob,
)
from ._density.flow_log_prob import flow_log_prob as flow_log_prob
from ._density.bits import bits_per_dim as bits_per_dim, dequantise as dequantise
from ._density.latent import (
    decode as decode,
    encode as encode,
    interpolate as interpolate,
)
from ._density.map_examples import map_examples as map_examples
from ._denoiser.guidance import Guided as Guided
from ._denoiser.autoguidance import Autoguided as Autoguided
from ._denoiser.threshold import Thresholded as Thresholded
from ._denoiser.scaled import Scaled as Scaled
from ._denoiser.averaged import Averaged as Averaged
from ._denoiser.linearised import Linearised as Linearised
from ._loss.member_losses import MemberLosses as MemberLosses
from ._posterior.observation import (
    Measured as Measured,
    Observation as Observation,
)
from ._posterior.conditioned import (
    AbstractPosteriorDenoiser as AbstractPosteriorDenoiser,
)
from ._posterior.condition import condition as condition
from ._posterior.mmps import MMPS as MMPS
from ._posterior.report import (
    SolveReport as SolveReport,
    solve_report as solve_report,
)
from ._posterior.tmpd import TMPD as TMPD
from ._posterior.pigdm import PiGDM as PiGDM
from ._posterior.dps import DPS as DPS
from ._posterior.diffpir import DiffPIR as DiffPIR
from ._posterior.replacement import Replacement as Replacement
from ._posterior.particles import Particles as Particles
from ._posterior.twisted_smc import sample_particles as sample_particles
from ._posterior.split_gibbs import SplitGibbs as SplitGibbs
from ._loss.denoising_rows import DenoisingRows as DenoisingRows
from ._members.samples import (
    MemberSamples as MemberSamples,
    sample_members as sample_members,
)
from ._members.log_probs import (
    MemberLogProbs as MemberLogProbs,
    log_prob_members as log_prob_members,
)
from ._posterior.repaint import RePaint as RePaint
from ._sbi.parameter_space import ParameterSpace as ParameterSpace
from ._sbi.simulations import Simulations as Simulations
from ._sbi.simulate import simulate as simulate
from ._sbi.python_simulator import simulate_in_processes as simulate_in_processes
from ._sbi.encoders import (
    AbstractEncoder as AbstractEncoder,
    ConvEncoder as ConvEncoder,
    SetEncoder as SetEncoder,
    VectorEncoder as VectorEncoder,
)
from ._sbi.fit import fit_posterior as fit_posterior
from ._sbi.posterior import SimulatorPosterior as SimulatorPosterior
from ._sbi.conditional import ConditionalDensity as ConditionalDensity
from ._sbi.conditional_network import ConditionalNetwork as ConditionalNetwork
from ._sbi.fit_conditional import fit_conditional as fit_conditional
from ._sbi.flow_table import FlowTable as FlowTable
from ._sbi.likelihood import (
    SimulatorLikelihood as SimulatorLikelihood,
    fit_likelihood as fit_likelihood,
)
from ._denoiser.recipes import kidger_mixer as kidger_mixer
from . import nn as nn

__all__ = _public_names(__name__, "nn")
