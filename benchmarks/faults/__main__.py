"""Runs the campaign, or a part of it, and prints its table."""

import argparse
import os
import tempfile
from collections.abc import Callable
from typing import Any

from .._timing import report
from . import __doc__ as description
from ._disks import disk_campaign
from ._hostile import hostile_campaign
from ._interrupts import interrupt_campaign
from ._kills import kill_campaign
from ._mutants import mutant_campaign
from ._signals import signal_campaign
from ._step_errors import error_campaign
from ._training import training_campaign

PARTS: dict[str, tuple[Callable[..., dict[str, Any]], int]] = {
    "kills": (kill_campaign, 200),
    "training": (training_campaign, 100),
    "signals": (signal_campaign, 60),
    "interrupts": (interrupt_campaign, 200),
    "errors": (error_campaign, 100),
    "disks": (disk_campaign, 20),
    "hostile": (hostile_campaign, 500),
    # Last: it computes in this process, which then forks no more.
    "mutants": (mutant_campaign, 1000),
}
RIVALS = ("kills", "disks")  # where Lightning has a counterpart


def run(name: str, runs: int, seed: int, only: str) -> dict[str, dict[str, Any]]:
    """Counts of one part, by row of the table."""
    campaign, _ = PARTS[name]
    rows: dict[str, dict[str, Any]] = {}
    if only != "lightning":
        found = campaign(runs, seed)
        nested = any(isinstance(value, dict) for value in found.values())
        rows = (
            {f"{name}: {k}": v for k, v in found.items()} if nested else {name: found}
        )
    if only != "ours" and name in RIVALS:
        rows[f"{name}, Lightning's own"] = campaign(runs, seed, rival="lightning")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--part", choices=list(PARTS), action="append")
    parser.add_argument("--runs", type=int, help="faults in each part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a tenth of the faults")
    parser.add_argument("--only", choices=["ours", "lightning"], default="")
    options = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("FAULTS_CACHE", cache)
        for name, (_, usual) in PARTS.items():
            if options.part and name not in options.part:
                continue
            runs = options.runs or (max(usual // 10, 12) if options.quick else usual)
            results |= run(name, runs, options.seed, options.only)
    rows = [("campaign", "what was counted")]
    rows += [
        (name, ", ".join(f"{key} {_shown(value)}" for key, value in counts.items()))
        for name, counts in results.items()
    ]
    report("Faults", rows, results)


def _shown(value):
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
