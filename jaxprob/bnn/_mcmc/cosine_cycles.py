"""A cyclical step size for stochastic-gradient samplers."""

import math
from dataclasses import KW_ONLY

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class CosineCycles(eqx.Module):
    r"""Step sizes that fall from a peak to zero again and again.

    $$\eta_k = \frac{\eta_0}{2} \Big[\cos\Big(\pi\, \frac{k \bmod L}{L}\Big) + 1\Big]$$

    A large step leaves the mode that the chain is in, small ones sample the next. In
    the first part of a cycle no noise is added, so that the chain descends; draws are
    kept at the end of each cycle.

    Reference: *Cyclical stochastic gradient MCMC for Bayesian deep learning*, Zhang,
    Li, Zhang, Chen and Wilson, 2020, https://arxiv.org/abs/1902.03932, equation 1 and
    algorithm 1.

    ```python
    cycles = CosineCycles(0.1, length=2000, num_draws=5)
    method = SGLD(log_joint, cycles, num_warmup=0, thin=20, num_draws=4 * 5)
    ```

    **Arguments:**

    - `peak`: $\eta_0 > 0$, a learning rate as in `SGLD`.
    - `length`: $L$, updates in a cycle.
    - `num_draws`: draws kept of each cycle, `thin` updates of the sampler apart and
        the last one at the end of the cycle.
    - `explore`: the fraction of each cycle without noise, in [0, 1); with 0 all of it
        samples.
    """

    peak: float = eqx.field(static=True)
    _: KW_ONLY
    length: int = eqx.field(static=True)
    num_draws: int = eqx.field(static=True, default=1)
    explore: float = eqx.field(static=True, default=0.5)

    def __check_init__(self):
        if not self.peak > 0 or self.length < 2 or self.num_draws < 1:
            raise ValueError(
                f"peak={self.peak}, length={self.length}, "
                f"num_draws={self.num_draws}: a positive "
                "learning rate, and at least 2 updates and 1 draw in a cycle"
            )
        if not 0 <= self.explore < 1:
            raise ValueError(
                f"explore={self.explore}: a fraction of the cycle in [0, 1)"
            )

    def __call__(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Return the learning rate of the update with this number."""
        return 0.5 * self.peak * (jnp.cos(math.pi * self._fraction(step)) + 1.0)

    def noisy(self, step: Int[Array, ""]) -> Bool[Array, ""]:
        """Return whether the update with this number adds noise."""
        return self._fraction(step) >= self.explore

    def num_kept(self, step: int | Int[Array, ""], thin: int) -> Int[Array, ""]:
        """Return how many draws the first `step` updates keep, `thin` apart."""
        whole, rest = step // self.length, step % self.length
        late = jnp.maximum(rest - (self.length - self.num_draws * thin), 0) // thin
        return jnp.asarray(whole * self.num_draws + late)

    def _fraction(self, step):
        # r(k) of the paper counts from zero: it is the number of updates made before.
        before = jnp.asarray(step % self.length, jnp.result_type(float))
        return before / self.length
