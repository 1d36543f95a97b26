"""Mean-field variational inference: Bayes by backprop, for any module."""

from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._random.keys import example_keys
from ..._random.standard_normal import like, philox
from ..._training.ema import EMA
from ..._training.gradient_descent import GradientDescent, TrainState
from ..._types import Info, Model, PRNGKey, Where
from .._inference.descent import AbstractDescent
from .._joint.check_prior import check_prior
from .._joint.kl import kl
from .._joint.log_joint import LogJoint
from .._posterior.mean_field import MeanFieldPosterior
from .._weights.choice import select
from .._weights.random_leaves import is_random, mean_leaves, sample_leaves
from .._weights.randomise import randomise
from .estimators import Estimator, per_example, prepare


class MeanFieldVI(AbstractDescent):
    r"""Independent Gaussians that maximise the evidence lower bound.

    $$\mathcal L = \frac{1}{T} \frac{N}{B} \sum_i \mathbb E_{q(w)}[\log p(y_i \mid
      f_w(x_i))] - \mathrm{KL}_T(q \| p)$$

    The expectation is a mean over draws of the whole model, one draw for all rows of
    the batch; the divergence is in closed form for Normal priors. The loss is
    $-\mathcal L / N$, in nats per row of data.

    The best factorised Gaussian matches the *precisions* of a Gaussian posterior, so
    its variances are too small where weights correlate; compare with `Laplace` or
    `HMC`. Learning rates about ten times those of MAP are usual.

    References: *Weight uncertainty in neural networks*, Blundell, Cornebise,
    Kavukcuoglu and Wierstra, 2015, https://arxiv.org/abs/1505.05424; *Variational
    dropout and the local reparameterization trick*, Kingma, Salimans and Welling, 2015,
    https://arxiv.org/abs/1506.02557; *Flipout*, Wen, Vicol, Ba, Tran and Grosse, 2018,
    https://arxiv.org/abs/1803.04386; *Sticking the landing*, Roeder, Wu and Duvenaud,
    2017, https://arxiv.org/abs/1703.09194.

    ```python
    method = MeanFieldVI(log_joint, optax.adam(1e-2))
    state, history = jaxprob.fit(method, model, (x, y), key=key, num_epochs=500)
    posterior = method.posterior(state)
    ```

    **Arguments:**

    - `log_joint`: likelihood, prior and N.
    - `optimizer`: any optax transformation, without weight decay.
    - `random`: leaves that get a Gaussian (see `jaxprob.tree`); by default all but
        those of normalisation layers and of `LearnedNoise`. Random leaves that the
        model already holds, as in `BayesianLinear`, are kept as they are.
    - `point`: of the others, those that are optimised. What is in neither is frozen.
    - `num_samples`: draws of the model in each step.
    - `scale`: initial standard deviations, as in `bayesianize`.
    - `estimator`: three estimators of the same bound. `"weight"` draws the model once
        for a batch, and works for any module. `"flipout"` draws signs for each example
        in linear layers and convolutions, so that the noise averages out over the
        batch; other leaves are drawn as before. `"local"` draws the outputs of linear
        layers. It has the least noise, and needs layers that are used once for an
        example.
    - `stick_the_landing`: replaces the closed-form divergence by its estimate from the
        draw with q held fixed, whose gradient has no variance where q is exact. Only
        with `"weight"`.
    - `ema`: averages the trained leaves; `model` and `posterior` then use the average.
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
    estimator: Estimator = "weight"

    def __check_init__(self):
        if self.num_samples < 1:
            raise ValueError(f"num_samples={self.num_samples}: at least one is needed")
        if self.estimator not in ("weight", "local", "flipout"):
            raise ValueError(
                f"estimator={self.estimator!r}: it is 'weight', 'local' or 'flipout'"
            )
        if self.stick_the_landing and self.estimator != "weight":
            raise ValueError(
                "stick_the_landing=True needs the drawn weights, so "
                f"estimator='weight'; this one is {self.estimator!r}"
            )

    def init(self, model: Model, *, key: PRNGKey | None = None) -> TrainState:
        free = self.unconstrained(model)
        random_model = randomise(free, self.random, scale=self.scale)
        check_prior(self.log_joint.prior, _only_random(random_model))
        return self._descent(random_model).init(random_model)

    def posterior(
        self,
        state: TrainState,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> MeanFieldPosterior:
        return MeanFieldPosterior(self._trained(state))

    def _descent(self, model: Model) -> GradientDescent:
        flags = select(mean_leaves(model), self.point)
        trained = jax.tree.map(
            lambda node, flag: (
                jax.tree.map(lambda _: True, node) if is_random(node) else flag
            ),
            model,
            flags,
            is_leaf=is_random,
        )
        return GradientDescent(self._loss, self.optimizer, self.ema, trained)

    def _loss(
        self, model: Model, batch: PyTree, *, key: PRNGKey
    ) -> tuple[Float[Array, ""], Info]:
        given = key

        def apply(model, x, *, key):
            return self.log_joint.apply(model, x, key=like(key, given))

        joint = eqx.tree_at(lambda j: j.apply, self.log_joint, apply)
        kl_key, sample_key = jax.random.split(philox(key))

        def terms(key):
            weight_key, call_key = jax.random.split(key)
            if self.estimator != "weight":
                drawn = prepare(model, self.estimator, key=weight_key)
                bound = eqx.tree_at(lambda j: j.apply, joint, per_example(joint.apply))
                return bound.log_likelihood(drawn, batch, key=call_key), jnp.zeros(())
            drawn = sample_leaves(model, key=weight_key)
            log_likelihood = joint.log_likelihood(drawn, batch, key=call_key)
            return log_likelihood, self._log_ratio(model, drawn)

        keys = example_keys(sample_key, self.num_samples)
        # An axis of a single draw would change the layout of every product.
        several = self.num_samples > 1
        log_likelihoods, log_ratios = (
            jax.vmap(terms)(keys) if several else terms(keys[0])
        )
        expected = jnp.mean(log_likelihoods)
        if self.stick_the_landing:
            divergence = jnp.mean(log_ratios)
        else:
            divergence = kl(
                model,
                joint.prior,
                temperature=joint.temperature,
                key=kl_key,
                num_samples=self.num_samples,
            )
        elbo = expected / joint.temperature - divergence
        info = {"nll": -expected / joint.num_data, "kl": divergence, "elbo": elbo}
        return -elbo / joint.num_data, info

    def _log_ratio(self, model, drawn):
        r"""$\log q(w) - \log p(w) / T$ of a draw, where the parameters of q are fixed.

        The score of q, which is left out, has mean zero.
        """
        if not self.stick_the_landing:
            return jnp.zeros(())
        joint = self.log_joint
        fixed = MeanFieldPosterior(jax.lax.stop_gradient(_only_random(model)))
        flags = jax.tree.map(is_random, model, is_leaf=is_random)
        values = eqx.filter(drawn, flags)
        return fixed.log_density(values) - joint.log_prior(values) / joint.temperature


def _only_random(model: Model) -> PyTree:
    return jax.tree.map(
        lambda node: node if is_random(node) else None, model, is_leaf=is_random
    )
