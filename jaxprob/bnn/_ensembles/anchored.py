"""Randomised MAP: an optimum that is a posterior draw for linear models."""

import functools
from collections.abc import Iterable
from dataclasses import KW_ONLY

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import optax
from jaxtyping import Array, Float, PyTree, UInt32

from ... import tree as trees
from ..._training.capabilities import AbstractGradient, AbstractOptimized
from ..._training.gradient_descent import GradientDescent, TrainState
from ..._training.optimizer_update import check_optimizer
from ..._types import Info, Model, PRNGKey, Where
from .._inference.capabilities import (
    AbstractConditional,
    AbstractTrainedModels,
    infer_by_steps,
    restricted_leaves,
)
from .._inference.inference import AbstractInference, Roles, random_or_point
from .._joint.check_prior import check_prior
from .._joint.gaussian_prior import GaussianPrior
from .._joint.log_joint import LogJoint, plain_term
from .._joint.prior import prior_at
from .._joint.sample_prior import sample_prior
from .._posterior.point import PointPosterior
from .._posterior.posterior import AbstractPosterior
from .perturbation import perturbed_log_likelihood, row_key


class AnchoredState(eqx.Module):
    """The state of `AnchoredMAP`: training, the centre of the prior, and the noise.

    **Fields:**

    - `train`: of gradient descent.
    - `anchor`: the draw from the prior; `None` where a leaf is not random.
    - `noise`, `kind`: data and kind of the key of this member's target noise.
    """

    train: TrainState
    anchor: PyTree
    noise: UInt32[Array, "..."]
    kind: str = eqx.field(static=True)


class AnchoredMAP(
    AbstractInference,
    AbstractGradient,
    AbstractOptimized,
    AbstractConditional,
    AbstractTrainedModels,
):
    r"""MAP with a prior centred on a draw from the prior, and randomised rows.

    $$\hat w = \arg\max_w \sum_i \log p(y_i + e_i \mid f_w(x_i)) + \log \mathcal N(w;
      w_0, \tau^{-1}), \quad w_0 \sim \mathcal N(0, \tau^{-1}), \quad e_i \sim
      \mathcal N(0, s^2)$$

    With Gaussian noise of known scale and a model that is linear in w the optimum is an
    **exact** draw from the posterior, so `DeepEnsemble(AnchoredMAP(...), 50)` is 50
    independent draws. For a network it is an ensemble whose spread does not collapse
    where there are no data.

    For every other likelihood (classes, counts, Student's t) row i is weighted by
    $u_i \sim \mathrm{Exp}(1)$ instead, and the spread is that of the posterior as the
    number of rows grows (weighted-likelihood bootstrap). So is a noise level that is
    learned (`LearnedNoise`, `HeteroscedasticNormal`), which does not see the $e_i$.

    The perturbation of a row is a function of the member and of the bits of the row, so
    that it is the same in each epoch, in any order; two rows that are equal in x and y
    have the same perturbation.

    References: *Randomize-then-optimize*, Bardsley, Solonen, Haario and Laine, 2014;
    *Uncertainty in neural networks: approximately Bayesian ensembling*, Pearce,
    Leibfried, Brintrup, Zaki and Neely, 2020, https://arxiv.org/abs/1810.05546;
    *Approximate Bayesian inference with the weighted likelihood bootstrap*, Newton and
    Raftery, 1994.

    **Arguments:**

    - `log_joint`: the prior of every random leaf is a numpyro `Normal`. At a
        temperature T both variances are multiplied by T.
    - `optimizer`, `random`, `point`: as in `MAP`.
    """

    log_joint: LogJoint
    optimizer: optax.GradientTransformation
    _: KW_ONLY
    random: Where | None = None
    point: Where = True

    def __check_init__(self):
        check_optimizer(self.optimizer)

    def init(self, model: Model, *, key: PRNGKey) -> AnchoredState:
        roles = Roles.of(model, self.random, self.point)
        params = eqx.filter(model, roles.random)
        check_prior(self.log_joint.prior, params)
        prior_key, noise_key = jax.random.split(key)
        drawn = sample_prior(
            model, self._tempered(params), key=prior_key, where=roles.random
        )
        train = self._descent(model, None, noise_key).init(model)
        return AnchoredState(
            train,
            anchor=eqx.filter(drawn, roles.random),
            noise=jax.random.key_data(noise_key),
            kind=str(jax.random.key_impl(noise_key)),
        )

    def restricted(self, where: Where) -> "AnchoredMAP":
        return restricted_leaves(self, where)

    def infer(
        self, model: Model, data: PyTree, *, key: PRNGKey, num_steps: int
    ) -> AbstractPosterior:
        return infer_by_steps(self, model, data, key=key, num_steps=num_steps)

    def models(self, state: AnchoredState) -> tuple[Model, ...]:
        return (self.model(state),)

    def trained(self, model: Model) -> PyTree[bool]:
        return random_or_point(model, self.random, self.point)

    def update(
        self, state: AnchoredState, batch: PyTree, *, key: PRNGKey
    ) -> tuple[AnchoredState, Info]:
        train, info = self._of(state).update(state.train, batch, key=key)
        return AnchoredState(train, state.anchor, state.noise, state.kind), info

    def gradient(self, state: AnchoredState, batch: PyTree, *, key: PRNGKey) -> PyTree:
        return self._of(state).gradient(state.train, batch, key=key)

    def evaluate(self, state: AnchoredState, batch: PyTree, *, key: PRNGKey) -> Info:
        """Return the same numbers for the targets without the noise of the member."""
        return self._of(state).evaluate(state.train, batch, key=key)

    def model(self, state: AnchoredState) -> Model:
        return state.train.model

    def posterior(
        self,
        state: AnchoredState,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> PointPosterior:
        return PointPosterior(self.model(state))

    def _tempered(self, params):
        """The prior with its variance multiplied by the temperature."""
        joint = self.log_joint
        if isinstance(joint.prior, GaussianPrior) and not joint.prior.has_edges:
            return joint.prior.at_temperature(joint.temperature)
        for path, leaf in trees.paths(params).items():
            p = prior_at(self.log_joint.prior, path, leaf)
            if not isinstance(p, dist.Normal):
                raise TypeError(
                    f"the prior of {path} is {type(p).__name__} with support "
                    f"{p.support}: AnchoredMAP needs numpyro's Normal, for which "
                    "anchors are exact. Write DeepEnsemble(MAP(...), num_members) for "
                    "other priors; or let a positive leaf be its logarithm"
                )

        def prior(path, leaf):
            p = prior_at(self.log_joint.prior, path, leaf)
            assert isinstance(p, dist.Normal)
            return dist.Normal(p.loc, p.scale * self.log_joint.temperature**0.5)

        return prior

    def _of(self, state: AnchoredState) -> GradientDescent:
        noise_key = jax.random.wrap_key_data(state.noise, impl=state.kind)
        return self._descent(state.train.model, state.anchor, noise_key)

    def _descent(self, model, anchor, noise_key) -> GradientDescent:
        roles = Roles.of(model, self.random, self.point)
        joint = self.log_joint

        def perturbed(p, row):
            # A row that counts u times has the noise of u rows, of which the score has
            # u times the variance, and the weight multiplies the term once more.
            weight = jnp.where(row.weight > 0, row.weight, jnp.ones_like(row.weight))
            return perturbed_log_likelihood(
                p,
                row.y,
                key=row_key(noise_key, (row.x, row.y)),
                temperature=joint.temperature / weight,
            )

        def loss(
            model, batch, *, key, term=plain_term
        ) -> tuple[Float[Array, ""], tuple[Info, PyTree]]:
            log_likelihood, held = joint.with_statistics(
                model, batch, key=key, term=term
            )
            log_prior = _centred(joint.prior, anchor, eqx.filter(model, roles.random))
            log_density = (log_likelihood + log_prior) / joint.temperature
            info = {"nll": -log_likelihood / joint.num_data}
            return -log_density / joint.num_data, (info, held)

        return GradientDescent(
            functools.partial(loss, term=perturbed),
            self.optimizer,
            trainable=roles.trained,
            evaluation_loss=loss,
        )


def _centred(prior, anchor, params):
    """The log-density of the prior with its mean at the anchor."""
    if isinstance(prior, GaussianPrior):
        return prior.around(anchor).log_prob(params)
    centres = trees.paths(anchor)

    def centred(path, leaf):
        p = prior_at(prior, path, leaf)
        assert isinstance(p, dist.Normal)
        return jnp.sum(dist.Normal(centres[path], p.scale).log_prob(leaf))

    return sum(
        (centred(path, leaf) for path, leaf in trees.paths(params).items()), start=0.0
    )
