"""`jaxprob resume`: go on with an interrupted run."""

from collections.abc import Sequence
from pathlib import Path

from ._arguments import run_parser
from ._config import TableConfig
from ._errors import CommandError
from ._fit import finish, trainer_of
from ._run import MODEL, Run


def run(words: Sequence[str]) -> int:
    """Train to the end with the configuration of the folder."""
    made = run_parser(
        "resume",
        "A diffusion model goes on from its newest checkpoint, and a table is trained "
        "again from its seed, both with the result of a run without interruption.",
    )
    found = Run(made.parse_args(words).run)
    if (found.folder / MODEL).is_file():
        raise CommandError(
            f"{found.folder} is finished: for a longer run give `fit` another --out"
        )
    if not Path(found.config.data).exists():
        raise CommandError(
            f"{found.config.data}, the data of this run, does not exist: run the "
            "command in the folder where `fit` was run"
        )
    found.check_data()
    train = trainer_of(found.config)
    if isinstance(found.config, TableConfig):
        print("a table is trained again from its seed")
    found.note(status="running", versions_of_resume=_versions())
    finish(found, train)
    return 0


def _versions() -> dict[str, str]:
    from ._versions import versions

    return versions()
