"""One self-contained HTML page about a result: pictures inline, no network, no script.

    report = predictive_report(predictive, y_test, train=(x_train, y_train), x=x_test)
    report.save("report.html")

1. `predictive_report`: the worth of the uncertainty of any `bnn.Predictive`: scores
   beside simple baselines, reliability, PIT, coverage, risk-coverage, the worst rows,
   epistemic against aleatoric.
2. `posterior_report`: R-hat and effective sample sizes, in weights and in functions,
   statistics of the chains, the prior beside the posterior.
3. `diffusion_report`: samples beside data, two-sample figures with those of real rows,
   the nearest training rows, likelihoods.

`Report.joined` makes one page of several. `Section`, `Table`, `Picture` and `Text` are
the parts, for sections about something else. Pages are readable on a phone, in print,
and in light and dark. The module needs matplotlib (`pip install "jaxprob[plot]"`).
"""

from .._exports import public_names as _public_names
from ._parts import (
    Picture as Picture,
    Section as Section,
    Table as Table,
    Text as Text,
)
from ._report import Report as Report
from ._predictive import predictive_report as predictive_report
from ._posterior import posterior_report as posterior_report
from ._diffusion import diffusion_report as diffusion_report

__all__ = _public_names(__name__)
