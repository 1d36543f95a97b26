"""Stochastic-gradient Hamiltonian Monte Carlo."""

from collections.abc import Callable
from dataclasses import KW_ONLY

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._types import PRNGKey, Where
from .._joint.log_joint import LogJoint
from .blackjax_kernels import momentum_step
from .initial import Initial
from .sgmcmc import AbstractSGMCMC


class SGHMC(AbstractSGMCMC):
    r"""SGD with momentum and noise, whose path is a sample from the posterior.

    $$v_{t+1} = (1 - a) v_t + \frac{\eta}{N} \nabla \log p_T(\mathcal B_t, w_t) +
      \sqrt{\frac{2 a \eta}{N}}\, \xi_t, \qquad w_{t+1} = w_t + v_{t+1}$$

    $\eta$ is a learning rate as in SGD with momentum $1 - a$. It moves farther than
    `SGLD` for the same bias: with full batches the variance along an eigenvector of the
    Hessian (per row) with eigenvalue $\lambda$ is that of the posterior times
    $1 / (1 - \eta \lambda / (2 (2 - a)))$. The noise of minibatches adds to it and is
    not estimated.

    Reference: *Stochastic gradient Hamiltonian Monte Carlo*, Chen, Fox and Guestrin,
    2014, https://arxiv.org/abs/1402.4102.

    ```python
    method = SGHMC(log_joint, 1e-3, num_warmup=5000, thin=50, num_draws=100)
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
    - `friction`: $a$ in (0, 1].
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
    friction: float = 0.1

    def __check_init__(self):
        if not 0 < self.friction <= 1:
            raise ValueError(f"friction={self.friction}: it is in (0, 1]")

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
        r"""Make one step; the momentum is $v / h$, where $h = \sqrt{\eta / N}$.

        The integrator of blackjax moves first and changes the momentum then, that of
        Chen et al. changes it first. Both give the same path of w if the gradient is
        taken where the move ends.
        """
        h = jnp.sqrt(step_size)
        slope = jax.value_and_grad(log_density, has_aux=True)
        (value, statistics), gradient = slope(position + h * momentum)
        position, momentum = momentum_step(
            key,
            position,
            momentum,
            gradient,
            step_size=h,
            friction=self.friction,
            noise_scale=noise_scale,
        )
        return position, momentum, value, statistics
