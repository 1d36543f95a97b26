"""Outputs that are the logits of classes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..._jaxpr.depends import AFFINE, levels
from ...tree._ravel import ravel
from .families import base, family_of
from .family import Family
from .likelihood import Likelihood


def logit_family(likelihood: Likelihood, output: PyTree) -> Family | None:
    """Return the family of class labels whose logits the outputs are, if they are.

    **Arguments:**

    - `likelihood`: output -> distribution.
    - `output`: shapes and dtypes of one example's output.

    **Returns:** the family; `None` for a distribution that is not over classes, and for
    logits that differ from the outputs, such as scaled ones.
    """
    with jax.ensure_compile_time_eval():
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), output)
        flat, unravel = ravel(zeros)
    found: list[Family] = []

    def logits(flat) -> Any:
        p = base(likelihood(unravel(flat)))
        family = family_of(p)
        found[:] = [family]
        if family.class_logits is None or not family.is_classification:
            return None
        return jnp.ravel(family.class_logits(p))

    if levels(logits, flat) != AFFINE:
        return None
    with jax.ensure_compile_time_eval():
        start, matrix = logits(flat), jax.jacfwd(logits)(flat)
    identical = np.array_equal(matrix, np.eye(flat.size)) and not np.any(start)
    return found[0] if identical else None
