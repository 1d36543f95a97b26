"""Microcanonical Monte Carlo with rejections."""

from dataclasses import KW_ONLY

from jaxtyping import Array, Float

from ..._types import PRNGKey, Where
from .._joint.log_joint import LogJoint
from .blackjax_kernels import HMCInfo, HMCState, LogDensity
from .chains import check_least
from .hamiltonian import AbstractHamiltonian
from .initial import Initial
from .jitter import check_jitter, jittered
from .microcanonical_kernels import adjusted_step


class AdjustedMCLMC(AbstractHamiltonian):
    r"""Microcanonical trajectories whose ends are accepted or rejected.

    Each transition draws a direction uniformly, follows the microcanonical dynamics
    (see `MCLMC`) for a number of steps and accepts the end with probability
    $\min(1, e^{-\Delta E})$, so the posterior is exact. The speed along a trajectory is
    constant, where that of `HMC` grows with the drop of the potential, so steps stay
    stable where the density is steep.

    The best acceptance rate is higher than that of `HMC`: .9. The length of a
    trajectory differs at random from one to the next, by up to `jitter`.

    Reference: *Metropolis Adjusted Microcanonical Hamiltonian Monte Carlo*, Robnik,
    Cohn-Gordon and Seljak, 2025, https://arxiv.org/abs/2503.01707. The kernel is
    blackjax's.

    ```python
    method = AdjustedMCLMC(log_joint, num_warmup=50, num_draws=50)
    posterior = run_chains(method, model, (x, y), key=key)
    ```

    **Arguments:**

    - `log_joint`, `num_warmup`, `num_draws`, `thin`, `num_chains`, `random`, `initial`,
        `step_size`, `target_acceptance`, `forward_mode`: as in `NUTS`. A step size of 1
        is the root of the dimension times smaller than one of `HMC`.
    - `num_steps_each`: steps of a trajectory, each of two gradients.
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
    target_acceptance: float = 0.9
    forward_mode: bool = False
    num_steps_each: int = 16
    jitter: float = 0.5

    def __check_init__(self):
        check_least(self, num_steps_each=1)
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
        return adjusted_step(
            key,
            state,
            log_density,
            step_size=step_size,
            inverse_mass=inverse_mass,
            num_steps=self.num_steps_each,
        )
