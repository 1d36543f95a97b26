"""Probabilities and intervals put right on held-out rows.

Each is fitted on rows that the model was not trained on, and is then a function to
apply to other predictions. Every one takes what was observed first, as the metrics do.

1. **One number that rescales.** `TemperatureScaling` of class probabilities and
   `VarianceScaling` of standard deviations: the shape of the prediction stays, its
   confidence changes. Few rows suffice, and nothing is guaranteed.
2. **Conformal prediction.** Intervals and sets that hold at least the promised share of
   the outcomes, whatever the model, as long as the rows are exchangeable:
   `SplitConformal` round a point prediction, `ConformalQuantiles` (CQR) round
   quantiles, `AdaptiveSets` (APS, RAPS) of class probabilities. The promise is an
   average over calibration sets and over inputs: of one calibration set of n rows the
   coverage is distributed as `coverage_law(n, level)`.

`Predictive.calibrate(x, y)` in `jaxprob.bnn` applies them to a posterior predictive.
"""

from ._temperature import TemperatureScaling as TemperatureScaling
from ._variance import VarianceScaling as VarianceScaling
from ._conformal import (
    ConformalQuantiles as ConformalQuantiles,
    SplitConformal as SplitConformal,
    conformal_quantile as conformal_quantile,
    coverage_law as coverage_law,
)
from ._sets import AdaptiveSets as AdaptiveSets
