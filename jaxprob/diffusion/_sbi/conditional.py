"""The density of a target given features, for regression."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from ..._random.keys import check_key
from ..._types import PRNGKey
from .._density.log_prob import log_prob
from .._density.map_examples import map_examples
from .._sampler.exponential import ExpAB
from .._sampler.sample import sample
from .._sampler.sampler import AbstractSampler
from .._schedule.argument_checks import check_count
from .conditional_network import ConditionalNetwork, Table, table_likelihood


class ConditionalDensity(eqx.Module):
    r"""$p(y \mid x)$ of any shape, a mixture over networks trained by diffusion.

    $$p(y \mid x) = \frac1K \sum_k p_k(y \mid x)$$

    `fit_conditional` makes it. For one target its outputs are what `Predictive` of
    `jaxprob.bnn` takes, with a `likelihood`: mean, quantiles, intervals, metrics,
    recalibration and plots are those of any regression.

    ```python
    density, history = diffusion.fit_conditional(features, target, key=key)
    predictive = bnn.Predictive(density(features), density.likelihood)
    lower, upper = predictive.interval(0.9)
    ```

    **Fields:**

    - `networks`: `ConditionalNetwork`, whose arrays have a leading axis of K. Each is
        a model of `jaxprob.bnn`, with the likelihood `likelihood`.
    """

    networks: ConditionalNetwork

    likelihood: ClassVar[Callable[[Table], dist.Distribution]] = staticmethod(
        table_likelihood
    )

    def __call__(self, x: PyTree, *, batch_size: int = 16) -> PyTree:
        r"""Return tables of $p_k(y \mid x)$ for each row, along the probability flow.

        **Arguments:**

        - `x`: features with a leading axis.
        - `batch_size`: rows at a time.

        **Returns:** arrays of shape (rows, K, knots), or (rows, K, 1, knots) where y
        had a column: y, z and $\log dz/dy$ at the knots.

        **Raises:** `ValueError` for several targets, which have no table.
        """
        cond, features = self._conditions(x)
        return _tables(self.networks, cond, features, batch_size)

    def log_prob(
        self,
        y: Float[Array | np.ndarray, "rows *targets"],
        x: PyTree,
        *,
        batch_size: int | None = 256,
        **settings: Any,
    ) -> Float[Array, " rows"]:
        r"""Return $\log p(y \mid x)$ of each row in nats, in the units of y.

        It solves the probability flow at each y, joint over several targets, and needs
        no table.

        **Arguments:**

        - `y`: a target for each row.
        - `x`: features with a leading axis.
        - `batch_size`: rows at a time.
        - `settings`: of `jaxprob.diffusion.log_prob`, such as `rtol`.
        """
        first = self.member(0)
        cond, features = self._conditions(x)
        rows = np.asarray(y, np.float64)
        expected = (len(cond), *first.mean.shape)
        if rows.shape != expected:
            raise ValueError(f"y has shape {rows.shape}: give one of shape {expected}")
        _check_finite("y", rows)
        v = first.residuals(rows.reshape(len(rows), -1), features)
        terms = []
        for k in range(self.num_members):
            found = map_examples(
                log_prob,
                self.member(k).denoiser,
                v,
                cond=cond[:, k],
                batch_size=batch_size,
                **settings,
            )
            terms.append(found.value)
        mixture = jax.nn.logsumexp(jnp.stack(terms), axis=0) - np.log(len(terms))
        return mixture - first.log_volume(mixture.dtype)

    def sample(
        self,
        x: PyTree,
        *,
        key: PRNGKey,
        num_samples: int = 1,
        sampler: AbstractSampler | None = None,
        batch_size: int | None = 10_000,
    ) -> Float[Array, "rows samples *targets"]:
        """Draw targets for each row, each from a network taken at random.

        **Arguments:**

        - `x`: features with a leading axis.
        - `key`: all randomness.
        - `num_samples`: draws of each row.
        - `sampler`: `ExpAB(40)` by default.
        - `batch_size`: draws that are in memory at a time.
        """
        check_count("num_samples", num_samples, "at least one draw")
        check_key(key)
        part_key, key = jax.random.split(key)
        first = self.member(0)
        cond, features = jax.tree.map(
            lambda leaf: jnp.repeat(leaf, num_samples, axis=0), self._conditions(x)
        )
        part = np.asarray(
            jax.random.randint(part_key, (len(cond),), 0, self.num_members)
        )
        v = jnp.zeros((len(cond), first.mean.size), features.dtype)
        for k in range(self.num_members):
            rows = np.flatnonzero(part == k)
            if len(rows):
                count = len(rows)
                draws = sample(
                    self.member(k).denoiser,
                    ExpAB(40) if sampler is None else sampler,
                    key=jax.random.fold_in(key, k),
                    num_samples=count,
                    shape=(first.mean.size,),
                    cond=cond[rows, k],
                    batch_size=None if batch_size is None else min(batch_size, count),
                )
                v = v.at[rows].set(draws.x_0)
        y = first.targets(v, features)
        return y.reshape(-1, num_samples, *first.mean.shape)

    @property
    def num_members(self) -> int:
        """K."""
        return len(jax.tree.leaves(eqx.filter(self.networks, eqx.is_array))[0])

    def member(self, index: int) -> ConditionalNetwork:
        """Return one of the networks."""
        return jax.tree.map(lambda a: a[index] if eqx.is_array(a) else a, self.networks)

    def _conditions(self, x):
        """Return conditions (rows, K, size) and features (rows, features)."""
        scaled = jax.tree.map(jnp.asarray, self.member(0).scaler(x))
        return _encoded(self.networks.encoder, scaled)


@eqx.filter_jit
def _encoded(encoders, scaled):
    arrays, rest = eqx.partition(encoders, eqx.is_array)
    first = eqx.combine(jax.tree.map(lambda a: a[0], arrays), rest)

    def one(row):
        cond = jax.vmap(lambda a: eqx.combine(a, rest)(row))(arrays)
        return cond, first.summary(row)

    return jax.vmap(one)(scaled)


@eqx.filter_jit
def _tables(networks, cond, features, batch_size):
    arrays, rest = eqx.partition(networks, eqx.is_array)

    def one(row):
        each, features = row
        table = jax.vmap(lambda a, c: eqx.combine(a, rest).table(c, features))
        return table(arrays, each)

    return jax.lax.map(one, (cond, features), batch_size=min(batch_size, len(cond)))


def _check_finite(name, rows):
    bad = ~np.isfinite(rows)
    if bad.any():
        row = int(np.argwhere(bad)[0, 0])
        raise ValueError(f"{name}: row {row} is not finite; leave it out")
