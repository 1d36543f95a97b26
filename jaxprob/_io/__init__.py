"""Files: written whole, verified when read, and describing what they hold.

    tree -> describe -> (JSON, arrays) -> tensor_file -> atomic -> disk

and back by `rebuild`, from a registry of classes and functions that a file may name.
"""

from .errors import (
    DamagedFileError as DamagedFileError,
    FileMismatchError as FileMismatchError,
)
from .save import load as load, load_weights as load_weights, save as save
