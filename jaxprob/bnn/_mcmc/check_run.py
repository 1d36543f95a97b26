"""Errors and warnings about a run of chains: at its start, on its way, at its end."""

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Int, PyTree

from ..._jaxpr.host_errors import checks_give_nan
from ..._training.capabilities import AbstractAcceptReject
from ..._training.divergence import has_diverged
from ..._training.non_finite import restored
from .chains import AbstractChains, ChainState
from .weight_vector import WeightVector

FEW_TRANSITIONS = 10
"""In fewer, a chain that moved before may diverge in each of them."""

NEVER = np.iinfo(np.int32).max
"""First bad transition of a chain whose positions are all finite."""


class ChainError(FloatingPointError):
    """Error of a chain whose position is not finite, or which never moves again.

    **Fields:**

    - `state`: the last good state; `method.posterior(error.state)` gives the draws up
        to it. Of a run on disk the folder holds the same, and its earlier draws.
    """

    def __init__(self, message: str, state: ChainState):
        super().__init__(message)
        self.state = state

    def __reduce__(self):
        return restored, (type(self), self.args, vars(self))


def check_start(method: AbstractChains, state: ChainState, data: PyTree) -> None:
    """Raise `ValueError` for a start without a finite density and gradient."""

    def value(vector):
        return method.log_density(state.model, vector, data)

    slopes = checks_give_nan(jax.value_and_grad(value))
    values, grads = jax.jit(jax.vmap(slopes))(state.position)
    for chain, (density, grad) in enumerate(
        zip(np.asarray(values), np.asarray(grads), strict=True)
    ):
        if np.isfinite(density) and np.isfinite(grad).all():
            continue
        found = f"the log density {density}"
        if np.isfinite(density):
            leaves = WeightVector.of(state.model, method.random)
            path = leaves.path(int(np.argmin(np.isfinite(grad))))
            found = f"a gradient that is not finite at {path}"
        raise ValueError(
            f"chain {chain} starts with {found}. Start elsewhere (initial='model', "
            "'map' or the posterior of an ensemble), or look at the model and the "
            "scale of the data there."
        )


def check_stretch(
    method: AbstractChains,
    before: ChainState,
    after: ChainState,
    first_bad: Int[np.ndarray, " chains"],
    advance: Callable[[ChainState, int], Any],
) -> None:
    """Raise `ChainError` for a chain that is not finite or diverged all along.

    **Arguments:**

    - `method`: of the run.
    - `before`, `after`: states at both ends of the stretch.
    - `first_bad`: of each chain the first transition to a position that is not finite;
        `NEVER` if there is none.
    - `advance`: makes so many transitions from a state.
    """
    if (first_bad < NEVER).any():
        chain, step = int(first_bad.argmin()), int(first_bad.min())
        # At the end of the stretch all leaves are NaN, so it is run again up to the
        # transition where the first of them is.
        broken, _ = advance(before, step + 1 - int(before.step))
        index = int(np.argmin(np.isfinite(np.asarray(broken.position)[chain])))
        path = WeightVector.of(after.model, method.random).path(index)
        raise ChainError(
            f"chain {chain} is not finite from transition {step} on, first of all at "
            f"{path}. {method.remedy}. The state after {int(before.step)} transitions "
            "is kept.",
            before,
        )
    since = max(int(before.step), method.num_warmup)
    count = int(after.step) - since
    diverged = np.asarray(after.divergences - before.divergences)
    never_moved = np.asarray(after.divergences) >= int(after.step) - method.num_warmup
    stuck = (diverged >= count) & (never_moved | (count >= FEW_TRANSITIONS))
    if count > 1 and stuck.any():
        raise ChainError(
            f"chain {int(stuck.argmax())} diverged in each of the {count} "
            f"transitions from {since} on: it does not move. {method.remedy}. The "
            f"state after {int(before.step)} transitions is kept.",
            before,
        )


def mean_nll(
    method: AbstractChains, data: PyTree, batch_size: int
) -> Callable[[ChainState], float]:
    """Return the mean negative log-likelihood of chains on the first rows of the data.

    It is 0 for samplers that reject what is improbable.
    """
    if isinstance(method, AbstractAcceptReject):
        return lambda state: 0.0
    batch = jax.tree.map(lambda a: a[:batch_size], data)

    @eqx.filter_jit
    def nll(state):
        return method.evaluate(state, batch, key=jax.random.key(0))["nll"]

    return lambda state: float(nll(state))


def warn_if_far(method: AbstractChains, start: float, end: float) -> None:
    """Warn of chains that end where the data are far less probable than at the start.

    **Arguments:**

    - `method`: of the run.
    - `start`, `end`: negative log-likelihoods per row.
    """
    if has_diverged([start, end]):
        warnings.warn(
            f"the negative log-likelihood per row was {start:.4g} where the chains "
            f"started and is {end:.4g} where they end: the chains have diverged, "
            f"though every number is finite. {method.remedy}",
            stacklevel=3,
        )
