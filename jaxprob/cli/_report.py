"""`jaxprob report`: one HTML page about a run."""

from collections.abc import Sequence
from pathlib import Path

from ._arguments import run_parser
from ._config import TableConfig
from ._evaluate import diffusion_rows
from ._load import diffusion_run
from ._run import REPORT, Run


def run(words: Sequence[str]) -> int:
    """Write the page, by default into the run's folder."""
    made = run_parser("report", "Write one HTML page about a run.")
    made.add_argument(
        "data", metavar="DATA", nargs="?", help="new rows; by default those held out"
    )
    made.add_argument(
        "--num-likelihoods",
        type=int,
        default=0,
        help="rows whose density under a diffusion model is computed, which takes "
        "hundreds of evaluations for each",
    )
    made.add_argument("--out", help="the page; RUN/report.html by default")
    given = made.parse_args(words)
    found = Run(given.run)
    place = Path(given.out) if given.out else found.folder / REPORT
    if isinstance(found.config, TableConfig):
        from ._report_table import table_report

        report = table_report(found, given.data)
    else:
        from ..report import diffusion_report

        denoiser, scaler, _ = diffusion_run(found, "report")
        real, labels, train = diffusion_rows(found, given.data)
        report = diffusion_report(
            denoiser,
            real,
            train=train,
            cond=labels,
            x_scaler=scaler,
            num_likelihoods=given.num_likelihoods,
            title=f"Diffusion model of {Path(found.config.data).name}",
        )
    report.save(place)
    print(f"report: {place}")
    return 0
