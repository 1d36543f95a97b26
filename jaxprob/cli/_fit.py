"""`jaxprob fit`: train on a table, or a diffusion model on arrays and images."""

import time
from collections.abc import Sequence
from pathlib import Path

from ._config import Config, TableConfig
from ._errors import INTERRUPTED, CommandError
from ._parse import parse
from ._run import Run, digest


def run(words: Sequence[str]) -> int:
    """Train by a configuration, after data and settings were checked."""
    config = parse("fit", words)
    if config is None:
        return 0
    if config.out and Path(config.out).exists():
        raise CommandError(
            f"{config.out} exists: give another --out, or go on with that run by "
            f"`jaxprob resume {config.out}`"
        )
    train = trainer_of(config)
    made = Run.create(
        config, {"path": config.data, "sha256": digest(config.data), **train.facts}
    )
    print(f"run folder: {made.folder}")
    finish(made, train)
    return 0


def trainer_of(config: Config):
    """Return the training of a configuration, with its data read and checked."""
    if isinstance(config, TableConfig):
        from ._fit_table import TableTraining

        return TableTraining(config)
    from ._fit_diffusion import DiffusionTraining

    return DiffusionTraining(config)


def finish(made: Run, train) -> None:
    """Train, save the model and note the end, or the interruption, in the record."""
    begin = time.process_time()
    try:
        train.run(made)
    except (KeyboardInterrupt, SystemExit) as stop:
        made.note(status="interrupted")
        # Of SIGTERM or SIGUSR1 the code is another one, which schedulers read.
        given = stop.code if isinstance(stop, SystemExit) else None
        code = given if isinstance(given, int) and given else INTERRUPTED
        raise CommandError(
            f"interrupted: go on with `jaxprob resume {made.folder}`",
            code,
        ) from stop
    except BaseException as error:
        made.note(status="failed", error=" ".join(str(error).split())[:500])
        raise
    seconds = round(time.process_time() - begin, 1)
    made.note(status="finished", processor_seconds=seconds)
    print(f"finished after {seconds:.0f} s of processor time: {made.folder}")
    print(f"next: jaxprob report {made.folder}")
