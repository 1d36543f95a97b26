"""Test problems with known answers, on which every method is tested.

- Bayesian networks: linear regression with its exact posterior, evidence and bounds,
  and with unknown noise; logistic regression by quadrature; ranks for simulation-based
  calibration.
- Diffusion: mixtures of Gaussians with their exact densities, denoisers and flows, and
  velocity fields between two of them.
- Contracts: `check_method`, `check_likelihood`, `check_schedule`, `check_denoiser` and
  `check_sampler` for classes outside of the package.
"""

from .._exports import public_names as _public_names
from ._contract import ContractError as ContractError
from ._check_method import check_method as check_method
from ._check_likelihood import check_likelihood as check_likelihood
from ._check_denoiser import (
    check_denoiser as check_denoiser,
    check_sampler as check_sampler,
    check_schedule as check_schedule,
)

from ._gaussian_mixture import (
    GaussianMixture as GaussianMixture,
    GaussianMixtureDenoiser as GaussianMixtureDenoiser,
    eight_gaussians as eight_gaussians,
    gaussian_flow as gaussian_flow,
    reference_flow as reference_flow,
)
from ._linear_gaussian import LinearGaussian as LinearGaussian
from ._logistic import LogisticRegression as LogisticRegression
from ..metrics import rank_p_values as rank_p_values
from ._ranks import simulated_ranks as simulated_ranks
from ._velocity_fields import (
    MixtureVelocityField as MixtureVelocityField,
    TransportVelocityField as TransportVelocityField,
)
from ._unknown_noise import ScaledLinear as ScaledLinear, UnknownNoise as UnknownNoise

__all__ = _public_names(__name__)
