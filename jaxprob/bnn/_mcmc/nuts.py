"""The no-U-turn sampler, the reference for all other methods."""

from dataclasses import KW_ONLY

from jaxtyping import Array, Float

from ..._types import PRNGKey, Where
from .._joint.log_joint import LogJoint
from .blackjax_kernels import HMCInfo, HMCState, LogDensity, nuts_step
from .chains import check_least
from .hamiltonian import AbstractHamiltonian
from .initial import Initial


class NUTS(AbstractHamiltonian):
    r"""The no-U-turn sampler: draws from the exact posterior, by several chains.

    Each update is one transition of every chain, and needs the **whole** data set as
    its batch. During the first `num_warmup` the step size and a diagonal mass matrix
    are adapted in Stan's windows; of the transitions after them every `thin`-th is
    kept.

    The bias vanishes with the number of draws, so other methods are compared with it
    where the data and the network are small, with some thousand rows and some thousand
    weights. Look at `diagnose(posterior, x)`.

    References: *The no-U-turn sampler*, Hoffman and Gelman, 2014,
    https://arxiv.org/abs/1111.4246; kernels and adaptation are blackjax's.

    ```python
    method = NUTS(log_joint, num_warmup=500, num_draws=500)
    posterior = run_chains(method, model, (x, y), key=key, folder="chains")
    predictive = predict(posterior, log_joint.likelihood, x, key=key)
    ```

    As a learner it runs in `jaxprob.fit` as well, with `num_steps=method.num_steps` and
    `batch_size=len(x)`.

    **Arguments:**

    - `log_joint`: the target; `num_data` is the number of rows of the batch.
    - `num_warmup`, `num_draws`: transitions of each chain, and draws kept of each.
    - `thin`: transitions for each kept draw.
    - `num_chains`: chains side by side in one program.
    - `random`: leaves to sample (see `jaxprob.tree`), as in `MAP`; all others stay as
        they are.
    - `initial`: chains start at draws from the `"prior"`; all at the `"model"`; at the
        best of several optimisations, `"map"` or a `MultiStart`; or at a posterior:
        chain i at its i-th model, such as member i of an ensemble.
    - `step_size`: where its adaptation starts; with `num_warmup=0` it is not adapted.
    - `target_acceptance`: acceptance rate that the step size is adapted to.
    - `forward_mode`: gradients by forward-mode differentiation, which is several times
        faster for a model with few random numbers and a long loop, such as an ODE that
        is solved with `adjoint=diffrax.ForwardMode()`.
    - `max_doublings`: a trajectory has at most 2 to this power steps.
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
    max_doublings: int = 10

    def __check_init__(self):
        check_least(self, max_doublings=1)

    @property
    def stats_names(self) -> tuple[str, ...]:
        return (*super().stats_names, "tree_depth")

    def transition(
        self,
        state: HMCState,
        log_density: LogDensity,
        *,
        step_size: Float[Array, ""],
        inverse_mass: Float[Array, " dim"],
        key: PRNGKey,
    ) -> tuple[HMCState, HMCInfo]:
        return nuts_step(
            key,
            state,
            log_density,
            step_size=step_size,
            inverse_mass=inverse_mass,
            max_doublings=self.max_doublings,
        )
