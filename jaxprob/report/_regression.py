"""Sections about predictions of real outcomes, counts and angles."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import metrics
from ..plot import (
    coverage_curve,
    pit_histogram,
    predicted_against_actual,
    risk_coverage_curves,
)
from ._baselines import real_losses
from ._forecast import Forecast
from ._parts import Picture, Section, Table, Text
from ._pictures import error_by_spread, figure_of, new_axes, parts_of_uncertainty
from ._scores import Losses, scores_table

NUM_WORST = 10


def regression_sections(
    forecast: Forecast,
    baselines: Mapping[str, Losses],
    *,
    x: Any = None,
    names: Sequence[str] = (),
    label: str = "y",
) -> list[Section]:
    """Return scores, calibration, selection, the worst rows, parts of uncertainty.

    **Arguments:**

    - `forecast`: the predictions with their outcomes.
    - `baselines`: losses of other predictions of the same rows, by name.
    - `x`, `names`: inputs of the rows and their names, shown beside the worst rows.
    - `label`: name and unit of y.
    """
    sections = [
        Section(
            "Scores",
            [
                scores_table(real_losses(forecast), baselines),
                Picture(
                    figure_of(
                        predicted_against_actual(
                            forecast.y,
                            forecast.mean,
                            forecast.std,
                            label=label,
                            ax=new_axes(),
                        )
                    ),
                    "Rows close to the diagonal are predicted well; about 95 % of the "
                    "bars should reach it.",
                ),
                Picture(
                    error_by_spread(forecast.std, forecast.error),
                    "Groups of rows by predicted deviation. On the diagonal, rows that "
                    "are said to be uncertain have as large errors as is said.",
                ),
            ],
        )
    ]
    if forecast.pit is not None:
        sections.append(_calibration(forecast))
    return [
        *sections,
        _selection(forecast),
        _worst(forecast, x, names),
        _parts(forecast, label),
    ]


def _calibration(forecast: Forecast) -> Section:
    pit = forecast.pit
    assert pit is not None
    rows = []
    for level, (lower, upper) in forecast.intervals.items():
        inside = ((lower <= forecast.y) & (forecast.y <= upper)).mean()
        chance = 2.0 * np.sqrt(level * (1.0 - level) / len(pit))
        width = float(np.mean(upper - lower))
        verdict = "as stated"
        if abs(inside - level) > chance:
            verdict = "too narrow" if inside < level else "too wide"
        # Intervals of whole numbers have at least their probability.
        if forecast.is_discrete and inside > level:
            verdict = "at least as stated"
        rows.append(
            (f"{level:.0%}", f"{inside:.1%}", f"± {chance:.1%}", width, verdict)
        )
    error = float(metrics.quantile_calibration_error(np.asarray(pit, np.float32)))
    return Section(
        "Calibration",
        [
            Table(
                ("interval", "covers", "chance", "mean width", "verdict"),
                rows,
                f"Chance: two standard errors of {len(pit)} independent rows. The mean "
                "difference between a quantile's level and the fraction of outcomes "
                f"below it is {error:.3f}.",
            ),
            Picture(
                figure_of(coverage_curve(pit, ax=new_axes(4.8, 4.2))),
                "Nominal against empirical coverage: below the diagonal intervals are "
                "too narrow.",
            ),
            Picture(
                figure_of(pit_histogram(pit, num_bins=_bins(len(pit)), ax=new_axes())),
                "PIT: flat if calibrated, a U if too certain, a hump if not certain "
                "enough, a slope if biased.",
            ),
        ],
    )


def _bins(entries: int) -> int:
    """About ten rows in a bar, in 5 to 20 bars."""
    return int(np.clip(entries // 10, 5, 20))


def _selection(forecast: Forecast) -> Section:
    losses = np.asarray(forecast.error**2, np.float32)
    spreads = {
        "total deviation": forecast.std,
        "epistemic deviation": forecast.epistemic,
        "by chance": None,
    }
    curves = {
        name: metrics.risk_coverage(
            losses, np.asarray(s if s is not None else 0.0 * forecast.std, np.float32)
        )
        for name, s in spreads.items()
    }
    ax = risk_coverage_curves(curves, risk_label="mean squared error", ax=new_axes())
    return Section(
        "Keeping the certain rows",
        [
            Picture(
                figure_of(ax),
                "Error of the rows that are kept when the most uncertain are left to "
                "somebody else. A useful uncertainty falls to the left.",
            )
        ],
    )


def _worst(forecast: Forecast, x: Any, names: Sequence[str]) -> Section:
    scaled = forecast.error / np.maximum(forecast.std, 1e-30)
    belief = forecast.log_prob
    if belief is None:
        belief = np.full(int(forecast.row.max()) + 1, np.inf)
        np.minimum.at(belief, forecast.row, -scaled)
    order = np.argsort(belief)[:NUM_WORST]
    inputs, names = shown_inputs(x, names)
    head = ["row", "log-density", "observed", "predicted", "sd", "errors in sd", *names]
    rows = []
    for row in order:
        entries = np.flatnonzero(forecast.row == row)
        if not len(entries):
            continue
        entry = entries[np.argmax(scaled[entries])]
        rows.append(
            (
                int(row),
                np.nan if forecast.log_prob is None else float(belief[row]),
                float(forecast.y[entry]),
                float(forecast.mean[entry]),
                float(forecast.std[entry]),
                float(scaled[entry]),
                *(inputs[row] if inputs is not None else ()),
            )
        )
    return Section(
        "Worst rows",
        [
            Text(
                "The rows that the model believed least. Look at them first: a wrong "
                "label, a unit that changed, a kind of row that training did not have."
            ),
            Table(head, rows, "Rows are counted from 0."),
        ],
    )


def _parts(forecast: Forecast, label: str) -> Section:
    epistemic, aleatoric = forecast.epistemic**2, forecast.aleatoric**2
    share = float(epistemic.sum() / max((epistemic + aleatoric).sum(), 1e-300))
    return Section(
        "What kind of uncertainty",
        [
            Text(
                f"{share:.0%} of the predicted variance is epistemic: more data like "
                "the training rows would take it away. The rest is noise, which only "
                "better measurements or further inputs would."
            ),
            Picture(
                parts_of_uncertainty(
                    forecast.epistemic, forecast.aleatoric, unit=f"sd of {label}"
                ),
                "Above the diagonal the model does not know these rows; below it the "
                "rows are noisy.",
            ),
        ],
    )


def shown_inputs(x: Any, names: Sequence[str]) -> tuple[Any, Sequence[str]]:
    """Return up to six columns of inputs as they are, and their names."""
    if x is None or np.ndim(x) != 2:
        return None, ()
    array = np.asarray(x)[:, :6]
    default = [f"x{i}" for i in range(array.shape[1])]
    return array.tolist(), list(names)[: array.shape[1]] or default
