"""Exponential moving averages of parameters."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..tree._single import single


class EMA(eqx.Module):
    r"""Exponential moving average of the parameters, with a warm-up.

    $$\bar\theta_k = d_k \bar\theta_{k-1} + (1 - d_k) \theta_k, \qquad
      d_k = \min(d, (1 + k) / (10 + k))$$

    It is in single precision at least: in half precision 0.999 is one.

    Without a warm-up the average holds on to the random initial weights for about
    $1/(1 - d)$ steps, and early samples are noise.

    Reference: *Acceleration of stochastic approximation by averaging*, Polyak and
    Juditsky, 1992; the warm-up is that of TensorFlow's `ExponentialMovingAverage`.

    **Arguments:**

    - `decay`: $d \in [0, 1)$; 0.999 averages about the last thousand steps.
    - `warmup`: whether the decay grows from 0.1 in the first steps.
    """

    decay: float = eqx.field(static=True)
    warmup: bool = eqx.field(static=True)

    def __init__(self, decay: float = 0.999, *, warmup: bool = True):
        if not 0 <= decay < 1:
            raise ValueError(
                f"decay={decay}: an EMA's decay is in [0, 1), such as 0.999"
            )
        self.decay = decay
        self.warmup = warmup

    def decay_at(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Return the decay $d_k$ used at step $k$, counted from zero."""
        if not self.warmup:
            return jnp.asarray(self.decay)
        k = step.astype(jnp.result_type(float))
        return jnp.minimum(self.decay, (1.0 + k) / (10.0 + k))

    def init(self, params: PyTree) -> PyTree:
        """Return the average before the first step: the parameters themselves."""
        return jax.tree.map(single, params)

    def update(self, average: PyTree, params: PyTree, step: Int[Array, ""]) -> PyTree:
        """Return the next average; `average` and `params` have one structure."""
        keep = self.decay_at(step)

        def lerp(a, p):
            # p + d (a - p) leaves a constant parameter exactly where it is.
            p = single(p)
            return p + keep.astype(p.dtype) * (a - p)

        return jax.tree.map(lerp, average, params)
