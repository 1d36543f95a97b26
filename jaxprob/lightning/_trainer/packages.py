"""Two packages with the same code: `pytorch_lightning`, which we use, and `lightning`.

Their classes have the same names and do not recognise each other.
"""

import sys
import warnings
from typing import Any

_REMEDY = (
    "jaxprob is built on the package pytorch_lightning: write `import "
    "pytorch_lightning as pl` in place of `import lightning as L`, and take the "
    "Trainer, callbacks and loggers from pl"
)
_warned = False


def check_trainer(trainer: Any) -> None:
    """Check the package of a Trainer and of its parts.

    **Raises:** `TypeError` for a class of `lightning`.
    """
    held = [trainer]
    for name in ("callbacks", "loggers"):
        held += list(getattr(trainer, name, None) or ())
    held += [getattr(trainer, name, None) for name in ("strategy", "datamodule")]
    for thing in held:
        check_package(thing)


def check_package(thing: Any) -> None:
    """Check the package of an object.

    **Raises:** `TypeError` for a class of `lightning`.
    """
    for kind in type(thing).__mro__:
        if kind.__module__.partition(".")[0] == "lightning":
            name = f"{kind.__module__}.{kind.__qualname__}"
            raise TypeError(f"{name}, of another package, was given: {_REMEDY}")


def warn_of_other_package() -> None:
    """Warn, once, where `lightning` is imported as well.

    Its Trainer rejects our module as no LightningModule, and names no reason.
    """
    global _warned
    # From inside our own folder, `lightning` is a part of this package.
    other = hasattr(sys.modules.get("lightning"), "LightningModule")
    if (other or "lightning.pytorch" in sys.modules) and not _warned:
        _warned = True
        warnings.warn(
            f"the package lightning is imported as well. {_REMEDY}", stacklevel=4
        )
