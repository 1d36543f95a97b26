"""The posterior of a simulator's parameters, for any observation."""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._random.keys import check_key
from ..._types import PRNGKey
from .._denoiser.averaged import Averaged
from .._density.log_prob import log_prob
from .._density.map_examples import map_examples
from .._sampler.exponential import ExpAB
from .._sampler.sample import sample
from .._sampler.sampler import AbstractSampler
from .._schedule.argument_checks import check_count
from .composed import Composed, information, moments
from .encoders import AbstractEncoder, summaries
from .observation_scaler import ObservationScaler
from .parameter_space import ParameterSpace
from .residual import LinearResidual

_MOMENT_DRAWS = 20_000
_DRAWS_OF_ONE = 1_000


class SimulatorPosterior(eqx.Module):
    r"""$p(\theta \mid x)$ for any observation x, amortised.

    `fit_posterior` makes it. Draws have the structure of the prior and are inside of
    its support.

    ```python
    posterior, history = fit_posterior(prior, sims, key=fit_key)
    theta = posterior.sample(x, key=key, num_samples=1000)
    nats = posterior.log_prob(theta, x)
    ```

    **Fields:**

    - `space`: the prior.
    - `scaler`: standardises observations.
    - `linear`: the coordinates of the denoiser, given an observation.
    - `encoders`: one for each member, stacked.
    - `denoiser`: `Averaged`, of the residuals of the linear regression; its condition
        is what the encoders make of an observation.
    """

    space: ParameterSpace
    scaler: ObservationScaler
    linear: LinearResidual
    encoders: AbstractEncoder
    denoiser: Averaged

    def sample(
        self,
        x: PyTree,
        *,
        key: PRNGKey,
        num_samples: int,
        sampler: AbstractSampler | None = None,
        batch_size: int | None = 10_000,
    ) -> PyTree:
        """Draw parameters given one observation.

        **Arguments:**

        - `x`: one observation, of the structure and shape of one simulated.
        - `key`: all randomness.
        - `num_samples`: number of draws.
        - `sampler`: `ExpAB(40)` by default.
        - `batch_size`: draws that are in memory at a time.

        **Returns:** draws with a leading axis, in the structure of the prior. Warns
        where the observation is outside of all simulated ones, which no posterior of
        this simulator is to be believed for.
        """
        check_count("num_samples", num_samples, "at least one draw")
        cond, features = self._read(x, num_samples)
        v = self._sample(cond, key, sampler, batch_size)
        return self.space.from_vectors(self.linear.coordinates(v, features))

    def sample_each(
        self,
        x: PyTree,
        *,
        key: PRNGKey,
        num_samples: int = 1,
        sampler: AbstractSampler | None = None,
        batch_size: int | None = 10_000,
    ) -> PyTree:
        """Draw parameters given each of several observations, in one program.

        **Arguments:**

        - `x`: observations with a leading axis of n.
        - the others: as in `sample`.

        **Returns:** draws of leading shape (n, num_samples).
        """
        check_count("num_samples", num_samples, "at least one draw")
        cond, features = jax.tree.map(
            lambda leaf: jnp.repeat(leaf, num_samples, axis=0),
            self._encoded(self.scaler(x)),
        )
        v = self._sample(cond, key, sampler, batch_size)
        theta = self.space.from_vectors(self.linear.coordinates(v, features))
        return jax.tree.map(
            lambda leaf: leaf.reshape(-1, num_samples, *leaf.shape[1:]), theta
        )

    def sample_given_all(
        self,
        x: PyTree,
        *,
        key: PRNGKey,
        num_samples: int,
        sampler: AbstractSampler | None = None,
        batch_size: int | None = 1_000,
    ) -> PyTree:
        r"""Draw parameters given n independent observations of one $\theta$, together.

        The simulations need have one observation each: scores are composed
        (`Composed`), which is exact for normal distributions in the real coordinates
        of the prior, and an approximation for others.

        **Arguments:**

        - `x`: observations with a leading axis of n.
        - the others: as in `sample`. The cost grows with n.

        **Returns:** draws with a leading axis.
        """
        check_count("num_samples", num_samples, "at least one draw")
        check_key(key)
        prior_key, each_key, key = jax.random.split(key, 3)
        cond, features = self._encoded(self.scaler(x))
        num = len(cond)
        u = self.space.to_vectors(
            self.space.sample(key=prior_key, num_samples=_MOMENT_DRAWS)
        )
        shifts = self.linear.residual(jnp.zeros((num, u.shape[1])), features)
        zero = self.linear.residual(jnp.zeros((1, u.shape[1])), features[:1] * 0.0)
        mean, precision = moments(self.linear.residual(u, features[:1] * 0.0))
        v = self._sample(
            jnp.repeat(cond, _DRAWS_OF_ONE, axis=0), each_key, sampler, 10_000
        )
        draws = v.reshape(num, _DRAWS_OF_ONE, -1)
        composed = Composed(
            denoiser=self.denoiser,
            conditions=cond,
            shifts=zero - shifts,
            mean=mean,
            precision=precision,
            information=information(draws, precision),
        )
        v = sample(
            composed,
            ExpAB(40) if sampler is None else sampler,
            key=key,
            num_samples=num_samples,
            shape=(self.space.size,),
            batch_size=None if batch_size is None else min(batch_size, num_samples),
        ).x_0
        without = jnp.zeros((1, features.shape[1]), features.dtype)
        return self.space.from_vectors(self.linear.coordinates(v, without))

    def log_prob(
        self,
        theta: PyTree,
        x: PyTree,
        *,
        batch_size: int | None = 2_000,
        **settings: Any,
    ) -> Float[Array, " num"]:
        r"""Return $\log p(\theta \mid x)$ in nats, in the units of the parameters.

        **Arguments:**

        - `theta`: parameters with a leading axis.
        - `x`: one observation.
        - `batch_size`: parameters in memory at a time.
        - `settings`: of `jaxprob.diffusion.log_prob`, such as `rtol`.

        **Returns:** one number for each row; minus infinity outside of the prior's
        support.
        """
        inside = self.space.contains(theta)
        u = self.space.to_vectors(theta)
        safe = jnp.where(inside[:, None], u, jnp.zeros_like(u))
        cond, features = self._read(x, len(u))
        v = self.linear.residual(safe, features)
        out = map_examples(
            log_prob, self.denoiser, v, cond=cond, batch_size=batch_size, **settings
        )
        value = out.value - self.linear.log_volume - self.space.log_volume(safe)
        return jnp.where(inside, value, -jnp.inf)

    def condition(self, x: PyTree) -> Float[Array, "members size"]:
        """Return what the encoders make of one observation: the denoiser's condition.

        With it, `denoiser` goes into every sampler, density and guidance of
        `jaxprob.diffusion`; its samples are residuals, which `linear.coordinates` and
        `space.from_vectors` turn into parameters.
        """
        return self._encoded(self._checked(x))[0][0]

    def _read(self, x, num):
        """Return the condition and the features of one observation, num times."""
        return jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (num, *leaf.shape[1:])),
            self._encoded(self._checked(x)),
        )

    def _checked(self, x):
        rows = jax.tree.map(lambda leaf: np.asarray(leaf)[None], x)
        scaled = self.scaler(rows)
        outside = self.scaler.outside(rows)
        if outside:
            warnings.warn(
                "the observation is outside of all simulations: "
                f"{'; '.join(outside[:3])}. The simulator or its prior does not "
                "describe it (misspecification), and its posterior is an extrapolation",
                stacklevel=4,
            )
        return scaled

    def _encoded(self, scaled):
        scaled = jax.tree.map(jnp.asarray, scaled)
        cond = encode(self.encoders, self.denoiser.num_members, scaled)
        first = jax.tree.map(lambda a: a[0] if eqx.is_array(a) else a, self.encoders)
        return cond, summaries(first, scaled)

    def _sample(self, cond, key, sampler, batch_size):
        check_key(key)
        return sample(
            self.denoiser,
            ExpAB(40) if sampler is None else sampler,
            key=key,
            num_samples=len(cond),
            shape=(self.space.size,),
            cond=cond,
            batch_size=None if batch_size is None else min(batch_size, len(cond)),
        ).x_0


@eqx.filter_jit
def encode(
    encoders: AbstractEncoder, num_members: int, x: PyTree
) -> Float[Array, "rows members size"]:
    """Return what each member's encoder makes of standardised observations."""
    arrays, static = eqx.partition(encoders, eqx.is_array)

    def member(arrays, row):
        return eqx.combine(arrays, static)(row)

    def one(row):
        each = jax.vmap(member, (0, None), axis_size=num_members)
        return each(arrays, row)

    return jax.vmap(one)(x)
