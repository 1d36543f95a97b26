"""A function of each member of an average."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from .._denoiser.averaged import Averaged
from .._denoiser.denoiser import AbstractDenoiser
from .._schedule.argument_checks import check_kind


def members_of(averaged: Averaged) -> list[AbstractDenoiser]:
    """Return the members of an average, one by one.

    **Raises:** `TypeError` for anything else; `ValueError` for one member, which
    disagrees with nothing, or members that have separate conditions.
    """
    check_kind(
        "averaged", averaged, Averaged, "write Averaged.of([denoiser_1, denoiser_2])"
    )
    if averaged.own_conditions:
        raise ValueError(
            "averaged has own_conditions: here one condition goes to all members. "
            "Average denoisers that read the condition themselves"
        )
    if averaged.num_members < 2:
        raise ValueError(
            "averaged has 1 member, which disagrees with nothing: draw at least two, "
            "Averaged.drawn(posterior.sample, key=key, num_members=5)"
        )

    def member(index):
        return jax.tree.map(
            lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, averaged.members
        )

    return [member(index) for index in range(averaged.num_members)]


def each(
    function: Callable[[AbstractDenoiser], Any], members: list[AbstractDenoiser]
) -> list[Any]:
    """Return the results of a function for each member.

    **Raises:** what the function raises, with the member in a note.
    """
    results = []
    for index, member in enumerate(members):
        try:
            results.append(function(member))
        except Exception as error:
            error.add_note(f"This is member {index} of {len(members)}.")
            raise
    return results
