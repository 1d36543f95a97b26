"""Test problems with known answers, on which every method is tested.

- Bayesian networks: linear regression with its exact posterior, evidence and bounds,
  and with unknown noise; logistic regression by quadrature; ranks for simulation-based
  calibration.
- Diffusion: mixtures of Gaussians with their exact densities, denoisers and flows, and
  velocity fields between two of them.
"""

from ._gaussian_mixture import (
    GaussianMixture as GaussianMixture,
    GaussianMixtureDenoiser as GaussianMixtureDenoiser,
    eight_gaussians as eight_gaussians,
    gaussian_flow as gaussian_flow,
    reference_flow as reference_flow,
)
from ._linear_gaussian import LinearGaussian as LinearGaussian
from ._logistic import LogisticRegression as LogisticRegression
from ._ranks import (
    rank_p_values as rank_p_values,
    simulated_ranks as simulated_ranks,
)
from ._velocity_fields import (
    MixtureVelocityField as MixtureVelocityField,
    TransportVelocityField as TransportVelocityField,
)
from ._unknown_noise import ScaledLinear as ScaledLinear, UnknownNoise as UnknownNoise
