"""Mean-field variational inference by natural gradients."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import optax
from jaxtyping import PyTree

from ... import tree
from ..._random.keys import example_keys
from ..._training.capabilities import AbstractGradient
from ..._training.gradient_descent import TrainState
from ..._training.optimizer_update import check_optimizer, optimizer_update
from ..._types import Info, Model, PRNGKey, Where
from ...tree._single import single
from .._inference.capabilities import (
    AbstractConditional,
    infer_by_steps,
    restricted_leaves,
)
from .._inference.inference import (
    AbstractInference,
    Roles,
    check_state,
    random_or_point,
)
from .._joint.check_prior import check_prior
from .._joint.gaussian_prior import correlated_prior
from .._joint.kl import kl
from .._joint.log_joint import LogJoint
from .._joint.prior import with_priors
from .._joint.unconstrain import unconstrained
from .._joint.unconstrained_prior import UnconstrainedPrior
from .._posterior.mean_field import MeanFieldPosterior
from .._posterior.posterior import AbstractPosterior
from .._weights.random_leaves import Gaussian, is_random
from .._weights.scale import is_traced
from .._weights.unconstrained import constrained
from .ivon_optimizer import distance_from_optimum, ivon, sample_ivon

_FIRST_STEPS = 200


class IVON(AbstractInference, AbstractGradient, AbstractConditional):
    r"""Mean-field variational inference by natural gradients, at the cost of Adam.

    The same independent Gaussians as `MeanFieldVI`, whose variances come from a running
    estimate of the curvature, with one gradient at one draw of the weights a step (see
    `bnn.ivon`). It needs no gradient in the scales and half the memory of the
    optimiser; `MeanFieldVI` is for priors that are not Normal.

    Reference: *Variational learning is effective for large deep networks*, Shen et al.,
    2024, https://arxiv.org/abs/2402.17641.

    ```python
    method = IVON(log_joint, 0.1)
    state, _ = jaxprob.fit(method, model, (x, y), key=key, num_epochs=200)
    posterior = method.posterior(state)          # a MeanFieldPosterior
    ```

    **Arguments:**

    - `log_joint`: the prior of every random leaf is a numpyro `Normal`, or a
        `LogNormal`, which is one in the logarithm of the leaf.
    - `learning_rate`: a number or a schedule. Decay it to zero: the mean then settles.
    - `random`: leaves that get a Gaussian, as in `MAP`.
    - `point`: of the others, those that are optimised, by `point_optimizer`.
    - `point_optimizer`: any optax transformation, for points alone.
    - `num_samples`: draws of the model in each step.
    - `hess_init`, `beta1`, `beta2`, `clip_radius`, `trust_radius`: as in `ivon`.
        `beta2=0.99999` is for tens of thousands of steps; with a thousand take 0.999.
    """

    log_joint: LogJoint
    learning_rate: float | Callable[[Any], Any]
    _: KW_ONLY
    random: Where | None = None
    point: Where = True
    point_optimizer: optax.GradientTransformation | None = None
    num_samples: int = 1
    hess_init: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.99999
    clip_radius: float = float("inf")
    trust_radius: float = 3.0

    def __check_init__(self):
        if self.num_samples < 1:
            raise ValueError(f"num_samples={self.num_samples}: at least one is needed")
        if self.point_optimizer is not None:
            check_optimizer(self.point_optimizer)
        if isinstance(self.learning_rate, optax.GradientTransformation):
            raise TypeError(
                "IVON is an optimiser itself: give a learning rate, such as 0.1, or a "
                "schedule. `point_optimizer=` is for leaves that are points"
            )

    def init(self, model: Model, *, key: PRNGKey | None = None) -> TrainState:
        model = self.unconstrained(model)
        params, points, _ = self._split(model)
        check_prior(self.log_joint.prior, params)
        if jax.tree.leaves(points) and self.point_optimizer is None:
            name = next(iter(tree.paths(points)))
            raise ValueError(
                f"{name} is a point, not random, and the rule of IVON is for random "
                "leaves: give point_optimizer=optax.adam(1e-3), or point=False to "
                "freeze it"
            )
        opt_state = (
            self._ivon(params).init(params),
            None if self.point_optimizer is None else self.point_optimizer.init(points),
        )
        return TrainState(model, opt_state, None, jnp.zeros((), jnp.int32))

    def unconstrained(self, model: Model) -> Model:
        return unconstrained(model, self.log_joint.prior, self.random)

    def restricted(self, where: Where) -> "IVON":
        return restricted_leaves(self, where)

    def infer(
        self, model: Model, data: PyTree, *, key: PRNGKey, num_steps: int
    ) -> AbstractPosterior:
        return infer_by_steps(self, model, data, key=key, num_steps=num_steps)

    def trained(self, model: Model) -> PyTree[bool]:
        return random_or_point(model, self.random, self.point)

    def update(
        self, state: TrainState, batch: PyTree, *, key: PRNGKey
    ) -> tuple[TrainState, Info]:
        params, points, _ = self._split(state.model)
        inner, outer = state.opt_state
        values, (grads, point_grads), drawn = self._gradients(state, batch, key)
        info = self._info(params, inner.scale, jnp.mean(values))
        updates, inner = self._ivon(params).update(grads, inner, params, drawn=drawn)
        params = optax.apply_updates(params, updates)
        if self.point_optimizer is not None:
            temperature = self.log_joint.temperature
            point_grads = jax.tree.map(
                lambda g: jnp.mean(g, 0) / temperature, point_grads
            )

            def value_fn(points):
                model = eqx.combine(points, state.model)
                there = eqx.tree_at(lambda it: it.model, state, model)
                return jnp.mean(self._gradients(there, batch, key)[0]) / temperature

            updates, outer = optimizer_update(
                self.point_optimizer,
                point_grads,
                outer,
                points,
                value=jnp.mean(values) / temperature,
                value_fn=value_fn,
            )
            points = optax.apply_updates(points, updates)
        model = eqx.combine(params, points, state.model)
        return TrainState(model, (inner, outer), None, state.step + 1), info

    def gradient(self, state: TrainState, batch: PyTree, *, key: PRNGKey) -> PyTree:
        return eqx.combine(*self._gradients(state, batch, key)[1])

    def evaluate(self, state: TrainState, batch: PyTree, *, key: PRNGKey) -> Info:
        params, points, rest = self._split(eqx.nn.inference_mode(state.model))
        inner, _ = state.opt_state

        def one(key):
            draw_key, call_key = jax.random.split(key)
            drawn = sample_ivon(params, inner, key=draw_key)
            return self._nll((drawn, points), rest, batch, call_key)

        values = jax.vmap(one)(example_keys(key, self.num_samples))
        return self._info(params, inner.scale, jnp.mean(values))

    def model(self, state: TrainState) -> Model:
        """Return the model whose random leaves are their posterior means."""
        return constrained(state.model)

    def posterior(
        self,
        state: TrainState,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> MeanFieldPosterior:
        """Return the Gaussian with the current means and scales.

        Warns where most of the curvature is `hess_init` still, and where over the last
        hundred steps the means were more than ten standard deviations from where their
        gradient vanishes.
        """
        check_state(self, state, TrainState)
        if not is_traced(state.step):
            _warn_of_initial_curvature(self, int(state.step))
            _warn_of_distance(state.opt_state[0])
        params, points, rest = self._split(state.model)
        nodes = _gaussians(params, state.opt_state[0].scale)
        return MeanFieldPosterior(eqx.combine(nodes, points, rest, is_leaf=is_random))

    def _split(self, model):
        roles = Roles.of(model, self.random, self.point)
        params, rest = eqx.partition(model, roles.random)
        points, rest = eqx.partition(rest, roles.point)
        return params, points, rest

    def _gradients(self, state, batch, key):
        """Values, gradients in random leaves and points, and weights, of each draw."""
        params, points, rest = self._split(state.model)
        inner, _ = state.opt_state

        def one(key):
            draw_key, call_key = jax.random.split(key)
            drawn = sample_ivon(params, inner, key=draw_key)
            value, grads = jax.value_and_grad(self._nll)(
                (drawn, points), rest, batch, call_key
            )
            return value, grads, drawn

        return jax.vmap(one)(example_keys(key, self.num_samples))

    def _nll(self, both, rest, batch, key):
        model = eqx.combine(*both, rest)
        joint = self.log_joint
        return -joint.log_likelihood(model, batch, key=key) / joint.num_data

    def _info(self, params, scales, nll):
        joint = self.log_joint
        divergence = kl(
            _gaussians(params, scales), joint.prior, temperature=joint.temperature
        )
        elbo = -nll * joint.num_data / joint.temperature - divergence
        loss = -elbo / joint.num_data
        return {"loss": loss, "nll": nll, "kl": divergence, "elbo": elbo}

    def _ivon(self, params) -> optax.GradientTransformationExtraArgs:
        joint = self.log_joint
        if correlated_prior(joint.prior) is not None:
            raise TypeError(
                "the prior correlates weights, and the rule of IVON is for independent "
                "ones: write FullRankVI or MeanFieldVI, or make the prior of a "
                "posterior without correlations"
            )
        centers, decays = {}, {}
        for name, leaf, p in with_priors(
            joint.prior, params, temperature=joint.temperature
        ):
            if not isinstance(p, dist.Normal):
                given = p.base if isinstance(p, UnconstrainedPrior) else p
                raise TypeError(
                    f"the prior of {name} is {type(given).__name__}, on the support "
                    f"{given.support}: IVON needs numpyro's Normal, or a LogNormal at "
                    "temperature 1, which is Normal in the logarithm. Write "
                    "MeanFieldVI for other priors."
                )
            dtype = single(leaf).dtype
            precision = 1.0 / jnp.asarray(p.scale, dtype) ** 2
            centers[name] = jnp.broadcast_to(jnp.asarray(p.loc, dtype), leaf.shape)
            decays[name] = jnp.broadcast_to(precision / joint.num_data, leaf.shape)
        structure = jax.tree.structure(params)
        return ivon(
            self.learning_rate,
            joint.num_data / joint.temperature,
            hess_init=self.hess_init,
            beta1=self.beta1,
            beta2=self.beta2,
            clip_radius=self.clip_radius,
            trust_radius=self.trust_radius,
            weight_decay=jax.tree.unflatten(structure, list(decays.values())),
            center=jax.tree.unflatten(structure, list(centers.values())),
        )


def _gaussians(params, scales):
    return jax.tree.map(Gaussian.of, params, scales)


def _warn_of_distance(inner):
    if int(inner.count) < _FIRST_STEPS:
        return
    distance, kept = distance_from_optimum(inner)
    if distance > 10.0 and kept > 0.5:
        warnings.warn(
            f"over the last hundred steps the means were {distance:.0f} standard "
            "deviations of the posterior from where their gradient vanishes: training "
            "ended before they came there, and the posterior is narrow around another "
            "place. Train for more steps, start with a higher learning rate, or give a "
            "hess_init nearer to the curvature of the loss",
            stacklevel=3,
        )


def _warn_of_initial_curvature(method, step):
    left = method.beta2**step
    if left > 0.5:
        remedy = 1 - 5 / max(step, 10)
        warnings.warn(
            f"after {step} steps with beta2={method.beta2} the curvature that sets the "
            f"posterior's scales is {left:.0%} hess_init={method.hess_init} and not "
            f"that of the loss: train longer, or write IVON(..., beta2={remedy:.5g})",
            stacklevel=3,
        )
