"""SWAG: a Gaussian fitted to the iterates of stochastic gradient descent."""

from collections.abc import Iterable
from dataclasses import KW_ONLY
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int, PyTree

from ..._random.keys import check_key
from ..._training.capabilities import (
    AbstractGradient,
    AbstractMembers,
    AbstractSequentialMembers,
)
from ..._training.gradient_descent import TrainState
from ..._training.wrapper import ForwardedGradient, Rejected, Withheld
from ..._types import Info, Model, PRNGKey
from ...tree._ravel import ravel
from .._inference.capabilities import AbstractConditional, AbstractTrainedModels
from .._inference.inference import Roles, check_state
from .._inference.map import MAP
from .._inference.refresh_statistics import refresh_statistics
from .._inference.training_batches import TrainingBatches
from .._inference.wrapper import AbstractWrapper
from .._joint.covariance import LowRankCovariance
from .._joint.gaussian_prior import GaussianPrior
from .._posterior.posterior import AbstractPosterior
from .._weights.running_statistics import trains_statistics
from .._weights.unconstrained import constrained, coordinates_of, log_volume

_ONE_PATH = "SWAG follows one model: write DeepEnsemble(SWAG(...), num_members)"


class SWAGState(eqx.Module):
    """The state of SWAG: training, and moments of the iterates so far.

    **Fields:**

    - `train`: of the method inside.
    - `mean`: of the collected iterates.
    - `squares`: sum of squared deviations from the mean (Welford's recursion: the
        difference of two large moments would cancel in float32).
    - `deviations`: the last K iterates minus the mean at their time, in a ring buffer.
    - `count`: iterates collected.
    """

    train: TrainState
    mean: Float[Array, " dim"]
    squares: Float[Array, " dim"]
    deviations: Float[Array, "rank dim"]
    count: Int[Array, ""]


class SWAGPosterior(AbstractPosterior):
    r"""$\mathcal N(\bar w, \tfrac 1 2 (\mathrm{diag}(s) + D D^\top / (K - 1)))$.

    **Arguments:**

    - `params`: $\bar w$, `None` at leaves that are not random.
    - `rest`: all other leaves.
    - `variance`: $s$, the variance of each weight over the path.
    - `deviations`: the rows are the columns of D.
    """

    params: PyTree
    rest: PyTree
    variance: Float[Array, " dim"]
    deviations: Float[Array, "rank dim"]

    def sample(self, *, key: PRNGKey) -> Model:
        vector, unravel = ravel(self.params)
        check_key(key)
        diagonal_key, rank_key = jax.random.split(key)
        independent = jax.random.normal(diagonal_key, vector.shape, vector.dtype)
        rank = len(self.deviations)
        shared = jax.random.normal(rank_key, (rank,), vector.dtype)
        step = jnp.sqrt(self.variance) * independent / 2**0.5
        if rank > 1:
            step = step + shared @ self.deviations / (2 * (rank - 1)) ** 0.5
        return constrained(eqx.combine(unravel(vector + step), self.rest))

    def mean(self) -> Model:
        return constrained(eqx.combine(self.params, self.rest))

    def as_prior(self, *, temperature: float | None = None) -> GaussianPrior:
        """Return this Gaussian as the prior of further data.

        **Arguments:** as in `AbstractPosterior`.

        **Raises:** `ValueError` for a weight that did not move.
        """
        if not bool(jnp.all(self.variance > 0)):
            raise ValueError(
                "a weight did not move along the path of SWAG, and a Gaussian of "
                "variance zero is no prior: leave the leaf out of `random`"
            )
        rank = len(self.deviations)
        scale = jnp.sqrt(0.5 * self.variance)
        factor = jnp.zeros((0, scale.size), scale.dtype)
        if rank > 1:
            factor = self.deviations / (2 * (rank - 1)) ** 0.5 / scale[None]
        covariance = LowRankCovariance(scale, factor).scaled(1.0 / (temperature or 1.0))
        return GaussianPrior(self.params, covariance)

    def log_prob(self, model: Model) -> Float[Array, ""]:
        """Log-density, by the matrix determinant lemma: no dense matrix is formed."""
        values = coordinates_of(self.params, model)
        delta = ravel(values)[0] - ravel(self.params)[0]
        return self._gaussian(delta) - log_volume(values)

    def _gaussian(self, delta):
        rank = len(self.deviations)
        if rank < 2:
            scale = jnp.sqrt(0.5 * self.variance)
            return jnp.sum(dist.Normal(0.0, scale).log_prob(delta))
        factor = self.deviations.T / (2 * (rank - 1)) ** 0.5
        gaussian = dist.LowRankMultivariateNormal(
            jnp.zeros_like(delta), factor, 0.5 * self.variance
        )
        return jnp.asarray(gaussian.log_prob(delta))


class SWAG(AbstractWrapper):
    r"""A Gaussian with the moments of the iterates of SGD at a constant learning rate.

    $$\bar w = \frac 1 n \sum_t w_t, \qquad \Sigma = \frac 1 2 \Big( \mathrm{diag}(
      \overline{w^2} - \bar w^2) + \frac{1}{K - 1} D D^\top \Big)$$

    D holds the last K deviations $w_t - \bar w_t$. The spread is that of SGD's noise,
    so it depends on learning rate and batch size: a schedule that ends in a constant,
    fairly high learning rate is part of the method. Leaves whose prior has an edge are
    averaged in unconstrained coordinates.

    Reference: *A simple baseline for Bayesian uncertainty in deep learning*, Maddox,
    Garipov, Izmailov, Vetrov and Wilson, 2019, https://arxiv.org/abs/1902.02476.

    ```python
    method = SWAG(MAP(log_joint, optax.sgd(0.05)), num_warmup=1000, thin=10)
    multi_swag = DeepEnsemble(method, num_members=5)
    ```

    **Arguments:**

    - `method`: trains the model; its random and point leaves are collected.
    - `num_warmup`: steps before the first iterate may be collected.
    - `thin`: steps from one collected iterate to the next, about those of an epoch.
    - `rank`: K; 0 for the diagonal alone. Memory is K copies of the weights.
    - `num_samples`: draws in `posterior(state, batches, key=key)` of a model with
        running statistics (see `Stateful`), which are computed for each draw.
    """

    wraps: ClassVar = MAP
    forwards: ClassVar = {
        AbstractGradient: ForwardedGradient,
        AbstractMembers: Rejected(_ONE_PATH),
        AbstractSequentialMembers: Rejected(_ONE_PATH),
        AbstractTrainedModels: Withheld("SWAG ends in a Gaussian"),
        AbstractConditional: Withheld("SWAG collects the iterates of one long run"),
    }
    method: MAP
    _: KW_ONLY
    num_warmup: int
    thin: int
    rank: int = 20
    num_samples: int = 30

    def __check_init__(self):
        if self.num_warmup < 0 or self.thin < 1 or self.rank < 0 or self.rank == 1:
            raise ValueError(
                f"num_warmup={self.num_warmup}, thin={self.thin}, rank={self.rank}: "
                "num_warmup is at least 0, thin at least 1, and rank is 0 (diagonal) "
                "or at least 2"
            )

    def init(self, model: Model, *, key: PRNGKey | None = None) -> SWAGState:
        train = self.method.init(model, key=key)
        vector = self._vector(train.model)
        zeros = jnp.zeros_like(vector)
        deviations = jnp.zeros((self.rank, vector.size), vector.dtype)
        return SWAGState(train, zeros, zeros, deviations, jnp.zeros((), jnp.int32))

    def update(
        self, state: SWAGState, batch: PyTree, *, key: PRNGKey
    ) -> tuple[SWAGState, Info]:
        train, info = self.method.update(state.train, batch, key=key)
        due = (train.step > self.num_warmup) & (
            (train.step - self.num_warmup) % self.thin == 0
        )
        vector = self._vector(train.model)
        count = state.count + 1
        delta = vector - state.mean
        mean = state.mean + delta / count.astype(vector.dtype)
        squares = state.squares + delta * (vector - mean)
        deviations = state.deviations
        if self.rank:
            index = state.count % self.rank
            # A choice of the row, not of the buffer: that would copy it in every step.
            row = jnp.where(due, vector - mean, deviations[index])
            deviations = deviations.at[index].set(row)
        mean, squares, count = jax.tree.map(
            lambda new, old: jnp.where(due, new, old),
            (mean, squares, count),
            (state.mean, state.squares, state.count),
        )
        return SWAGState(train, mean, squares, deviations, count), info

    def inner_state(self, state: SWAGState) -> TrainState:
        return state.train

    def evaluate(self, state: SWAGState, batch: PyTree, *, key: PRNGKey) -> Info:
        return self.method.evaluate(state.train, batch, key=key)

    def model(self, state: SWAGState) -> Model:
        """Return the mean of the iterates, or the last model while there is none."""
        return constrained(self._averaged(state))

    def _averaged(self, state):
        vector = self._vector(state.train.model)
        params, rest = self._split(state.train.model)
        mean = jnp.where(state.count > 0, state.mean, vector)
        return eqx.combine(ravel(params)[1](mean), rest)

    def needs_batches(self, model: Model) -> bool:
        return trains_statistics(model)

    def posterior(
        self,
        state: SWAGState,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> AbstractPosterior:
        """Return the Gaussian of the iterates so far, a `SWAGPosterior`.

        For a model that trains running statistics it is a `DrawsPosterior`: samples of
        the Gaussian, each with statistics computed from the `batches`.

        **Raises:** `ValueError` with fewer than two iterates, or without the batches
        and the key where they are needed.
        """
        check_state(self, state, SWAGState)
        count = int(state.count)
        if count < 2:
            raise ValueError(
                f"SWAG has collected {count} iterate(s) and needs two: it collects "
                f"every {self.thin} steps after step {self.num_warmup}, and training "
                f"ended at step {int(state.train.step)}"
            )
        params, rest = self._split(self._averaged(state))
        model = self.model(state)
        posterior = SWAGPosterior(
            params,
            rest,
            state.squares / count,
            state.deviations[: min(count, self.rank)],
        )
        if not trains_statistics(model):
            return posterior
        if batches is None or key is None:
            raise ValueError(
                "this model keeps running statistics, and those of training belong to "
                "no sample: give the training data again and a key, "
                "posterior(state, [(x, y)], key=key)"
            )
        batches = TrainingBatches(self, model, batches)
        return refresh_statistics(
            posterior, batches, key=key, num_samples=self.num_samples
        )

    def _split(self, model):
        roles = Roles.of(model, self.method.random, self.method.point)
        return eqx.partition(model, roles.trained)

    def _vector(self, model):
        return ravel(self._split(model)[0])[0]
