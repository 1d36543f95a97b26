"""Dispatch of the sub-commands. Nothing heavy is imported before it is needed."""

import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from .._version import __version__
from ._errors import INTERRUPTED, CommandError, nearest, one_line

COMMANDS = {
    "fit": "train on a table (CSV, Parquet) or on arrays and images",
    "predict": "predict the rows of a table with a trained run",
    "sample": "draw samples from a trained diffusion model",
    "evaluate": "print scores of a run on held-out rows",
    "report": "write one HTML page about a run",
    "resume": "go on with an interrupted run",
    "cost": "print parameters, memory and seconds of a configuration before it runs",
    "doctor": "check versions, devices, speed and folders of this machine",
}

HELP = "\n".join(
    [
        "usage: jaxprob COMMAND ...",
        "",
        "Probabilistic deep learning on tables and images, without writing Python.",
        "",
        "commands:",
        *(f"  {name:10}{text}" for name, text in COMMANDS.items()),
        "",
        "  jaxprob fit houses.csv --target price --out runs/houses",
        "  jaxprob report runs/houses",
        "",
        "`jaxprob COMMAND --help` lists the options of a command.",
    ]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    **Arguments:**

    - `argv`: words after `jaxprob`; by default those of the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(HELP)
        return 0 if words else 2
    if words[0] == "--version":
        print(f"jaxprob {__version__}")
        return 0
    try:
        return _run(words)
    except BrokenPipeError:
        return 0  # `jaxprob ... | head` has seen enough
    except KeyboardInterrupt:
        print("jaxprob: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("JAXPROB_TRACEBACK"):
            raise
        print(f"jaxprob: error: {one_line(error)}", file=sys.stderr)
        return error.code if isinstance(error, CommandError) else 1


def _run(words: Sequence[str]) -> int:
    name, *rest = words
    if name not in COMMANDS:
        raise CommandError(
            f"no command {name!r}{nearest(name, COMMANDS)} Commands are "
            f"{', '.join(COMMANDS)}"
        )
    module = importlib.import_module(f"._{name}", __package__)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return module.run(rest) or 0


def _show_warning(message, category, filename, lineno, file=None, line=None):
    text = " ".join(str(message).split())
    print(f"jaxprob: warning: {text}", file=sys.stderr)
