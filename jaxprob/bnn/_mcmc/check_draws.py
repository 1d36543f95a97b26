"""Errors and warnings about draws, before they become a posterior."""

import warnings

import numpy as np
from jaxtyping import Float, Int

from .weight_vector import WeightVector

FEW_DRAWS = 10
"""With fewer draws, all may be equal by chance."""

FEW_MOVES = 0.1
SMALL_SPREAD = 1e-3


def check_draws(
    draws: Float[np.ndarray, "chains draws dim"], leaves: WeightVector, remedy: str
) -> None:
    """Check that draws are finite and that the chains moved.

    **Arguments:**

    - `draws`: in the order in which they were made.
    - `leaves`: name the entries of a draw.
    - `remedy`: what to change where draws are not finite.

    **Raises:** `ValueError` that names the chain, and the leaf of a draw that is not
    finite. Warns as `check_moved` does.
    """
    bad = ~np.isfinite(draws)
    if bad.any():
        chain, draw, index = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"draw {draw} of chain {chain} is not finite at {leaves.path(index)}: the "
            f"chain diverged. {remedy}."
        )
    check_moved(draws)


def check_moved(draws: Float[np.ndarray, "chains draws dim"]) -> None:
    """Check that draws come from chains that moved.

    A step size that has collapsed, or one so large that each proposal is rejected,
    leaves draws that are finite and equal, which look like a posterior without spread.

    **Raises:** `ValueError` for a chain all of whose draws are equal. Warns of one that
    moved in less than a tenth of its transitions, and of chains that are a thousand
    times further apart than any of them has moved.
    """
    num_chains, num_draws, _ = draws.shape
    if num_draws < FEW_DRAWS:
        return
    moves = np.mean(np.any(draws[:, 1:] != draws[:, :-1], axis=2), axis=1)
    chain = int(moves.argmin())
    if moves[chain] == 0.0:
        raise ValueError(
            f"chain {chain} never moved: its {num_draws} draws are equal. All of its "
            "proposals were rejected, or its step size rounds to zero: lower the step "
            "size, or let num_warmup find one; for SGLD and SGHMC raise the learning "
            "rate"
        )
    if moves[chain] < FEW_MOVES:
        warnings.warn(
            f"chain {chain} moved in {moves[chain]:.1%} of its transitions: few of its "
            f"{num_draws} draws are different ones. Lower the step size, or let "
            "num_warmup find one",
            stacklevel=5,
        )
    if num_chains == 1:
        return
    within = draws.std(axis=1).max(axis=0)
    between = draws.mean(axis=1).std(axis=0)
    apart = between > 0
    if apart.any() and np.median(within[apart] / between[apart]) < SMALL_SPREAD:
        warnings.warn(
            f"the {num_chains} chains lie over {1 / SMALL_SPREAD:.0f} times further "
            "apart than any of them has moved: they are where they started. Raise the "
            "step size or the learning rate, or make more transitions",
            stacklevel=5,
        )


def check_num_divergences(
    divergences: Int[np.ndarray, " chains"], num_transitions: int, remedy: str
) -> None:
    """Raise `ValueError` for a chain that always diverged; warn of divergences.

    **Arguments:**

    - `divergences`: how many transitions of each chain diverged.
    - `num_transitions`: how many transitions each chain made.
    - `remedy`: what to change.
    """
    if divergences.max() >= num_transitions:
        raise ValueError(
            f"chain {int(divergences.argmax())} diverged in each of its "
            f"{num_transitions} transitions and never moved. {remedy}."
        )
    if divergences.any():
        listing = ", ".join(f"chain {i} in {n}" for i, n in enumerate(divergences) if n)
        warnings.warn(
            f"transitions diverged, of {num_transitions} each: {listing}. Draws near "
            f"there are missing and the posterior is biased. {remedy}.",
            stacklevel=4,
        )
