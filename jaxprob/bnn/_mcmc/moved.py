"""Whether chains have moved since they started."""

import warnings

import numpy as np
from jaxtyping import Float

_FEW = 10  # draws of which all may be one by chance
_STILL = 1e-3


def check_moved(draws: Float[np.ndarray, "chains draws dim"]) -> None:
    """Check that draws are of chains that moved.

    A step size that has collapsed, or one so large that each proposal is refused,
    leaves draws that are finite and equal, which look like a posterior without spread.

    **Raises:** `ValueError` for a chain all of whose draws are equal. Warns of one that
    moved in less than a tenth of its transitions, and of chains that are a thousand
    times further apart than any of them has moved.
    """
    num_chains, num_draws, _ = draws.shape
    if num_draws < _FEW:
        return
    moves = np.mean(np.any(draws[:, 1:] != draws[:, :-1], axis=2), axis=1)
    chain = int(moves.argmin())
    if moves[chain] == 0.0:
        raise ValueError(
            f"chain {chain} never moved: its {num_draws} draws are equal. Its "
            "proposals were all refused, or its step size rounds to zero: lower the "
            "step size, or let num_warmup find one; for SGLD and SGHMC raise the "
            "learning rate"
        )
    if moves[chain] < 0.1:
        warnings.warn(
            f"chain {chain} moved in {moves[chain]:.1%} of its transitions: few of its "
            f"{num_draws} draws are different ones. Lower the step size, or let "
            "num_warmup find one",
            stacklevel=4,
        )
    if num_chains == 1:
        return
    within = draws.std(axis=1).max(axis=0)
    between = draws.mean(axis=1).std(axis=0)
    apart = between > 0
    if apart.any() and np.median(within[apart] / between[apart]) < _STILL:
        warnings.warn(
            f"the {num_chains} chains lie over {1 / _STILL:.0f} times further apart "
            "than any of them has moved: they are where they started. Raise the step "
            "size or the learning rate, or make more transitions",
            stacklevel=4,
        )
