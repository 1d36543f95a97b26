"""Hamiltonian Monte Carlo with trajectories of a fixed number of steps."""

from dataclasses import KW_ONLY

from jaxtyping import Array, Float

from ..._types import PRNGKey, Where
from .._joint.log_joint import LogJoint
from .blackjax_kernels import HMCInfo, HMCState, LogDensity, hmc_step
from .chains import check_least
from .hamiltonian import AbstractHamiltonian
from .initial import Initial
from .jitter import check_jitter, jittered


class HMC(AbstractHamiltonian):
    r"""Hamiltonian Monte Carlo: draws from the exact posterior by L leapfrog steps.

    $$p_{1/2} = p + \tfrac \epsilon 2 \nabla \log p_T(w), \quad w' = w + \epsilon
      M^{-1} p_{1/2}, \quad p' = p_{1/2} + \tfrac \epsilon 2 \nabla \log p_T(w')$$

    The end of the trajectory is accepted with probability $\min(1, e^{-\Delta H})$.

    All trajectories cost the same, so chains side by side never wait for each other,
    and long ones cross a network's posterior where `NUTS` would turn early. Prefer
    `NUTS` where L is not known. A trajectory as long as a period of the target comes
    back to where it began, so the step size differs at random from one to the next, by
    up to `jitter` of the adapted one.

    References: *MCMC using Hamiltonian dynamics*, Neal, 2011, section 3.2,
    https://arxiv.org/abs/1206.1901; *What are Bayesian neural network posteriors really
    like?*, Izmailov, Vikram, Hoffman and Wilson, 2021,
    https://arxiv.org/abs/2104.14421. The kernel is blackjax's.

    ```python
    method = HMC(log_joint, num_leapfrog=64, num_draws=200)
    posterior = run_chains(method, model, (x, y), key=key)
    ```

    **Arguments:**

    - `log_joint`, `num_warmup`, `num_draws`, `thin`, `num_chains`, `random`, `initial`,
        `step_size`, `target_acceptance`, `forward_mode`: as in `NUTS`.
    - `num_leapfrog`: L.
    - `jitter`: step sizes are uniform in (1 - jitter, 1 + jitter) times the adapted
        one; 0 for one step size.
    """

    log_joint: LogJoint
    _: KW_ONLY
    num_warmup: int = 500
    num_draws: int = 500
    thin: int = 1
    num_chains: int = 4
    random: Where | None = None
    initial: Initial = "prior"
    step_size: float = 0.1
    target_acceptance: float = 0.8
    forward_mode: bool = False
    num_leapfrog: int = 32
    jitter: float = 0.2

    def __check_init__(self):
        check_least(self, num_leapfrog=1)
        check_jitter(self.jitter)

    def transition(
        self,
        state: HMCState,
        log_density: LogDensity,
        *,
        step_size: Float[Array, ""],
        inverse_mass: Float[Array, " dim"],
        key: PRNGKey,
    ) -> tuple[HMCState, HMCInfo]:
        """Make one transition with a step size that is jittered at random."""
        step_size, key = jittered(step_size, self.jitter, key=key)
        return hmc_step(
            key,
            state,
            log_density,
            step_size=step_size,
            inverse_mass=inverse_mass,
            num_leapfrog=self.num_leapfrog,
        )
