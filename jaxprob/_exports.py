"""The list `__all__` of a package, read from its table of contents."""

import sys
from types import ModuleType


def public_names(package: str, *subpackages: str) -> list[str]:
    """Return the names that a package has imported as `X as X`, in their order.

    A name without a leading underscore is public. Modules are not, except for the
    `subpackages` that are named: importing `jaxprob.bnn._joint.prior` makes `_joint` an
    attribute of the package, and importing `jaxprob.diffusion.nn` makes `nn` one.
    """
    return [
        name
        for name, value in vars(sys.modules[package]).items()
        if not name.startswith("_")
        and (name in subpackages or not isinstance(value, ModuleType))
    ]
