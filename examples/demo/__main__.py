"""`python -m examples.demo [--out FOLDER] [--quick]`."""

import argparse
import pathlib
import time

import matplotlib

from . import classification, diffusion, regression
from .console import quiet_lightning, title

PARTS = {
    "Bayesian regression: progression of diabetes": regression.run,
    "Bayesian classification: handwritten digits": classification.run,
    "Diffusion: drawing handwritten digits": diffusion.run,
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/demo"))
    parser.add_argument(
        "--quick", action="store_true", help="a few steps only: to see that it runs"
    )
    options = parser.parse_args(arguments)
    matplotlib.use("agg")
    quiet_lightning()
    options.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    for name, part in PARTS.items():
        title(name)
        part(options.out, quick=options.quick)
    print(f"\nAll three took {time.perf_counter() - begin:.0f} s.")
    print(f"Pictures: {', '.join(str(p) for p in sorted(options.out.glob('*.png')))}")


if __name__ == "__main__":
    main()
