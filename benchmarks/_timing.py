"""Fair timing: variants in separate processes, interleaved, medians of the rounds.

JAX and PyTorch keep thread pools that starve each other when they live in one process,
and a machine's speed drifts over minutes. So each variant is a process that warms up,
then measures one round whenever it is told to; the variants take turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable

Round = Callable[[], float]


def pinned_arguments(doc: str | None, names: Iterable[str]) -> argparse.Namespace:
    """Options of a benchmark whose processes stay on some cores, as this one does."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--cores", type=int, default=1, help="cores for each process")
    parser.add_argument("--variant", choices=names, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    return arguments


def serve(make: Callable[[], Round]) -> None:
    """The side of the variant: one figure on standard output for each line read."""
    figures = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what else prints must not be read as a figure
    measure = make()
    print("ready", file=figures, flush=True)
    for _ in sys.stdin:
        print(measure(), file=figures, flush=True)


class Variant:
    """A process that measures rounds of one variant of a benchmark module."""

    def __init__(self, module: str, name: str, *arguments: str):
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "--variant", name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"variant {self.name} ended: run it alone to see why")
        return line

    def wait(self) -> None:
        """Until it is warm."""
        self._line()

    def round(self) -> float:
        """One measurement."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def alternate(
    module: str, names: Iterable[str], *, rounds: int, arguments: Iterable[str] = ()
) -> dict[str, list[float]]:
    """Figures of each variant, the variants taking turns in each round."""
    variants = []
    for name in names:
        variant = Variant(module, name, *arguments)
        variant.wait()  # one at a time: compiling beside a neighbour helps nobody
        variants.append(variant)
    figures: dict[str, list[float]] = {variant.name: [] for variant in variants}
    try:
        for _ in range(rounds):
            for variant in variants:
                figures[variant.name].append(variant.round())
    finally:
        for variant in variants:
            variant.close()
    return figures


def medians(figures: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in figures.items()}


def report(title: str, rows: Iterable[tuple[str, ...]], figures: dict) -> None:
    """A table, then the figures as one line of JSON."""
    rows = [tuple(map(str, row)) for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    print(title)
    for number, row in enumerate(rows):
        cells = (
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells))
        if number == 0:
            print("-" * (sum(widths) + 2 * (len(widths) - 1)))
    print(json.dumps(figures))
