"""Recalibration of probabilities and intervals on held-out rows.

Each class is fitted on rows that the model was not trained on and is then a function
that is applied to other predictions. The first argument of `fit` is what was observed,
as in `jaxprob.metrics`.

1. **Rescaling by one number.** `TemperatureScaling` of class probabilities and
   `VarianceScaling` of standard deviations: the shape of the prediction stays, its
   confidence changes. A few hundred rows are enough; there is no guarantee.
2. **Conformal prediction.** Intervals and sets that contain at least the promised share
   of the outcomes for any model, as long as the rows are exchangeable:
   `SplitConformal` around a point prediction, `ConformalQuantiles` (CQR) around
   quantiles, `AdaptiveSets` (APS, RAPS) from class probabilities. The guarantee is an
   average over calibration sets and over inputs. The coverage of one calibration set of
   n rows has the distribution `coverage_distribution(n, level)`.

`jaxprob.bnn.calibrate` applies them to a posterior predictive.
"""

from .._exports import public_names as _public_names
from ._temperature import TemperatureScaling as TemperatureScaling
from ._variance import VarianceScaling as VarianceScaling
from ._conformal import (
    ConformalQuantiles as ConformalQuantiles,
    SplitConformal as SplitConformal,
    conformal_quantile as conformal_quantile,
    coverage_distribution as coverage_distribution,
)
from ._sets import AdaptiveSets as AdaptiveSets

__all__ = _public_names(__name__)
