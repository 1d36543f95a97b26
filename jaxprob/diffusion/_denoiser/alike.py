"""Check that denoisers differ in their weights alone."""

from collections.abc import Mapping

import equinox as eqx
import jax

from .denoiser import AbstractDenoiser, check_denoiser


def check_alike(denoisers: Mapping[str, AbstractDenoiser]) -> None:
    """Check that denoisers are one network with one schedule and units of the data.

    **Arguments:**

    - `denoisers`: by the name that an error has for each; the first is the measure.

    **Raises:** `ValueError` for another structure, shape, or setting.
    """
    for denoiser in denoisers.values():
        check_denoiser(denoiser)
    (name, first), *others = denoisers.items()
    arrays, rest = eqx.partition(first, eqx.is_array)
    shapes = [leaf.shape for leaf in jax.tree.leaves(arrays)]
    for other_name, denoiser in others:
        there, other_rest = eqx.partition(denoiser, eqx.is_array)
        same = jax.tree.structure(there) == jax.tree.structure(arrays)
        same = same and [leaf.shape for leaf in jax.tree.leaves(there)] == shapes
        if not same or not eqx.tree_equal(other_rest, rest):
            raise ValueError(
                f"{other_name} has another structure than {name}: both are the same "
                "network with the same schedule, settings and units of the data, and "
                "other weights"
            )
