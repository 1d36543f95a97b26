"""`jaxprob sample`: draws from a trained diffusion model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._arguments import count, run_parser
from ._errors import CommandError, nearest
from ._load import diffusion_run
from ._run import Run


def run(words: Sequence[str]) -> int:
    """Write samples in the units of the data."""
    made = run_parser("sample", "Draw samples from a trained diffusion model.")
    made.add_argument("--num-samples", type=count, default=64)
    made.add_argument(
        "--out", default="samples.npy", help="array (.npy), or a picture (.png)"
    )
    made.add_argument("--class", dest="label", help="draw samples of one class")
    made.add_argument(
        "--guidance", type=float, default=0.0, help="strength of the class"
    )
    made.add_argument("--steps", type=count, default=18, help="steps of the sampler")
    made.add_argument("--seed", type=int, default=0)
    given = made.parse_args(words)
    suffix = Path(given.out).suffix.lower()
    if suffix not in (".npy", ".png"):
        raise CommandError(f"--out {given.out}: give a .npy or a .png file")
    found = Run(given.run)
    denoiser, scaler, _ = diffusion_run(found, "sample")
    shape = tuple(found.record["data"]["shape"])
    if suffix == ".png" and len(shape) != 3:
        raise CommandError(
            f"an example has shape {shape}, which is no image: give .npy"
        )
    cond = _classes(found, given.label, given.num_samples)
    if given.guidance:
        from ..diffusion import Guided

        if cond is None:
            raise CommandError("--guidance acts on a class: the run has no classes")
        denoiser = Guided(denoiser, given.guidance)
    samples = draw(
        denoiser, scaler, shape, given.num_samples, given.steps, given.seed, cond
    )
    from .._io.atomic import replace_whole

    if suffix == ".npy":
        replace_whole(Path(given.out), lambda partial: _write(partial, samples))
    else:
        _picture(Path(given.out), samples)
    print(f"{len(samples)} samples: {given.out}")
    return 0


def draw(
    denoiser: Any,
    scaler: Any,
    shape: Any,
    num_samples: int,
    steps: int,
    seed: int,
    cond: Any,
) -> np.ndarray:
    """Return samples in the units of the data."""
    import jax

    from .. import diffusion

    draws = diffusion.sample(
        denoiser,
        diffusion.ExpAB(steps),
        key=jax.random.key(seed),
        num_samples=num_samples,
        shape=shape,
        cond=cond,
    )
    return scaler.inverse(np.asarray(draws.x_0)).astype(np.float32)


def _classes(found: Run, label: str | None, num_samples: int) -> np.ndarray | None:
    """Return a class for each sample: the one asked for, or all in turn."""
    names = found.record["data"]["classes"]
    if not names:
        if label is not None:
            raise CommandError(f"--class {label}: the run has no classes")
        return None
    if label is None:
        return (np.arange(num_samples) % len(names)).astype(np.int32)
    if label not in names:
        hint = nearest(label, names) or f"; its classes are {', '.join(names[:12])}"
        raise CommandError(f"the run has no class {label!r}{hint}")
    return np.full(num_samples, names.index(label), np.int32)


def _write(path: Path, samples: np.ndarray) -> None:
    with path.open("wb") as file:  # `np.save` of a name adds .npy to it
        np.save(file, samples)


def _picture(path: Path, samples: np.ndarray) -> None:
    from .._io.atomic import replace_whole
    from ..plot import sample_grid

    figure = sample_grid(samples, limits=(0.0, 1.0), titles=("", ""))
    replace_whole(path, lambda partial: figure.savefig(partial, format="png"))
