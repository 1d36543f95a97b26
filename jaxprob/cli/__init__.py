"""The command `jaxprob`: from a file of data to a report, without writing Python.

    jaxprob fit houses.csv --target price --out runs/houses
    jaxprob report runs/houses

A run is a folder with the resolved configuration, versions, git state, seed and model.
Every file in it is written whole or not at all. An error is one line on standard error
and an exit code that is not zero. `main` runs a command line.
"""

from .._exports import public_names as _public_names
from ._main import main as main

__all__ = _public_names(__name__)
