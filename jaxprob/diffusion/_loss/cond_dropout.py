"""Conditions that are left out of some rows in training."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..._types import PRNGKey
from .._types import Cond
from ..nn import Condition, as_condition

Rates: TypeAlias = float | tuple[tuple[str, float], ...]
"""Probability for the whole condition, or for each of its parts by name."""


def as_rates(cond_dropout: Any) -> Rates:
    """Return probabilities that compare by value, of a number or a dictionary.

    **Raises:** `ValueError` for a number that is no probability, with its name.
    """
    if not isinstance(cond_dropout, Mapping):
        if not 0.0 <= cond_dropout <= 1.0:
            raise ValueError(f"cond_dropout={cond_dropout} is a probability, in [0, 1]")
        return float(cond_dropout)
    for name, rate in cond_dropout.items():
        if not 0.0 <= rate <= 1.0:
            raise ValueError(
                f"cond_dropout[{name!r}]={rate} is a probability, in [0, 1]"
            )
    return tuple((name, float(rate)) for name, rate in cond_dropout.items())


def check_rates(rates: Rates, cond: PyTree) -> None:
    """Check that a condition has the parts that are left out.

    **Raises:** `TypeError` or `ValueError` with the names.
    """
    if not isinstance(rates, tuple):
        return
    names = sorted(name for name, _ in rates)
    if not isinstance(cond, Mapping):
        raise TypeError(
            f"cond_dropout has rates of {names}, but cond is a {type(cond).__name__}: "
            "give a dictionary of conditions, or one number as cond_dropout"
        )
    missing = [name for name in names if name not in cond]
    if missing:
        raise ValueError(
            f"cond_dropout has a rate of {missing[0]!r}, and cond has {sorted(cond)}"
        )


def drop_conditions(cond: Cond, rates: Rates, null: PyTree, *, key: PRNGKey) -> Cond:
    """Return the condition of one example, left out with the probabilities given.

    **Arguments:**

    - `cond`: of one example.
    - `rates`: one probability with which all of it is left out, or one for each of the
        parts of a dictionary, which are left out independently.
    - `null`: value that takes the place of a condition that is left out; by default it
        is an absent `nn.Condition`.
    - `key`: decides.
    """
    if not isinstance(rates, tuple):
        return _drop(cond, rates, null, key)
    check_rates(rates, cond)
    parts = dict(cond)
    for i, (name, rate) in enumerate(sorted(rates)):
        value = None if null is None else null[name]
        parts[name] = _drop(cond[name], rate, value, jax.random.fold_in(key, i))
    return parts


def _drop(cond, rate, null, key):
    if rate == 0.0:
        return cond
    drop = jax.random.bernoulli(key, rate)
    if null is None:
        return as_condition(cond, ~drop)

    def one(leaf, value):
        if isinstance(leaf, Condition):
            return Condition(one(leaf.value, value), leaf.present | drop)
        leaf = jnp.asarray(leaf)
        return jnp.where(drop, jnp.asarray(value, leaf.dtype), leaf)

    return jax.tree.map(
        one, cond, null, is_leaf=lambda node: isinstance(node, Condition)
    )
