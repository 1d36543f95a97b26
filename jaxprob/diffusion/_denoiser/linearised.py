"""A denoiser whose answers are linear in its weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .._types import Cond, Level
from .alike import check_alike
from .denoiser import AbstractDenoiser
from .units import Units
from .wrapper import AbstractDenoiserWrapper


class Linearised(AbstractDenoiserWrapper):
    r"""The answers at the mode and their change to first order in the weights,

    $$D(x, s) = D_{\hat w}(x, s) + J_{\hat w}(x, s)\,(w - \hat w).$$

    A Laplace approximation is the posterior of this denoiser. With the weights that it
    draws, the network itself spreads many times more where the data say little. Both
    are the same where answers are linear in the drawn weights, as in a last layer.

    Reference: *Improving predictions of Bayesian neural nets via local linearization*,
    Immer, Korzepa and Bauer, 2021, https://arxiv.org/abs/2008.08400.

    ```python
    moved = eqx.tree_at(lambda d: d.net.last.bias, denoiser, jnp.array([0.1, 0.0]))
    linearised = Linearised(denoiser, moved)
    ```

    **Arguments:**

    - `denoiser`: at $\hat w$.
    - `draw`: the same denoiser with the weights w.

    `posterior.linearisation_point(key=key)` of `jaxprob.bnn` returns `(draw, mode)`.

    **Raises:** `ValueError` for a draw of another structure.
    """

    denoiser: AbstractDenoiser
    draw: AbstractDenoiser

    def __init__(self, denoiser: AbstractDenoiser, draw: AbstractDenoiser):
        check_alike({"denoiser": denoiser, "draw": draw})
        self.denoiser = denoiser
        self.draw = draw

    def denoise(
        self,
        x: Float[Array, "*shape"],
        level: Level,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        params, rest = eqx.partition(self.denoiser, eqx.is_inexact_array)
        drawn = eqx.filter(self.draw, eqx.is_inexact_array)
        change = jax.tree.map(jnp.subtract, drawn, params)

        def answer(params):
            return eqx.combine(params, rest).denoise(x, level, cond, key=key)

        value, slope = jax.jvp(answer, (params,), (change,))
        return value + slope

    def standardised(self) -> tuple[AbstractDenoiser, Units]:
        inner, units = self.denoiser.standardised()
        draw, _ = self.draw.standardised()
        return Linearised(inner, draw), units
