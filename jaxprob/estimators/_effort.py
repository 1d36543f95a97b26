"""Recipes of the efforts: numbers of networks and steps, and how they were chosen.

Those of regression were chosen on inner validation rows of `airfoil` and of the UCI
sets `bostonHousing`, `concrete`, `energy` and `yacht`, never on their test rows; those
of classification on four synthetic tables of 120 to 600 rows.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ._methods import Method

Effort: TypeAlias = Literal["fast", "default", "best"]

ROWS_FOR_CHAINS = 10_000
"""Rows up to which `effort="default"` runs chains, which read all rows in each step."""

_FULL_LENGTH_ROWS = 1500
_SHORTEST = 1500


@dataclass(frozen=True)
class Recipe:
    """Numbers of networks and steps.

    **Fields:**

    - `num_members`: networks of an ensemble, and chains.
    - `num_steps`: training steps of each network.
    - `num_transitions`: steps of each chain, for a table of up to 1,500 rows.
    """

    num_members: int
    num_steps: int
    num_transitions: int

    def transitions(self, rows: int) -> int:
        """Return the steps of a chain: fewer for more rows, which cost more each."""
        share = min(1.0, _FULL_LENGTH_ROWS / rows)
        return max(_SHORTEST, round(self.num_transitions * share))


RECIPES: dict[str, Recipe] = {
    "fast": Recipe(num_members=5, num_steps=4000, num_transitions=1500),
    "default": Recipe(num_members=10, num_steps=20_000, num_transitions=6000),
    "best": Recipe(num_members=10, num_steps=30_000, num_transitions=40_000),
}

CLASS_RECIPES: dict[str, Recipe] = {
    "fast": Recipe(num_members=5, num_steps=2000, num_transitions=1500),
    "default": Recipe(num_members=10, num_steps=2000, num_transitions=3000),
    "best": Recipe(num_members=10, num_steps=4000, num_transitions=20_000),
}
"""Recipes of classification, whose networks have one wide layer."""


def recipe_of(effort: str, recipes: dict[str, Recipe] = RECIPES) -> Recipe:
    """Return the recipe of an effort; `ValueError` for an unknown one."""
    if effort not in recipes:
        raise ValueError(f"effort={effort!r}: give one of {', '.join(recipes)}")
    return recipes[effort]


def chosen_method(method: Method, effort: str, rows: int) -> Method:
    """Return the method that `"auto"` stands for: chains, or an ensemble where they
    would take too long.
    """
    if method != "auto":
        return method
    if effort == "fast" or (effort == "default" and rows > ROWS_FOR_CHAINS):
        return "ensemble"
    return "chains"
