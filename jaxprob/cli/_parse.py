"""Reading of a configuration from flags and YAML, by jsonargparse."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from ._config import (
    Config,
    DiffusionConfig,
    TableConfig,
    check_keys,
    check_values,
    kind_of,
)
from ._errors import CommandError, nearest

TEXTS = ("data", "target", "out", "method", "task", "effort", "noise", "network")
LISTS = ("hidden", "features")
READABLE = {"'int'": "a whole number", "'float'": "a number", "'str'": "text",
            "'bool'": "true or false"}  # fmt: skip


def parse(name: str, words: Sequence[str]) -> Config | None:
    """Return the configuration of a command line; `None` after its help was shown.

    Flags replace keys of the file, wherever `--config` stands among them.
    """
    if not words or "-h" in words or "--help" in words:
        for kind in (TableConfig, DiffusionConfig):
            _parser(name, kind).print_help()
            print()
        return None
    words = _with_equals(words)
    if words and not words[0].startswith("-"):
        words = [f"--data={words[0]}", *words[1:]]
    from_file, place = _file(words)
    words = [word for word in words if not word.startswith("--config=")]
    given = [word.split("=", 1)[1] for word in words if word.startswith("--data=")]
    data = given[-1] if given else from_file.get("data")
    if data is None:
        raise CommandError("no data: `jaxprob fit DATA`, or data: in the YAML file")
    kind = kind_of(str(data))
    check_keys(from_file, kind, place)
    _check_flags(words, kind)
    return check_values(_read(_parser(name, kind), kind, from_file, words))


def config_of(stored: dict[str, Any]) -> Config:
    """Return the configuration that a run folder holds."""
    kind = TableConfig if "target" in stored else DiffusionConfig
    check_keys(stored, kind, "the configuration of the run")
    return _read(_parser("resume", kind), kind, stored, [])


def resolved(config: Config) -> dict[str, Any]:
    """Return all keys of a configuration, as YAML holds them."""
    values = asdict(config)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _with_equals(words: Sequence[str]) -> list[str]:
    """Join a flag and the word after it, `--seed 3` to `--seed=3`."""
    joined: list[str] = []
    for word in words:
        before = joined[-1] if joined else ""
        if not word.startswith("--") and before.startswith("--") and "=" not in before:
            joined[-1] = f"{before}={word}"
        else:
            joined.append(word)
    return [
        word if "=" in word or not word.startswith("--") else f"{word}=true"
        for word in joined
    ]


def _file(words: Sequence[str]) -> tuple[dict[str, Any], str]:
    paths = [word.split("=", 1)[1] for word in words if word.startswith("--config=")]
    if not paths:
        return {}, ""
    import yaml

    place = paths[-1]
    if not Path(place).is_file():
        raise CommandError(f"{place} does not exist: check the path after --config")
    try:
        values = yaml.safe_load(Path(place).read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise CommandError(f"{place} is no YAML: {text}") from None
    if not isinstance(values, dict):
        raise CommandError(f"{place} holds no keys: write lines such as `seed: 0`")
    return values, place


def _check_flags(words: Sequence[str], kind: type[Config]) -> None:
    names = [field.name for field in fields(kind)]
    for word in words:
        flag = word.split("=", 1)[0]
        if flag.startswith("--") and flag[2:].replace("-", "_") in names:
            continue
        known = [f"--{name.replace('_', '-')}" for name in names]
        found = difflib.get_close_matches(flag, known, n=1)
        hint = f"; did you mean {found[0]!r}?" if found else ""
        raise CommandError(
            f"no option {flag!r} for this kind of data{hint or '; see --help'}"
        )


def _parser(name: str, kind: type[Config]) -> Any:
    import jsonargparse

    about = "a table" if kind is TableConfig else "arrays or images"
    made = jsonargparse.ArgumentParser(
        prog=f"jaxprob {name}",
        description=f"On {about}: `jaxprob {name} DATA`, options, and keys of a "
        "--config file.yaml:",
        exit_on_error=False,
        default_env=False,
    )
    helps = dict(re.findall(r"- `(\w+)`: (.*)", kind.__doc__ or ""))
    for field in fields(kind):
        settings: Any = {"required": True}
        if field.default is not MISSING:
            settings = {"default": field.default}
        made.add_argument(
            f"--{field.name}",
            type=field.type,
            help=helps[field.name],
            **settings,
        )
    return made


def _read(parser: Any, kind: type[Config], file: dict[str, Any], words: Any) -> Config:
    import jsonargparse

    values = {**file, **dict(map(_value, words))}
    try:
        space = parser.parse_object(values)
    except (jsonargparse.ArgumentError, TypeError, ValueError) as error:
        raise CommandError(_short(error)) from None
    found = {field.name: space[field.name] for field in fields(kind)}
    if kind is TableConfig:
        found["hidden"] = tuple(found["hidden"])
    return kind(**found)


def _value(word: str) -> tuple[str, Any]:
    """Return the key and the value of a flag; text stays text, such as `--target=1`."""
    import yaml

    flag, _, text = word.partition("=")
    key = flag[2:].replace("-", "_")
    if key in TEXTS:
        return key, text
    if key in LISTS and not text.startswith("["):
        text = f"[{text}]"
    value = yaml.safe_load(text)
    return key, list(map(str, value)) if key == "features" and value else value


def _short(error: Exception) -> str:
    """Return a message of jsonargparse as one line."""
    text = " ".join(str(error).split())
    wrong = re.match(r'Parser key "(\w+)": Expected an? (.*?)\. Got value: (.*)', text)
    if wrong:
        kind = wrong[2].replace("typing.", "").replace("<class ", "").replace(">", "")
        kind = READABLE.get(kind, kind)
        if kind.startswith("Literal["):
            options = [word.strip(" '") for word in kind[8:-1].split(",")]
            kind = f"one of {', '.join(options)}{nearest(wrong[3], options)}"
        return f"{wrong[1]}={wrong[3]}: give {kind}"
    missing = re.match(r".*arguments are required: (.*)", text)
    if missing:
        return f"no {missing[1]}: give --{missing[1]}, or the key in the YAML file"
    return text if len(text) < 300 else text[:297] + "..."
