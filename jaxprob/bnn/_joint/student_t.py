"""Student's t distribution, exact in float32 at any number of degrees of freedom."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import betaln
from jaxtyping import Array, Float

from .._weights.scale import real


class StudentT(dist.StudentT):
    r"""numpyro's distribution, with a density that is accurate for large $\nu$.

    $$\log p(y) = -\log B(\tfrac 1 2, \tfrac \nu 2) - \tfrac 1 2 \log \nu - \log s -
      \tfrac{\nu + 1}{2} \log\left(1 + \frac{(y - m)^2}{\nu s^2}\right)$$

    numpyro adds $\log s$ to $\log \Gamma(\nu / 2)$, which is 2605 at $\nu = 1000$. In
    float32 three digits are then left for $s$: the density of a data set changes in
    steps of whole nats, and Markov chains reject every proposal.

    **Arguments:** `df` $\nu$, `loc` $m$, `scale` $s$, as numpyro's.
    """

    def log_prob(self, value: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        # numpyro accepts integers, and `full_like` of one would round 0.5 to 0.
        df, loc, scale = map(real, (self.df, self.loc, self.scale))
        constant = -betaln(jnp.full_like(df, 0.5), 0.5 * df) - 0.5 * jnp.log(df)
        z = (value - loc) / scale
        tail = 0.5 * (df + 1.0) * jnp.log1p(z * z / df)
        return constant - jnp.log(scale) - tail
