"""Hamiltonian Monte Carlo on the whole data set: what NUTS and HMC share."""

import abc
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..._jaxpr.host_errors import checks_give_nan
from ..._random.keys import example_keys
from ..._training.batch import Batch, num_rows, unpack
from ..._training.capabilities import AbstractAcceptReject
from ..._types import AbstractVar, PRNGKey
from .._joint.check_data import check_row_count
from .blackjax_kernels import (
    HMCState,
    hmc_init,
    hmc_step,
    nuts_step,
    warmup_init,
    warmup_schedule,
    warmup_update,
    warmup_values,
)
from .chains import AbstractChains, ChainState, check_chains


def advice(method: "AbstractHamiltonian") -> str:
    """What to do about transitions that diverge."""
    smaller = "Raise target_acceptance towards 0.99"
    if not method.num_warmup:
        smaller = f"Lower step_size={method.step_size}, or let num_warmup find one"
    return f"{smaller}; scale inputs and targets to unit variance; narrow the prior."


class AbstractHamiltonian(AbstractChains, AbstractAcceptReject):
    """Chains that need the whole data set, with Stan's warm-up.

    It is the same in each update: a transition begins with the density and the gradient
    that the last one left. Models are in inference mode: dropout is off, running
    statistics are constants.
    """

    num_warmup: AbstractVar[int]
    thin: AbstractVar[int]
    target_acceptance: AbstractVar[float]
    step_size: AbstractVar[float]

    def __check_init__(self):
        check_chains(self, num_warmup=0, num_draws=1, num_chains=1, thin=1)
        if not 0 < self.target_acceptance < 1:
            raise ValueError(
                f"target_acceptance={self.target_acceptance}: it is an acceptance "
                "rate in (0, 1)"
            )
        if not self.step_size > 0:
            raise ValueError(f"step_size={self.step_size}: it has to be positive")

    def check_num_rows(self, rows: int, *, largest: int = 0) -> None:
        """Reject rows that are not `num_data`, in the data set or in its batches."""
        check_row_count(rows)
        self._check_count(largest or rows)

    @property
    @abc.abstractmethod
    def _trajectory(self) -> tuple[int | None, int, float]:
        """Leapfrog steps, `None` for the no-U-turn rule; most doublings; jitter."""

    @property
    def num_steps(self) -> int:
        """Updates from the first to the last draw."""
        return self.num_warmup + self.num_draws * self.thin

    def num_kept(self, step: int | Int[Array, ""]) -> Int[Array, ""]:
        return jnp.maximum(step - self.num_warmup, 0) // self.thin

    def update_members(
        self, state: ChainState, batch: PyTree, *, key: PRNGKey
    ) -> tuple[ChainState, dict[str, Float[Array, " chains"]]]:
        self._check_rows(batch)
        warming = state.step < self.num_warmup
        slow, ends = warmup_schedule(self.num_warmup)
        now = jnp.minimum(state.step, len(slow) - 1)
        slow, ends = jnp.asarray(slow)[now], jnp.asarray(ends)[now]
        num_leapfrog, max_doublings, jitter = self._trajectory

        def log_density(vector):
            return self.log_density(state.model, vector, batch)

        # A check that fails, as of a solve that takes too many steps, is at a place
        # without a density: the proposal is refused, as a divergence.
        def start(position):
            return hmc_init(position, log_density)

        # Each transition begins where one ended, with the gradient that it left there.
        warmup, *known = state.kernel
        places = jax.lax.cond(
            state.step == 0,
            lambda: jax.vmap(checks_give_nan(start))(state.position),
            lambda: HMCState(state.position, *known),
        )

        def chain(place, warmup, key):
            current, final, mass = warmup_values(warmup)
            step_size = jnp.where(warming, current, final)
            if not self.num_warmup:
                step_size = jnp.asarray(self.step_size, final.dtype)
            factor = 1.0
            if jitter:
                jitter_key, key = jax.random.split(key)
                low, high = 1.0 - jitter, 1.0 + jitter
                factor = jax.random.uniform(jitter_key, (), final.dtype, low, high)
            settings = {"step_size": step_size * factor, "inverse_mass": mass}
            if num_leapfrog is None:
                place, info = nuts_step(
                    key, place, log_density, max_doublings=max_doublings, **settings
                )
            else:
                place, info = hmc_step(
                    key, place, log_density, num_leapfrog=num_leapfrog, **settings
                )
            return place, {
                **info._asdict(),
                "log_density": place.log_density,
                "step_size": step_size,
            }

        def adapt(warmup, place, acceptance):
            return warmup_update(
                warmup,
                place.position,
                acceptance,
                slow=slow,
                ends=ends,
                target_acceptance=self.target_acceptance,
            )

        keys = example_keys(key, self.num_chains)
        places, info = jax.vmap(checks_give_nan(chain))(places, warmup, keys)
        warmup = jax.lax.cond(
            warming,
            lambda: jax.vmap(adapt)(warmup, places, info["acceptance"]),
            lambda: warmup,
        )
        divergent = info["divergent"]
        state = ChainState(
            places.position,
            (warmup, places.log_density, places.gradient),
            self._record(state, places.position),
            state.divergences + jnp.where(warming, 0, divergent.astype(jnp.int32)),
            state.statistics,
            state.step + 1,
            state.model,
        )
        info = {
            name: value.astype(places.position.dtype) for name, value in info.items()
        }
        return state, {"loss": -info["log_density"] / self.log_joint.num_data, **info}

    def log_density(self, model: PyTree, vector: Array, batch: PyTree) -> Array:
        """The log joint of the whole data set at ravelled random leaves."""
        model = eqx.nn.inference_mode(model)
        drawn = self._model(model, vector, None)
        params = self._split(drawn)[0]
        return self.log_joint(drawn, batch, key=jax.random.key(0), params=params)

    def _kernel(self, position, *, key):
        warmup = jax.vmap(
            lambda p: warmup_init(
                p, target_acceptance=self.target_acceptance, step_size=self.step_size
            )
        )(position)
        # Until the first update knows the data.
        unknown = jnp.full_like(position, jnp.nan)
        return warmup, unknown[:, 0], unknown

    def _refreshes(self, model):
        return False

    def _judge(self, state):
        since = int(state.step) - self.num_warmup
        count = np.asarray(state.divergences)
        if count.max() >= since:
            raise ValueError(
                f"chain {int(count.argmax())} diverged in each of its {since} "
                f"transitions and never moved. {advice(self)}"
            )
        if count.any():
            listing = ", ".join(f"chain {i} in {n}" for i, n in enumerate(count) if n)
            warnings.warn(
                f"transitions diverged, of {since} each: {listing}. Draws near there "
                f"are missing and the posterior is biased. {advice(self)}",
                stacklevel=4,
            )

    def _check_rows(self, batch):
        data, _ = unpack(batch)
        rows = num_rows(data)
        if isinstance(batch, Batch):  # of which some may be padding
            rows = min(rows, self.log_joint.num_data)
        self._check_count(rows)

    def _check_count(self, rows):
        if rows > self.log_joint.num_data:
            raise ValueError(
                f"the data have {rows} rows and num_data is {self.log_joint.num_data}: "
                "it is the number of rows that are trained on, len(x). A smaller one "
                "would widen the posterior; LogJoint(..., temperature=T) does that"
            )
        if rows < self.log_joint.num_data:
            raise ValueError(
                f"this batch has {rows} rows and num_data is "
                f"{self.log_joint.num_data}: the sampler needs the whole data set in "
                "each step, batch_size=len(x). For minibatches use SGLD."
            )
