"""Command line: write the bits of all rows, or compare them with a file.

    python -m benchmarks.bits --write FILE.json
    python -m benchmarks.bits --against FILE.json [--only "bnn: "]

JAX's persistent cache (`JAX_COMPILATION_CACHE_DIR`) makes a second run faster: its key
is the program itself, so the bits are the same.

With `--against` each row is same, differs, missing or new, and the exit status is 1
where one differs, is missing or raises an error.
"""

import argparse
import concurrent.futures
import importlib.metadata
import json
import multiprocessing
import platform
import sys
import time
from pathlib import Path

from ._record import difference
from ._rows import ROWS, measure


def environment():
    """Return what rounding depends on beside our code."""
    packages = ("jax", "jaxlib", "equinox", "optax", "diffrax", "numpyro", "blackjax")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return versions | {"machine": platform.machine()}


def run(only, workers, progress):
    """Return the record of each row, or the error that it raised."""
    names = [name for name in ROWS if name.startswith(only)]
    # Neighbours share compiled programs, so each process takes some at a time.
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        results = []
        for result in pool.map(measure, names, chunksize=4):
            results.append(result)
            if progress:
                print(f"{result[3]:6.1f} s  {result[0]}", file=sys.stderr, flush=True)
    found = {name: row for name, row, _, _ in results if row is not None}
    errors = {name: error for name, _, error, _ in results if error is not None}
    return found, errors


def judge(old, found, errors):
    """Print the verdict on each row; return how many are not the same."""
    counts = dict.fromkeys(("same", "differs", "missing", "new", "error"), 0)
    for name in dict.fromkeys((*old, *found, *errors)):
        if name in errors:
            verdict, reason = "error", errors[name]
        elif name not in found:
            verdict, reason = "missing", ""
        elif name not in old:
            verdict, reason = "new", ""
        else:
            reason = difference(old[name], found[name])
            verdict = "differs" if reason else "same"
        counts[verdict] += 1
        print(f"{verdict:8s} {name}" + (f"   {reason}" if reason else ""))
    print(", ".join(f"{number} {verdict}" for verdict, number in counts.items()))
    return counts["differs"] + counts["missing"] + counts["error"]


def main():
    """Run the rows, and write or compare them."""
    parser = argparse.ArgumentParser(prog="benchmarks.bits", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", type=Path, help="the file to write")
    action.add_argument("--against", type=Path, help="the file to compare with")
    parser.add_argument("--only", default="", help="rows whose name begins so")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--progress", action="store_true", help="rows on stderr")
    args = parser.parse_args()
    begin = time.perf_counter()
    found, errors = run(args.only, args.workers, args.progress)
    if args.write:
        saved = {"environment": environment(), "rows": found}
        args.write.write_text(json.dumps(saved, indent=0) + "\n")
        for name, error in errors.items():
            print(f"error    {name}   {error}")
        failed = len(errors)
    else:
        saved = json.loads(args.against.read_text())
        if saved["environment"] != environment():
            print(f"warning: written with {saved['environment']}, run {environment()}")
        old = {n: r for n, r in saved["rows"].items() if n.startswith(args.only)}
        failed = judge(old, found, errors)
    print(f"{len(found)} rows in {time.perf_counter() - begin:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
