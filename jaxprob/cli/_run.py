"""The folder of a run: configuration, record, model, scores."""

import datetime
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._config import Config
from ._errors import CommandError
from ._parse import config_of, resolved
from ._versions import command_line, git_state, versions

CONFIG, RECORD, MODEL = "config.yaml", "run.json", "model.safetensors"
SCORES, REPORT, CHECKPOINTS = "scores.json", "report.html", "checkpoints"


class Run:
    """A folder that `fit` wrote.

    **Arguments:**

    - `folder`: it has a configuration and a record.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise CommandError(f"{folder} is no folder: give one that `fit` wrote")
        for name in (CONFIG, RECORD):
            if not (self.folder / name).is_file():
                raise CommandError(
                    f"{folder} holds no {name}, so it is no run: give a folder that "
                    "`jaxprob fit` wrote"
                )
        import yaml

        self.record: dict[str, Any] = json.loads((self.folder / RECORD).read_text())
        self.config: Config = config_of(
            yaml.safe_load((self.folder / CONFIG).read_text())
        )

    @classmethod
    def create(cls, config: Config, data: Mapping[str, Any]) -> "Run":
        """Make the folder of a new run, with its configuration and record in it.

        It appears under its name with both files in it, or not at all.

        **Raises:** `CommandError` if `out` exists.
        """
        import yaml

        place = Path(config.out) if config.out else _free(Path(config.data).stem)
        if place.exists():
            raise CommandError(
                f"{place} exists: give another --out, or go on with that run by "
                f"`jaxprob resume {place}`"
            )
        record = {
            "status": "running",
            "command": command_line(),
            "started": _now(),
            "seed": config.seed,
            "versions": versions(),
            "git": git_state(Path.cwd()),
            "data": dict(data),
        }
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{uuid.uuid4().hex}.jaxprob-partial")
        try:
            partial.mkdir()
            text = yaml.safe_dump(resolved(config), sort_keys=False)
            write_text(partial / CONFIG, text)
            write_text(partial / RECORD, json.dumps(record, indent=2))
            os.rename(partial, place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return cls(place)

    def note(self, **values: Any) -> None:
        """Add values to the record."""
        self.record |= values
        write_text(self.folder / RECORD, json.dumps(self.record, indent=2))

    @property
    def model(self) -> Path:
        """The file of the trained model.

        **Raises:** `CommandError` if the run has not ended.
        """
        path = self.folder / MODEL
        if not path.is_file():
            raise CommandError(
                f"{self.folder} has no model yet, its status is "
                f"{self.record['status']!r}: go on with `jaxprob resume {self.folder}`"
            )
        return path

    def check_data(self) -> None:
        """Raise if the data have changed since the fit, whose split they define."""
        stored = self.record["data"].get("sha256")
        if stored is not None and digest(self.config.data) != stored:
            raise CommandError(
                f"{self.config.data} has changed since the fit, so that its held-out "
                "rows are not known: give a file of new rows"
            )


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    from .._io.atomic import replace_whole  # JAX, which a help text has no need of

    replace_whole(path, lambda place: place.write_text(text + "\n", encoding="utf-8"))


def digest(path: str | Path) -> str:
    """Return the SHA-256 of a file, of a folder that of names and sizes."""
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        lines = [f"{p.relative_to(path)} {p.stat().st_size}" for p in files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _free(stem: str) -> Path:
    """Return `runs/STEM`, with a number if that exists."""
    place, number = Path("runs") / stem, 1
    while place.exists():
        number += 1
        place = Path("runs") / f"{stem}-{number}"
    return place


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
