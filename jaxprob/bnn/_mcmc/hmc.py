"""Hamiltonian Monte Carlo with trajectories of a fixed number of steps."""

from dataclasses import KW_ONLY
from typing import Literal

from ..._types import Where
from .._joint.log_joint import LogJoint
from .._posterior.posterior import AbstractPosterior
from .chains import check_chains
from .hamiltonian import AbstractHamiltonian


class HMC(AbstractHamiltonian):
    r"""Draws from the exact posterior by trajectories of L leapfrog steps.

    $$p_{1/2} = p + \tfrac \epsilon 2 \nabla \log p_T(w), \quad w' = w + \epsilon
      M^{-1} p_{1/2}, \quad p' = p_{1/2} + \tfrac \epsilon 2 \nabla \log p_T(w')$$

    The end of the trajectory is accepted with probability $\min(1, e^{-\Delta H})$.

    All trajectories cost the same, so chains side by side never wait for each other,
    and long ones cross a network's posterior where `NUTS` would turn early. Prefer
    `NUTS` where L is not known. A trajectory as long as a period of the target comes
    back to where it began, so each has a step size of its own, up to `jitter` away from
    the adapted one.

    References: *MCMC using Hamiltonian dynamics*, Neal, 2011, section 3.2,
    https://arxiv.org/abs/1206.1901; *What are Bayesian neural network posteriors really
    like?*, Izmailov, Vikram, Hoffman and Wilson, 2021,
    https://arxiv.org/abs/2104.14421. The kernel is blackjax's.

    ```python
    method = HMC(log_joint, num_leapfrog=64, num_draws=200)
    posterior = run_chains(method, model, (x, y), key=key)
    ```

    **Arguments:**

    - `num_leapfrog`: L.
    - `jitter`: step sizes are uniform in (1 - jitter, 1 + jitter) times the adapted
        one; 0 for one step size.
    - the others: as in `NUTS`.
    """

    log_joint: LogJoint
    _: KW_ONLY
    num_warmup: int = 500
    num_draws: int = 500
    thin: int = 1
    num_chains: int = 4
    random: Where | None = None
    initial: Literal["prior", "model"] | AbstractPosterior = "prior"
    step_size: float = 0.1
    target_acceptance: float = 0.8
    num_leapfrog: int = 32
    jitter: float = 0.2

    def __check_init__(self):
        check_chains(self, num_leapfrog=1)
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter={self.jitter}: a share of the step in [0, 1)")

    @property
    def _trajectory(self):
        return self.num_leapfrog, 0, self.jitter
