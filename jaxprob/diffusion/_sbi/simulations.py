"""Pairs of parameters and observations, and those that failed."""

import warnings

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree


class Simulations(eqx.Module):
    """Parameters and the observations that a simulator made of them.

    **Fields:**

    - `theta`: parameters, a tree of arrays with a leading axis.
    - `x`: observations, a tree of arrays with the same leading axis.
    - `num_failed`: simulations that were left out: those that raised, and those with an
        entry that is not finite.
    """

    theta: PyTree
    x: PyTree
    num_failed: int = 0

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.theta)[0])

    def __getitem__(self, rows: slice | np.ndarray) -> "Simulations":
        """Return some of the simulations."""
        theta, x = jax.tree.map(lambda leaf: leaf[rows], (self.theta, self.x))
        return Simulations(theta, x, self.num_failed)


def finite_simulations(
    theta: PyTree, x: PyTree, *, missing: bool, failed: np.ndarray, reasons: list[str]
) -> Simulations:
    """Return the simulations that worked, and warn of the others.

    **Arguments:**

    - `missing`: whether NaN is an entry that was not observed, and no failure.
    - `failed`: which rows raised.
    - `reasons`: errors of those that raised.

    **Raises:** `ValueError` if none worked.
    """
    good = ~failed
    for leaf in jax.tree.leaves(x):
        if np.issubdtype(leaf.dtype, np.inexact):
            bad = np.isinf(leaf) if missing else ~np.isfinite(leaf)
            good &= ~bad.reshape(len(leaf), -1).any(axis=1)
    num_failed = int((~good).sum())
    if not good.any():
        cause = f": {reasons[0]}" if reasons else ", or gave NaN"
        raise ValueError(f"all {len(good)} simulations failed{cause}")
    if num_failed:
        raised = int(failed.sum())
        first = f", the first with {reasons[0]}" if reasons else ""
        warnings.warn(
            f"{num_failed} of {len(good)} simulations are left out: {raised} raised"
            f"{first}; {num_failed - raised} gave an entry that is not finite. The "
            "posterior is then that of a simulator that does not fail: its prior is "
            "lower where failures are frequent. If NaN marks entries that were not "
            "observed, give missing=True",
            stacklevel=3,
        )
    theta, x = jax.tree.map(lambda leaf: np.asarray(leaf)[good], (theta, x))
    return Simulations(theta, x, num_failed)
