"""Plots of uncertainty and of samples.

The module needs matplotlib (`pip install "jaxprob[plot]"`) and must be imported by
name. Each function draws on `ax`, or on a new figure, and returns the axes (grids of
images: the figure). Nothing is shown or saved, and pyplot is not imported.

    ax = jaxprob.plot.predictive_band(
        x, predictive.mean, predictive.std, epistemic=predictive.epistemic
    )
    ax.figure.savefig("band.png")

1. Before training: `prior_draws`, functions drawn from the prior.
2. Regression: `predictive_band` with its epistemic part, `quantile_band`; in the plane
   `plane_grid` and `epistemic_map`.
3. Calibration: `reliability_diagram`, `pit_histogram`, `coverage_curve`,
   `risk_coverage_curves`; outcomes beside them, `predicted_against_actual`.
4. Posteriors of simulators: `pair_plot`; over simulations `rank_histograms`,
   `rank_curves` and `coverage_of_levels`; `posterior_predictive`.
5. Diffusion: `sample_grid`, samples beside real images, and `trajectories`.
"""

from .._exports import public_names as _public_names
from ._bands import (
    predictive_band as predictive_band,
    prior_draws as prior_draws,
    quantile_band as quantile_band,
)
from ._plane import (
    epistemic_map as epistemic_map,
    plane_grid as plane_grid,
    trajectories as trajectories,
)
from ._calibration import (
    pit_histogram as pit_histogram,
    reliability_diagram as reliability_diagram,
    risk_coverage_curves as risk_coverage_curves,
)
from ._outcomes import (
    coverage_curve as coverage_curve,
    posterior_predictive as posterior_predictive,
    predicted_against_actual as predicted_against_actual,
)
from ._pairs import pair_plot as pair_plot
from ._ranks import (
    coverage_of_levels as coverage_of_levels,
    rank_curves as rank_curves,
    rank_histograms as rank_histograms,
)
from ._images import sample_grid as sample_grid

__all__ = _public_names(__name__)
