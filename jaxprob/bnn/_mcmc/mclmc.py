"""Microcanonical Langevin Monte Carlo, without rejections."""

from dataclasses import KW_ONLY

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._jaxpr.host_errors import checks_give_nan
from ..._random.keys import example_keys
from ..._types import PRNGKey, Where
from .._joint.log_joint import LogJoint
from .blackjax_kernels import hmc_init
from .chains import ChainState, record
from .full_batch import AbstractFullBatch
from .initial import Initial
from .microcanonical_kernels import (
    MicrocanonicalState,
    microcanonical_step,
    random_direction,
)
from .microcanonical_tuning import Windows, tuning_init, tuning_update


class MCLMC(AbstractFullBatch):
    r"""Microcanonical Langevin Monte Carlo: a path of constant energy, never rejected.

    A point moves with a velocity u of unit length, which the gradient of the log
    density turns and noise makes forget its direction after a length L:

    $$dw = u\,dt, \qquad du = \frac{1}{d - 1} (I - u u^T) \nabla \log p_T(w)\,dt
      + \eta\,(I - u u^T)\,dB, \qquad \eta^2 = \frac{2}{L (d - 1)}.$$

    Where the path is exact its points have the density $p_T$. Steps of finite size
    leave an error of the energy; nothing is rejected, so the draws are **biased**, and
    the bias grows with `energy_variance`, the variance of that error for one dimension.
    With the default of $5 \cdot 10^{-4}$ it is below a tenth of a posterior standard
    deviation for linear regression with ten weights (`tests/bnn/_mcmc/
    test_microcanonical.py`); it was not measured elsewhere. `BNNRegressor`, whose draws
    serve predictions, takes .01.

    An update is one step, of two gradients, where one of `NUTS` is a trajectory:
    hundreds of steps make an independent draw, so `num_warmup` and `thin` are larger.
    All steps cost the same, so many chains go side by side. Prefer it to `NUTS` for
    networks that were trained beforehand: chains from the members of an ensemble
    explore the modes that these found. Prefer `NUTS` where the bias matters, or where
    the dimension is below ten. The target needs at least two dimensions.

    References: *Microcanonical Hamiltonian Monte Carlo*, Robnik, De Luca, Silverstein
    and Seljak, 2023, https://arxiv.org/abs/2212.08549; *Microcanonical Langevin
    Ensembles: Advancing the Sampling of Bayesian Neural Networks*, Sommer et al., 2025,
    https://arxiv.org/abs/2502.06335. The step is blackjax's.

    ```python
    method = MCLMC(log_joint, num_warmup=50, num_draws=50, thin=5)
    posterior = run_chains(method, model, (x, y), key=key)
    ```

    **Arguments:**

    - `log_joint`, `num_draws`, `num_chains`, `random`, `initial`, `forward_mode`: as in
        `NUTS`.
    - `num_warmup`: steps in which step size, mass and L are tuned.
    - `thin`: steps for each kept draw.
    - `step_size`: the first one; with `num_warmup=0` it is not tuned.
    - `energy_variance`: variance of the energy error of a step, for one dimension, to
        which the step size is tuned.
    - `initial_energy_variance`: the same at the start of the warm-up, from where it
        falls geometrically during the first four fifths; a larger one leaves a poor
        start sooner. By default `energy_variance`.
    - `diagonal`: whether coordinates are scaled by the variances that the warm-up
        finds.
    - `trajectory_length`: L, in scaled coordinates; by default the root of the sum of
        the variances there.
    """

    log_joint: LogJoint
    _: KW_ONLY
    num_warmup: int = 5000
    num_draws: int = 500
    thin: int = 20
    num_chains: int = 4
    random: Where | None = None
    initial: Initial = "prior"
    step_size: float = 0.01
    energy_variance: float = 5e-4
    initial_energy_variance: float | None = None
    diagonal: bool = True
    trajectory_length: float | None = None
    forward_mode: bool = False

    def __check_init__(self):
        for name, value in (
            ("step_size", self.step_size),
            ("energy_variance", self.energy_variance),
            ("initial_energy_variance", self.initial_energy_variance),
            ("trajectory_length", self.trajectory_length),
        ):
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value}: it has to be positive")

    @property
    def stats_names(self) -> tuple[str, ...]:
        return ("log_density", "step_size", "energy_change", "divergent")

    @property
    def remedy(self) -> str:
        smaller = f"Lower energy_variance={self.energy_variance}"
        if not self.num_warmup:
            smaller = f"Lower step_size={self.step_size}, or let num_warmup find one"
        return f"{smaller}; scale inputs and targets to unit variance; narrow the prior"

    def init_kernel(
        self, position: Float[Array, "chains dim"], *, key: PRNGKey
    ) -> PyTree:
        """Return the state of the tuning; direction, log density and gradient.

        The last two are NaN: the first update, which has the data, computes them.
        """
        if position.shape[1] < 2:
            raise ValueError(
                "MCLMC moves on a sphere of directions and needs at least two random "
                "numbers, and the random leaves are one: use NUTS"
            )

        def one(position):
            return tuning_init(
                position,
                step_size=self.step_size,
                trajectory_length=self.trajectory_length,
            )

        keys = example_keys(key, self.num_chains)
        unknown = jnp.full_like(position, jnp.nan)
        momentum = jax.vmap(random_direction)(keys, position)
        return jax.vmap(one)(position), momentum, unknown[:, 0], unknown

    def update_members(
        self, state: ChainState, batch: PyTree, *, key: PRNGKey
    ) -> tuple[ChainState, dict[str, Float[Array, " chains"]]]:
        self.check_whole(batch)

        def log_density(vector):
            return self.log_density(state.model, vector, batch)

        def start(position, momentum):
            found = hmc_init(position, log_density)
            return MicrocanonicalState(
                position, momentum, found.log_density, found.gradient
            )

        def chain(before, tuning, key):
            after, info = microcanonical_step(
                key,
                before,
                log_density,
                step_size=tuning.step_size,
                trajectory_length=tuning.trajectory_length,
                inverse_mass=tuning.inverse_mass,
            )
            return after, info, self._tuned(tuning, after.position, info, state.step)

        tuning, momentum, *known = state.kernel
        before = jax.lax.cond(
            state.step == 0,
            lambda: jax.vmap(checks_give_nan(start))(state.position, momentum),
            lambda: MicrocanonicalState(state.position, momentum, *known),
        )
        keys = example_keys(key, self.num_chains)
        after, info, tuned = jax.vmap(checks_give_nan(chain))(before, tuning, keys)
        warming = state.step < self.num_warmup
        diverged = jnp.where(warming, 0, info.divergent.astype(jnp.int32))
        found = {
            "log_density": after.log_density,
            "step_size": tuning.step_size,
            **info._asdict(),
        }
        draws, stats = record(self, state, after.position, found)
        state = ChainState(
            after.position,
            (tuned, after.momentum, after.log_density, after.gradient),
            draws,
            state.divergences + diverged,
            state.statistics,
            state.step + 1,
            state.model,
            stats,
        )
        return state, {"loss": -after.log_density / self.log_joint.num_data, **found}

    def _tuned(self, tuning, position, info, step):
        """The tuning of a chain after one step."""
        windows = Windows.of(self.num_warmup)
        first = self.initial_energy_variance or self.energy_variance
        part = jnp.clip(step / max(windows.mass, 1), 0.0, 1.0).astype(position.dtype)
        wanted = first * (self.energy_variance / first) ** part

        def update():
            return tuning_update(
                tuning,
                position,
                info.energy_change,
                info.divergent,
                step=step,
                windows=windows,
                energy_variance=wanted,
                diagonal=self.diagonal,
                trajectory_length=self.trajectory_length,
            )

        return jax.lax.cond(step < windows.end, update, lambda: tuning)
