"""The keys of everything random in a run, derived from one seed."""

from dataclasses import dataclass

import jax

from ..._types import PRNGKey


@dataclass(frozen=True)
class RunKeys:
    """Keys of a run as functions of its seed, so that nothing else must be stored.

    **Arguments:**

    - `seed`: an integer from 0 to 2**32 - 1.
    """

    seed: int

    @property
    def init(self) -> PRNGKey:
        """Key of the initial state."""
        return self._split()[0]

    @property
    def steps(self) -> PRNGKey:
        """Key of all training steps; that of step k is `fold_in(key, k)`."""
        return self._split()[1]

    @property
    def evaluation(self) -> PRNGKey:
        """Key of validation and test."""
        return self._split()[2]

    @property
    def draws(self) -> PRNGKey:
        """Key of posterior samples, predictions and previews."""
        return self._split()[3]

    def _split(self):
        return jax.random.split(jax.random.key(self.seed), 4)
