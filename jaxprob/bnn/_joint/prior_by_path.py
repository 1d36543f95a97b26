"""A prior for each part of a model."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import equinox as eqx
import numpyro.distributions as dist

from .prior import Prior, prior_at


class PriorByPath(eqx.Module):
    """A prior for each part of the model; the first pattern that matches is used.

    ```python
    prior = PriorByPath({"layers.0": IsotropicNormal(0.1), "*": FanInNormal()})
    ```

    **Arguments:**

    - `priors`: a prior for each pattern. A pattern is a path, the path of a part, or
        contains `*` for anything.

    **Raises:** `ValueError` at a leaf that no pattern matches.
    """

    # No dictionary: JAX sorts the keys of one that goes through jit or a tree map, and
    # "*" comes before all letters.
    patterns: tuple[str, ...] = eqx.field(static=True)
    parts: tuple[Any, ...]

    def __init__(self, priors: Mapping[str, Prior]):
        self.patterns = tuple(priors)
        self.parts = tuple(priors.values())

    @property
    def priors(self) -> dict[str, Any]:
        """The prior of each pattern, in the order of matching."""
        return dict(zip(self.patterns, self.parts, strict=True))

    def __call__(self, path: str, leaf: Any) -> dist.Distribution:
        for pattern, prior in self.priors.items():
            if fnmatchcase(path, pattern) or fnmatchcase(path, pattern + ".*"):
                return prior_at(prior, path, leaf)
        raise ValueError(
            f"no prior for the leaf {path}: the patterns are {list(self.priors)}. Add "
            "'*' as the last one for all other leaves."
        )
