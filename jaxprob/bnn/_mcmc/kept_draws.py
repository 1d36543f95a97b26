"""Schedule of the updates whose positions are kept as draws."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int

from .cosine_cycles import CosineCycles


class KeptDraws(eqx.Module):
    """Updates of a chain after which its position is kept.

    **Arguments:**

    - `num_warmup`: updates before the first draw may be kept.
    - `num_draws`: draws kept of each chain.
    - `thin`: updates from one draw to the next.
    - `cycles`: cycles of the step size, at whose ends draws are kept; `None` for draws
        at equal distances.
    """

    num_warmup: int
    num_draws: int
    thin: int
    cycles: CosineCycles | None = None

    @property
    def num_steps(self) -> int:
        """Updates until all draws are kept."""
        if self.cycles is None:
            return self.num_warmup + self.num_draws * self.thin
        num_cycles = self.num_draws // self.cycles.num_draws
        return self.num_warmup + num_cycles * self.cycles.length

    def num_kept(self, step: int | Int[Array, ""]) -> Int[Array, ""]:
        """Return how many draws of a chain the first `step` updates keep."""
        since = jnp.maximum(step - self.num_warmup, 0)
        if self.cycles is None:
            return since // self.thin
        return self.cycles.num_kept(since, self.thin)

    @property
    def first(self) -> int:
        """Updates until the first draw is kept."""
        steps = range(self.num_warmup + 1, self.num_steps + 1)
        return next(step for step in steps if int(self.num_kept(step)))
