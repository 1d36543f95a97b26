"""Stochastic-gradient Langevin dynamics."""

from collections.abc import Callable
from dataclasses import KW_ONLY

import jax
from jaxtyping import Array, Float, PyTree

from ..._types import PRNGKey, Where
from .._joint.log_joint import LogJoint
from .blackjax_kernels import langevin_step
from .initial import Initial
from .sgmcmc import AbstractSGMCMC


class SGLD(AbstractSGMCMC):
    r"""Gradient steps with noise, whose path is a sample from the posterior.

    $$w_{t+1} = w_t + \frac{\eta}{N} \nabla \log p_T(\mathcal B_t, w_t) + \sqrt{\frac{2
      \eta}{N}}\, \xi_t$$

    The gradient is that per row of data, so that $\eta$ is a learning rate as in MAP,
    whatever N is. For $\eta \to 0$ the draws are from the posterior. At a constant
    $\eta$ the spread is too large: along an eigenvector of the Hessian (per row) with
    eigenvalue $\lambda$ the variance is $1 / (1 - \eta \lambda / 2)$ times that of the
    posterior with full batches, and larger with the noise of small ones.

    Reference: *Bayesian learning via stochastic gradient Langevin dynamics*, Welling
    and Teh, 2011.

    ```python
    method = SGLD(log_joint, 1e-3, num_warmup=5000, thin=50, num_draws=100)
    state, _ = jaxprob.fit(method, model, (x, y), key=key, num_steps=method.num_steps)
    ```

    **Arguments:**

    - `log_joint`: likelihood, prior and N; the temperature belongs there.
    - `learning_rate`: $\eta$, or a schedule `step -> eta`; `CosineCycles` makes this
        cyclical stochastic-gradient MCMC.
    - `num_warmup`: updates before the first draw may be kept.
    - `num_draws`: draws kept of each chain; past them new draws replace the oldest.
    - `thin`: updates for each kept draw.
    - `num_chains`: chains side by side in one program.
    - `random`: leaves to sample (see `jaxprob.tree`); all others stay as they are.
    - `initial`: where chains start, as in `NUTS`.
    """

    log_joint: LogJoint
    learning_rate: float | Callable[..., Array]
    _: KW_ONLY
    num_warmup: int
    num_draws: int
    thin: int
    num_chains: int = 1
    random: Where | None = None
    initial: Initial = "model"

    def transition(
        self,
        position: Float[Array, " dim"],
        momentum: Float[Array, " dim"],
        log_density: Callable[[Array], tuple[Array, PyTree]],
        *,
        step_size: Float[Array, ""],
        noise_scale: Float[Array, ""],
        key: PRNGKey,
    ) -> tuple[Array, Array, Array, PyTree]:
        """Make one Langevin step; the momentum is not used."""
        slope = jax.value_and_grad(log_density, has_aux=True)
        (value, statistics), gradient = slope(position)
        position = langevin_step(
            key, position, gradient, step_size=step_size, noise_scale=noise_scale
        )
        return position, momentum, value, statistics
