"""Bayesian neural networks: a posterior over the weights of any Equinox module.

Prior + likelihood -> inference -> posterior -> predictive:

1. **Random leaves.** `Gaussian` is a distribution that stands in a model's tree where
   an array stood; `sample_leaves` draws them all and gives back a model of the user's
   own class. `bayesianize` puts them into any module, `BayesianLinear` and the
   convolutions bring their own.
2. **The joint density.** `LogJoint(likelihood, prior, num_data)` is
   N/B sum log p(y_i | f_w(x_i)) + log p(w), in nats for the whole data set. A
   likelihood maps one output to a numpyro distribution; a prior is a numpyro
   distribution for each leaf.
3. **Inference.** Each method is a `jaxprob` learner (`init`, `update`, `evaluate`), so
   `jaxprob.fit` and Lightning run it, and ends in `posterior(state)`. It asks which
   leaves are random and which are points to optimise; all others are frozen.
4. **The posterior** gives models: `sample(key=key)`, `mean()`, and `log_prob(model)`
   where there is a density.
5. **The predictive.** `predict(posterior, likelihood, x, key=key)` is the mixture over
   sampled models: mean, variance and its two parts, quantiles, log_prob, entropy.
   `calibrate` rescales its confidence on held-out rows.

```python
log_joint = LogJoint(NormalLikelihood(0.3), FanInNormal(), num_data=len(x))
method = MeanFieldVI(log_joint, optax.adam(1e-2))
state, _ = jaxprob.fit(method, model, (x, y), key=key, num_epochs=200)
predictive = predict(method.posterior(state), log_joint.likelihood, x_test, key=key)
lower, upper = predictive.interval(0.9)
```
"""

from .._exports import public_names as _public_names
from ._weights.random_leaves import (
    Gaussian as Gaussian,
    is_random as is_random,
    mean_leaves as mean_leaves,
    random_leaves as random_leaves,
    sample_leaves as sample_leaves,
)
from ._weights.initial_scale import fan_in as fan_in
from ._weights.choice import weights as weights
from ._weights.layers import (
    AbstractBayesianLayer as AbstractBayesianLayer,
    BayesianConv1d as BayesianConv1d,
    BayesianConv2d as BayesianConv2d,
    BayesianLinear as BayesianLinear,
)
from ._weights.low_rank_adapter import (
    LowRankAdapter as LowRankAdapter,
    LowRankUpdate as LowRankUpdate,
    lora as lora,
    merge_lora as merge_lora,
)
from ._joint.prior import Prior as Prior, log_prior as log_prior
from ._joint.normal_priors import (
    FanInNormal as FanInNormal,
    IsotropicNormal as IsotropicNormal,
)
from ._joint.scale_mixture import ScaleMixtureNormal as ScaleMixtureNormal
from ._joint.prior_by_path import PriorByPath as PriorByPath
from ._joint.gaussian_prior import GaussianPrior as GaussianPrior
from ._joint.covariance import (
    AbstractCovariance as AbstractCovariance,
    DenseCovariance as DenseCovariance,
    DiagonalCovariance as DiagonalCovariance,
    LowRankCovariance as LowRankCovariance,
)
from ._joint.unconstrain import unconstrained as unconstrained
from ._weights.unconstrained import (
    Unconstrained as Unconstrained,
    constrained as constrained,
)
from ._joint.check_prior import check_prior as check_prior
from ._joint.sample_prior import sample_prior as sample_prior
from ._joint.hierarchical import (
    GroupedStudentT as GroupedStudentT,
    HierarchicalNormal as HierarchicalNormal,
)
from ._joint.kl import kl as kl
from ._joint.family import Family as Family
from ._joint.families import register_family as register_family
from ._joint.likelihood import (
    AbstractLikelihood as AbstractLikelihood,
    BernoulliLikelihood as BernoulliLikelihood,
    CategoricalLikelihood as CategoricalLikelihood,
    HeteroscedasticNormal as HeteroscedasticNormal,
    KnownNoiseLikelihood as KnownNoiseLikelihood,
    Likelihood as Likelihood,
    NormalLikelihood as NormalLikelihood,
    PoissonLikelihood as PoissonLikelihood,
    StudentTLikelihood as StudentTLikelihood,
    VonMisesLikelihood as VonMisesLikelihood,
)
from ._joint.student_t import StudentT as StudentT
from ._joint.joint_likelihood import JointLikelihood as JointLikelihood
from ._joint.target import masked_targets as masked_targets
from ._joint.class_weights import class_weights as class_weights
from ._weights.learned_noise import LearnedNoise as LearnedNoise
from ._weights.known_noise import KnownNoise as KnownNoise
from ._joint.log_joint import LogJoint as LogJoint
from ._joint.batch_apply import BatchApply as BatchApply
from ._joint.check_data import check_data as check_data
from ._inference.inference import AbstractInference as AbstractInference
from ._inference.descent import AbstractDescent as AbstractDescent
from ._inference.wrapper import (
    AbstractPostHoc as AbstractPostHoc,
    AbstractWrapper as AbstractWrapper,
)
from ._inference.map import MAP as MAP
from ._variational.mean_field import MeanFieldVI as MeanFieldVI
from ._variational.gaussian_vi import AbstractGaussianVI as AbstractGaussianVI
from ._variational.full_rank_vi import FullRankVI as FullRankVI
from ._variational.low_rank_vi import LowRankVI as LowRankVI
from ._variational.ivon_optimizer import (
    IVONState as IVONState,
    ivon as ivon,
    sample_ivon as sample_ivon,
)
from ._variational.ivon import IVON as IVON
from ._ensembles.deep_ensemble import DeepEnsemble as DeepEnsemble
from ._ensembles.fit_members import fit_members as fit_members
from ._ensembles.ensemble_posterior import EnsemblePosterior as EnsemblePosterior
from ._ensembles.anchored import AnchoredMAP as AnchoredMAP
from ._ensembles.mc_dropout import (
    DropoutPosterior as DropoutPosterior,
    FixedDropout as FixedDropout,
    MCDropout as MCDropout,
)
from ._laplace.laplace import Laplace as Laplace
from ._laplace.posterior import LaplacePosterior as LaplacePosterior
from ._laplace.matrix_free import MatrixFreeLaplace as MatrixFreeLaplace
from ._laplace.laplace_draws import LaplaceDraws as LaplaceDraws
from ._laplace.tune_prior import (
    per_layer as per_layer,
    tune_prior as tune_prior,
    with_noise as with_noise,
)
from ._laplace.matched_temperature import matched_temperature as matched_temperature
from ._laplace.train_by_evidence import train_by_evidence as train_by_evidence
from ._laplace.logit_gaussian import probit as probit, softmax_bridge as softmax_bridge
from ._laplace.curvature import (
    AbstractCurvature as AbstractCurvature,
    DiagonalCurvature as DiagonalCurvature,
    FullCurvature as FullCurvature,
)
from ._laplace.kronecker_curvature import (
    KroneckerBlock as KroneckerBlock,
    KroneckerCurvature as KroneckerCurvature,
)
from ._laplace.low_rank import LowRankCurvature as LowRankCurvature
from ._laplace.curvature_covariance import CurvatureCovariance as CurvatureCovariance
from ._laplace.kalman import KalmanPosterior as KalmanPosterior
from ._ensembles.swag import SWAG as SWAG, SWAGPosterior as SWAGPosterior
from ._mcmc.multi_start import MultiStart as MultiStart
from ._mcmc.chains import AbstractChains as AbstractChains, ChainState as ChainState
from ._mcmc.full_batch import AbstractFullBatch as AbstractFullBatch
from ._mcmc.hamiltonian import AbstractHamiltonian as AbstractHamiltonian
from ._mcmc.mclmc import MCLMC as MCLMC
from ._mcmc.adjusted_mclmc import AdjustedMCLMC as AdjustedMCLMC
from ._mcmc.nuts import NUTS as NUTS
from ._mcmc.hmc import HMC as HMC
from ._mcmc.sgmcmc import AbstractSGMCMC as AbstractSGMCMC
from ._mcmc.sgld import SGLD as SGLD
from ._mcmc.sghmc import SGHMC as SGHMC
from ._mcmc.cosine_cycles import CosineCycles as CosineCycles
from ._mcmc.check_run import ChainError as ChainError
from ._mcmc.bridge import Evidence as Evidence, log_evidence as log_evidence
from ._mcmc.run_chains import load_draws as load_draws, run_chains as run_chains
from ._posterior.draws import DrawsPosterior as DrawsPosterior
from ._posterior.mixing import ess as ess, rhat as rhat
from ._predictive.diagnose import Diagnosis as Diagnosis, diagnose as diagnose
from ._predictive.loo import PredictiveFit as PredictiveFit, loo as loo, waic as waic
from ._predictive.summarise import Summary as Summary, summarise as summarise
from ._weights.running_statistics import Stateful as Stateful
from ._inference.refresh_statistics import refresh_statistics as refresh_statistics
from ._posterior.correlated import (
    AbstractCorrelatedPosterior as AbstractCorrelatedPosterior,
    FullRankPosterior as FullRankPosterior,
    LowRankPosterior as LowRankPosterior,
)
from ._posterior.posterior import AbstractPosterior as AbstractPosterior
from ._posterior.point import PointPosterior as PointPosterior
from ._posterior.mean_field import (
    MeanFieldPosterior as MeanFieldPosterior,
    bayesianize as bayesianize,
)
from ._posterior.linearized import LinearizedModel as LinearizedModel
from ._posterior.mixture import Mixture as Mixture
from ._inference.blocks import Blocks as Blocks, BlocksPosterior as BlocksPosterior
from ._posterior.prior_models import PriorModels as PriorModels
from ._posterior.save import (
    load_posterior as load_posterior,
    save_posterior as save_posterior,
)
from ._predictive.predict import predict as predict
from ._predictive.predictive import Predictive as Predictive
from ._predictive.calibrated import (
    CalibratedPredictive as CalibratedPredictive,
    calibrate as calibrate,
)

__all__ = _public_names(__name__)
