"""Metrics of predictive uncertainty: arrays in, scalars out.

Every function is pure JAX and can be jitted, except the two-sample tests by a
classifier and the tests over simulations, which run on the host.
Observations come first and predictions second: `rmse(y, mean)`. The leading axis is
that of posterior samples or ensemble members. Values are checked where they are
concrete; under `jit` they are not checked.

1. **Proper scores**, minimised in expectation by the true distribution: of a real
   outcome `gaussian_nll`, `gaussian_mixture_nll`, `crps_gaussian`,
   `crps_gaussian_mixture`, `crps_samples`; of an interval `interval_score`; of a class
   `categorical_nll`, `brier`; of ordered classes `ranked_probability_score`. With
   `per_example=True` they give one value per example.
2. **Errors** of the point prediction: `rmse`, `mae`, `accuracy`, `angular_error`.
   Scores and errors take `sample_weight`, how often each row or element counts: zero
   for a target that is missing.
3. **Calibration**, the agreement of probabilities with frequencies:
   `reliability_curve`, `ece`, `adaptive_ece` for classes; `pit_gaussian`,
   `pit_gaussian_mixture`, `pit_samples` and `quantile_calibration_error` for real
   outcomes, `pit_counts` for whole numbers; `coverage` of intervals, beside
   `interval_width`, because wide intervals cover easily.
4. **Ranking** of wrong predictions by uncertainty: `risk_coverage`, `aurc`; of inputs
   that are out of distribution: scores `entropy`, `max_probability_uncertainty`,
   `mutual_information`, judged by `auroc` and `fpr_at_tpr`.
5. **Fidelity** to a reference posterior: `agreement`, `total_variation`.
6. **Two-sample distances** between distributions: `wasserstein_1d`,
   `sliced_wasserstein`, `mmd2`, `frechet_distance`, `c2st`, and by part
   `precision_recall_density_coverage`.
7. **Calibration of a posterior** over simulated data: `posterior_ranks` with
   `rank_p_values` (simulation-based calibration), `tarp`, `density_levels`, at one
   observation `local_c2st`, and `predictive_check`. `draws_for_each` and
   `parameter_matrix` make their arguments of any `draw(key, x)` and of trees.
8. **Standard errors** of metrics: `mean_and_error` over splits, `bootstrap` over
   examples.
"""

from .._exports import public_names as _public_names
from ._regression import (
    gaussian_mixture_nll as gaussian_mixture_nll,
    gaussian_nll as gaussian_nll,
    mae as mae,
    rmse as rmse,
)
from ._crps import (
    crps_gaussian as crps_gaussian,
    crps_gaussian_mixture as crps_gaussian_mixture,
    crps_samples as crps_samples,
)
from ._classification import (
    accuracy as accuracy,
    brier as brier,
    categorical_nll as categorical_nll,
    ranked_probability_score as ranked_probability_score,
)
from ._angles import angular_error as angular_error
from ._calibration import (
    ReliabilityCurve as ReliabilityCurve,
    adaptive_ece as adaptive_ece,
    ece as ece,
    reliability_curve as reliability_curve,
)
from ._pit import (
    pit_counts as pit_counts,
    pit_gaussian as pit_gaussian,
    pit_gaussian_mixture as pit_gaussian_mixture,
    pit_samples as pit_samples,
    quantile_calibration_error as quantile_calibration_error,
)
from ._intervals import (
    coverage as coverage,
    interval_score as interval_score,
    interval_width as interval_width,
)
from ._selective import (
    RiskCoverage as RiskCoverage,
    aurc as aurc,
    risk_coverage as risk_coverage,
)
from ._ood import (
    auroc as auroc,
    entropy as entropy,
    fpr_at_tpr as fpr_at_tpr,
    max_probability_uncertainty as max_probability_uncertainty,
    mutual_information as mutual_information,
)
from ._fidelity import agreement as agreement, total_variation as total_variation
from ._wasserstein import (
    sliced_wasserstein as sliced_wasserstein,
    wasserstein_1d as wasserstein_1d,
)
from ._mmd import median_bandwidth as median_bandwidth, mmd2 as mmd2
from ._frechet import (
    frechet_distance as frechet_distance,
    frechet_gaussian as frechet_gaussian,
)
from ._c2st import c2st as c2st
from ._manifold import (
    ManifoldScores as ManifoldScores,
    precision_recall_density_coverage as precision_recall_density_coverage,
)
from ._simulations import (
    Tarp as Tarp,
    posterior_ranks as posterior_ranks,
    rank_p_values as rank_p_values,
    tarp as tarp,
)
from ._local_c2st import LocalC2ST as LocalC2ST, local_c2st as local_c2st
from ._posterior_checks import (
    PredictiveCheck as PredictiveCheck,
    density_levels as density_levels,
    draws_for_each as draws_for_each,
    parameter_matrix as parameter_matrix,
    predictive_check as predictive_check,
)
from ._error import bootstrap as bootstrap, mean_and_error as mean_and_error

__all__ = _public_names(__name__)
