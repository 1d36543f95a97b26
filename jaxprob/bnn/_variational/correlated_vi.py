"""Variational inference by Gaussians that know correlations."""

import abc
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ... import tree
from ..._checks import path_name
from ..._random.keys import example_keys
from ..._training.ema import EMA
from ..._training.gradient_descent import GradientDescent, TrainState
from ..._types import AbstractVar, Info, Model, PRNGKey, Where
from ...tree._ravel import ravel
from .._inference.descent import AbstractDescent
from .._joint.check_prior import check_prior
from .._joint.kl import kl
from .._joint.log_joint import LogJoint
from .._joint.prior import prior_at
from .._posterior.correlated import (
    AbstractCorrelatedPosterior,
    FullRankPosterior,
    LowRankPosterior,
)
from .._posterior.posterior import chosen
from .._weights.random_leaves import is_random, mean_leaves
from .._weights.randomise import randomise
from .._weights.scale import inverse_softplus


class AbstractGaussianVI(AbstractDescent):
    r"""Fits one Gaussian over all random leaves by maximising the evidence bound.

    $$\mathcal L = \frac{1}{T} \frac{N}{B} \sum_i \mathbb E_{q(w)}[\log p(y_i \mid
      f_w(x_i))] - \mathrm{KL}_T(q \| p)$$

    The expectation is a mean over draws of the whole model. What is trained is the
    posterior itself, which is the `model` of the state.
    """

    log_joint: AbstractVar[LogJoint]
    random: AbstractVar[Where | None]
    point: AbstractVar[Where]
    num_samples: AbstractVar[int]
    scale: AbstractVar[float | Callable[[str, Array], Any]]
    stick_the_landing: AbstractVar[bool]

    def __check_init__(self):
        if self.num_samples < 1:
            raise ValueError(f"num_samples={self.num_samples}: at least one is needed")

    @abc.abstractmethod
    def start(
        self, params: PyTree, rest: PyTree, scale: Float[Array, " dim"], *, key: PRNGKey
    ) -> AbstractCorrelatedPosterior:
        """The Gaussian before the first step.

        **Arguments:**

        - `params`, `rest`: random leaves at their means, and the others.
        - `scale`: standard deviations to start from.
        - `key`: for what starts at random.
        """

    def init(self, model: Model, *, key: PRNGKey) -> TrainState:
        placed = randomise(model, self.random, scale=self.scale)
        flags = jax.tree.map(is_random, placed, is_leaf=is_random)
        nodes = jax.tree.map(
            lambda node: node if is_random(node) else None, placed, is_leaf=is_random
        )
        check_prior(self.log_joint.prior, nodes)
        params, rest = eqx.partition(mean_leaves(placed), flags)
        scales = jax.tree.map(lambda node: node.scale, nodes, is_leaf=is_random)
        posterior = self.start(params, rest, ravel(scales)[0], key=key)
        return self._descent(posterior).init(posterior)

    def posterior(
        self,
        state: TrainState,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> AbstractCorrelatedPosterior:
        return self._trained(state)

    def _descent(self, posterior: AbstractCorrelatedPosterior) -> GradientDescent:
        points = tree.select(posterior.mean(), self.point)
        trained = jax.tree.map(eqx.is_inexact_array, posterior)
        rest = jax.tree.map(
            lambda leaf, flag: None if leaf is None else flag,
            posterior.rest,
            points,
            is_leaf=lambda leaf: leaf is None,
        )
        trained = eqx.tree_at(lambda q: q.rest, trained, rest)
        return GradientDescent(self._loss, self.optimizer, self.ema, trained)

    def _loss(
        self, posterior: AbstractCorrelatedPosterior, batch: PyTree, *, key: PRNGKey
    ) -> tuple[Float[Array, ""], Info]:
        joint = self.log_joint
        kl_key, sample_key = jax.random.split(key)

        def terms(key):
            weight_key, call_key = jax.random.split(key)
            drawn = posterior.sample(key=weight_key)
            log_likelihood = joint.log_likelihood(drawn, batch, key=call_key)
            return log_likelihood, self._log_ratio(posterior, drawn)

        keys = example_keys(sample_key, self.num_samples)
        log_likelihoods, log_ratios = jax.vmap(terms)(keys)
        expected = jnp.mean(log_likelihoods)
        divergence = jnp.mean(log_ratios)
        if not self.stick_the_landing:
            divergence = divergence + self._divergence(posterior, kl_key)
        elbo = expected / joint.temperature - divergence
        info = {"nll": -expected / joint.num_data, "kl": divergence, "elbo": elbo}
        return -elbo / joint.num_data, info

    def _divergence(self, posterior, key):
        r"""$\mathbb E_q[\log q - \log p / T]$ but for priors that correlate entries.

        The expectation of $\log p$ is that under the marginals, whose own divergence
        has the entropy of the marginals in it instead of q's.
        """
        marginals = _keep(
            posterior.marginals(), lambda p: not p.event_dim, self.log_joint
        )
        nodes = [n for n in jax.tree.leaves(marginals, is_leaf=is_random) if n]
        separate = sum((node.entropy() for node in nodes), start=jnp.zeros(()))
        divergence = kl(
            marginals,
            self.log_joint.prior,
            temperature=self.log_joint.temperature,
            key=key,
            num_samples=self.num_samples,
        )
        return divergence + separate - posterior.entropy()

    def _log_ratio(self, posterior, drawn):
        """Of a draw: the part of the divergence that is estimated.

        All of it when sticking, with q's own parameters fixed (what is left out, the
        score of q, is zero in the mean); else that of priors that correlate entries.
        """
        joint = self.log_joint
        values = chosen(posterior.params, drawn)
        if self.stick_the_landing:
            fixed = jax.lax.stop_gradient(eqx.filter(posterior, eqx.is_inexact_array))
            fixed = eqx.combine(fixed, posterior)
            return fixed.log_prob(drawn) - joint.log_prior(values) / joint.temperature
        correlated = _keep(values, lambda p: p.event_dim, joint)
        return -joint.log_prior(correlated) / joint.temperature


def _keep(params, condition, joint):
    """The leaves whose prior meets a condition, `None` for the others."""

    def one(path, leaf):
        name = path_name(path)
        return leaf if condition(prior_at(joint.prior, name, leaf)) else None

    return jax.tree_util.tree_map_with_path(one, params, is_leaf=is_random)


class FullRankVI(AbstractGaussianVI):
    r"""Variational inference with all correlations, $q = \mathcal N(\mu, L L^\top)$.

    Where the posterior is Gaussian, q is the posterior and the bound the evidence. For
    P weights L holds P squared numbers: up to about a thousand. Beyond that take
    `LowRankVI`, or `MeanFieldVI` without correlations.

    References: *Automatic differentiation variational inference*, Kucukelbir, Tran,
    Ranganath, Gelman and Blei, 2017, https://arxiv.org/abs/1603.00788; *Sticking the
    landing*, Roeder, Wu and Duvenaud, 2017, https://arxiv.org/abs/1703.09194.

    ```python
    method = FullRankVI(log_joint, optax.adam(1e-2))
    state, _ = jaxprob.fit(method, model, (x, y), key=key, num_epochs=500)
    covariance = method.posterior(state).covariance()
    ```

    **Arguments:**

    - `log_joint`: likelihood, prior and N.
    - `optimizer`: any optax transformation, without weight decay.
    - `random`, `point`, `num_samples`, `scale`, `ema`: as in `MeanFieldVI`.
    - `stick_the_landing`: replaces the closed-form divergence by its estimate from the
        draw with q held fixed: the gradient then has no noise where q is exact, and
        training with a constant step ends there. On by default, since q can be.
    """

    log_joint: LogJoint
    optimizer: optax.GradientTransformation
    _: KW_ONLY
    random: Where | None = None
    point: Where = True
    ema: EMA | None = None
    num_samples: int = 1
    scale: float | Callable[[str, Array], Any] = 0.1
    stick_the_landing: bool = True

    def start(
        self, params: PyTree, rest: PyTree, scale: Float[Array, " dim"], *, key: PRNGKey
    ) -> FullRankPosterior:
        return FullRankPosterior.of(params, rest, scale)


class LowRankVI(AbstractGaussianVI):
    r"""Variational inference with a few correlated directions.

    $$q(w) = \mathcal N(\mu, D (I + U^\top U) D), \qquad D = \mathrm{diag}(\sigma)$$

    U has `rank` rows. Memory and time grow with rank times P, so this holds for large
    models. Rank 0 would be `MeanFieldVI`; rank P is `FullRankVI`, exact where the
    posterior is Gaussian.

    References: *Gaussian variational approximation with a factor covariance
    structure*, Ong, Nott and Smith, 2018, https://arxiv.org/abs/1701.03208; *SLANG*,
    Mishkin, Kunstner, Nielsen, Schmidt and Khan, 2018, https://arxiv.org/abs/1811.04504.

    ```python
    method = LowRankVI(log_joint, optax.adam(1e-2), rank=10)
    ```

    **Arguments:**

    - `log_joint`: likelihood, prior and N.
    - `optimizer`: any optax transformation, without weight decay.
    - `rank`: rows of U.
    - `random`, `point`, `num_samples`, `scale`, `ema`: as in `MeanFieldVI`. U starts at
        random, at a tenth of `scale`: at zero its gradient would vanish.
    - `stick_the_landing`: as in `FullRankVI`. Off by default: a q of low rank is seldom
        exact.
    """

    log_joint: LogJoint
    optimizer: optax.GradientTransformation
    _: KW_ONLY
    random: Where | None = None
    point: Where = True
    ema: EMA | None = None
    num_samples: int = 1
    scale: float | Callable[[str, Array], Any] = 0.1
    stick_the_landing: bool = False
    rank: int = 10

    def __check_init__(self):
        if self.rank < 1:
            raise ValueError(
                f"rank={self.rank}: at least one; MeanFieldVI has no correlations"
            )

    def start(
        self, params: PyTree, rest: PyTree, scale: Float[Array, " dim"], *, key: PRNGKey
    ) -> LowRankPosterior:
        noise = jax.random.normal(key, (self.rank, scale.size), scale.dtype)
        factor = 0.1 * noise / self.rank**0.5
        return LowRankPosterior(params, rest, inverse_softplus(scale), factor)
