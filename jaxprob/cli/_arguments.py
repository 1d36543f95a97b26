"""Command lines of the sub-commands that have no configuration file."""

import argparse
from typing import NoReturn

from ._errors import CommandError


class Arguments(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise the message, with the command whose help lists the options."""
        raise CommandError(f"{message}. `{self.prog} --help` lists the options")


def parser(name: str, description: str) -> Arguments:
    """Return the parser of a sub-command."""
    return Arguments(
        prog=f"jaxprob {name}", description=description, allow_abbrev=False
    )


def run_parser(name: str, description: str) -> Arguments:
    """Return the parser of a sub-command about a run."""
    made = parser(name, description)
    made.add_argument("run", metavar="RUN", help="folder that `jaxprob fit` wrote")
    return made


def count(text: str) -> int:
    """Return a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def level(text: str) -> float:
    """Return a probability inside of (0, 1)."""
    value = float(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 1")
    return value
