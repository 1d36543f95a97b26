"""Variational inference by one Gaussian over all random leaves."""

import abc
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._checks import path_name
from ..._random.keys import example_keys
from ..._training.gradient_descent import GradientDescent, TrainState
from ..._types import Info, Model, PRNGKey, Where
from ...tree._ravel import ravel
from .._inference.descent import AbstractDescent
from .._joint.check_prior import check_prior
from .._joint.gaussian_prior import correlated_prior
from .._joint.kl import kl
from .._joint.log_joint import LogJoint
from .._joint.prior import is_prior_leaf, leaf_prior
from .._posterior.correlated import AbstractCorrelatedPosterior
from .._weights.choice import select
from .._weights.random_leaves import is_random, mean_leaves
from .._weights.randomise import randomise

if TYPE_CHECKING:  # see _training/capabilities.py
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractGaussianVI(AbstractDescent):
    r"""Base class of methods that fit one Gaussian over all random leaves.

    $$\mathcal L = \frac{1}{T} \frac{N}{B} \sum_i \mathbb E_{q(w)}[\log p(y_i \mid
      f_w(x_i))] - \mathrm{KL}_T(q \| p)$$

    The expectation is a mean over draws of the whole model. The posterior itself is
    trained: it is the `model` of the state.

    **Fields:**

    - `num_samples`: draws of the model in each step.
    - `scale`: initial standard deviations, as in `bayesianize`.
    - `stick_the_landing`: whether the divergence is estimated from the draw with q held
        fixed, in place of its closed form.
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
    def initial(
        self, params: PyTree, rest: PyTree, scale: Float[Array, " dim"], *, key: PRNGKey
    ) -> AbstractCorrelatedPosterior:
        """Return the Gaussian before the first step.

        **Arguments:**

        - `params`, `rest`: random leaves at their means, and the others.
        - `scale`: initial standard deviations.
        - `key`: of everything random in the Gaussian.
        """

    def init(self, model: Model, *, key: PRNGKey) -> TrainState:
        free = self.unconstrained(model)
        placed = randomise(free, self.random, scale=self.scale)
        flags = jax.tree.map(is_random, placed, is_leaf=is_random)
        nodes = jax.tree.map(
            lambda node: node if is_random(node) else None, placed, is_leaf=is_random
        )
        check_prior(self.log_joint.prior, nodes)
        params, rest = eqx.partition(mean_leaves(placed), flags)
        scales = jax.tree.map(lambda node: node.scale, nodes, is_leaf=is_random)
        posterior = self.initial(params, rest, ravel(scales)[0], key=key)
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
        model = eqx.combine(posterior.params, posterior.rest)
        points = select(model, self.point)
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
            values = posterior.coordinates(key=weight_key)
            drawn = eqx.combine(values, posterior.rest)
            log_likelihood = joint.log_likelihood(drawn, batch, key=call_key)
            return log_likelihood, self._log_ratio(posterior, values)

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
        r"""$\mathbb E_q[\log q - \log p / T]$ without priors that correlate entries.

        The expectation of $\log p$ needs the marginals alone. Their divergence contains
        their entropies, which are exchanged for the entropy of q.
        """
        if correlated_prior(self.log_joint.prior) is not None:
            return -posterior.entropy()
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

    def _log_ratio(self, posterior, values):
        """The part of the divergence that is estimated from a draw.

        It is all of it with `stick_the_landing`, where the parameters of q are held
        fixed: the score of q, which is left out, has mean zero. Otherwise it is that of
        priors that correlate entries.
        """
        joint = self.log_joint
        if self.stick_the_landing:
            fixed = jax.lax.stop_gradient(eqx.filter(posterior, eqx.is_inexact_array))
            fixed = eqx.combine(fixed, posterior)
            return (
                fixed.log_density(values) - joint.log_prior(values) / joint.temperature
            )
        if correlated_prior(joint.prior) is not None:
            return -joint.log_prior(values) / joint.temperature
        correlated = _keep(values, lambda p: p.event_dim, joint)
        return -joint.log_prior(correlated) / joint.temperature


def _keep(params, condition, joint):
    """The leaves whose prior meets a condition, `None` for the others."""

    def one(path, leaf):
        name = path_name(path)
        return leaf if condition(leaf_prior(joint.prior, name, leaf)) else None

    return jax.tree_util.tree_map_with_path(one, params, is_leaf=is_prior_leaf)
