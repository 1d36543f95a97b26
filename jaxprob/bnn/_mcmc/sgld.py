"""Stochastic-gradient Langevin dynamics."""

from collections.abc import Callable
from typing import Literal

import jax
from jaxtyping import Array

from ..._types import Where
from .._joint.log_joint import LogJoint
from .._posterior.posterior import AbstractPosterior
from .blackjax_kernels import langevin_step
from .sgmcmc import AbstractSGMCMC


class SGLD(AbstractSGMCMC):
    r"""Gradient steps with the noise that makes their path a sample.

    $$w_{t+1} = w_t + \frac{\eta}{N} \nabla \log p_T(\mathcal B_t, w_t) + \sqrt{\frac{2
      \eta}{N}}\, \xi_t$$

    The gradient is that per row of data, so that $\eta$ is a learning rate as in MAP,
    whatever N is. For $\eta \to 0$ the draws are from the posterior. At a constant
    $\eta$ the spread is too large: along an eigenvector of the Hessian (per row) with
    eigenvalue $\lambda$ the variance is $1 / (1 - \eta \lambda / 2)$ times the
    posterior's with full batches, and more with the noise of small ones.

    Reference: *Bayesian learning via stochastic gradient Langevin dynamics*, Welling
    and Teh, 2011.

    ```python
    method = SGLD(log_joint, 1e-3, start=5000, every=50, num_draws=100)
    state, _ = jaxprob.fit(method, model, (x, y), key=key, num_steps=method.num_steps)
    ```

    **Arguments:**

    - `log_joint`: likelihood, prior and N; the temperature belongs there.
    - `learning_rate`: $\eta$, or a schedule `step -> eta`; `CosineCycles` makes this
        cyclical stochastic-gradient MCMC.
    - `start`: updates before the first draw may be kept.
    - `every`: updates for each kept draw.
    - `num_draws`: draws kept; past them the oldest make room.
    - `random`: leaves to sample (see `jaxprob.tree`); all others stay as they are.
    - `num_chains`: side by side in one program.
    - `initial`: where they start, as in `NUTS`.
    """

    log_joint: LogJoint
    learning_rate: float | Callable[..., Array]
    start: int
    every: int
    num_draws: int
    random: Where | None = None
    num_chains: int = 1
    initial: Literal["prior", "model"] | AbstractPosterior = "model"

    def _move(self, key, position, momentum, log_density, step_size, heat):
        (value, held), gradient = jax.value_and_grad(log_density, has_aux=True)(
            position
        )
        position = langevin_step(
            key, position, gradient, step_size=step_size, heat=heat
        )
        return position, momentum, value, held
