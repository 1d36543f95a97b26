"""Laplace: a Gaussian with the curvature of the log joint at its mode."""

from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .. import tree
from .._learner import TrainState
from .._types import Info, Model, PRNGKey, Where
from ._apply import call_model
from ._bayesianize import choose
from ._curvature import AbstractCurvature
from ._inference import AbstractInference
from ._laplace_pass import Kind, Structure, curvature, linear_layers
from ._log_joint import LogJoint
from ._map import MAP
from ._posterior import AbstractPosterior, chosen
from ._prior import Prior, prior_at
from ._scale import is_traced


class LaplacePosterior(AbstractPosterior):
    r"""$q(w) = \mathcal N(\hat w, T (G + \mathrm{diag}(\tau))^{-1})$.

    The prior enters when it is used, so another prior costs no pass over the data:
    `eqx.tree_at(lambda q: q.prior, posterior, IsotropicNormal(0.3))`.

    **Arguments:**

    - `params`: $\hat w$, `None` at leaves that are not random.
    - `rest`: all other leaves.
    - `curvature`: $G$.
    - `prior`: its precision is $\tau$.
    - `log_likelihood`: of all data at $\hat w$.
    - `temperature`: T.
    """

    params: PyTree
    rest: PyTree
    curvature: AbstractCurvature
    prior: Prior
    log_likelihood: Float[Array, ""]
    temperature: float = eqx.field(static=True)

    @property
    def linearized(self) -> bool:
        """`predict` linearises the network round the mode, for which this is exact."""
        return True

    def sample(self, key: PRNGKey) -> Model:
        vector, unravel = ravel_pytree(self.params)
        draw = self.curvature.sample(self._tau(), key=key)
        return eqx.combine(unravel(vector + self.temperature**0.5 * draw), self.rest)

    def mean(self) -> Model:
        return eqx.combine(self.params, self.rest)

    def log_prob(self, model: Model) -> Float[Array, ""]:
        delta = (
            ravel_pytree(chosen(self.params, model))[0] - ravel_pytree(self.params)[0]
        )
        tau = self._tau()
        normaliser = self.curvature.log_det(tau) - delta.size * jnp.log(
            2 * jnp.pi * self.temperature
        )
        return 0.5 * (
            normaliser - self.curvature.quadratic(tau, delta) / self.temperature
        )

    def log_evidence(self) -> Float[Array, ""]:
        r"""Laplace's approximation of $\log p(\mathcal D)$, in nats.

        $$\log p(\mathcal D \mid \hat w) + \log p(\hat w) + \tfrac P 2 \log 2 \pi -
          \tfrac 1 2 \log |G + \mathrm{diag}(\tau)|$$

        Differentiable in the prior. It is that of $T = 1$.
        """
        log_prior = sum(
            (
                jnp.sum(prior_at(self.prior, path, leaf).log_prob(leaf))
                for path, leaf in tree.paths(self.params).items()
            ),
            start=0.0,
        )
        tau = self._tau()
        volume = 0.5 * tau.size * jnp.log(2 * jnp.pi)
        log_det = self.curvature.log_det(tau)
        return self.log_likelihood + log_prior + volume - 0.5 * log_det

    def output_distribution(
        self, x: PyTree, *, apply: Any = call_model
    ) -> tuple[Float[Array, "rows out"], Float[Array, "rows out out"]]:
        r"""The linearised network's Gaussian over outputs, without sampling.

        $$f(x) \sim \mathcal N(f_{\hat w}(x), J \Sigma J^\top)$$

        **Arguments:**

        - `x`: rows.
        - `apply`: as in `LogJoint`.

        **Returns:** mean and covariance of each row's outputs, flattened. With
        `NormalLikelihood` the predictive variance is the diagonal plus the noise's.
        """
        vector, unravel = ravel_pytree(self.params)
        tau, rest = self._tau(), eqx.nn.inference_mode(self.rest)

        def one(x):
            def output(vector):
                model = eqx.combine(unravel(vector), rest)
                return ravel_pytree(apply(model, x, key=jax.random.key(0)))[0]

            jacobian = jax.jacrev(output)(vector)
            covariance = self.curvature.covariance(tau, jacobian)
            return output(vector), self.temperature * covariance

        return jax.lax.map(one, jax.tree.map(jnp.asarray, x), batch_size=64)

    def _tau(self) -> Float[Array, " dim"]:
        """Negative second derivatives of the log prior at the mode."""

        def one(path, leaf):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            p = prior_at(self.prior, name, leaf)
            if p.event_dim:
                raise ValueError(
                    f"the prior of {name} correlates its entries: Laplace takes priors "
                    "that are independent in each entry"
                )

            def slope(leaf):
                return jax.grad(lambda leaf: jnp.sum(p.log_prob(leaf)))(leaf)

            # Entries are independent, so the Hessian times ones is its diagonal.
            tau = -jax.jvp(slope, (leaf,), (jnp.ones_like(leaf),))[1]
            if not is_traced(tau) and bool(jnp.any(tau <= 0)):
                raise ValueError(
                    f"the log prior of {name}, {type(p).__name__}, is not concave at "
                    "the mode: Laplace needs one that is, such as a Normal"
                )
            return tau

        return ravel_pytree(jax.tree_util.tree_map_with_path(one, self.params))[0]


class Laplace(AbstractInference):
    r"""Trains the mode, then looks at how the log joint curves there.

    $$q(w) = \mathcal N(\hat w, \Lambda^{-1}), \qquad \Lambda = \sum_i J_i^\top H_i J_i
      + \mathrm{diag}(\tau)$$

    J is the Jacobian of the output and H the negative Hessian of the log-likelihood in
    it (the generalised Gauss-Newton matrix). `predict` uses the network linearised at
    the mode, the model whose exact posterior this is; `linearized=False` there samples
    weights instead, which underfits badly for networks.

    References: *A practical Bayesian framework for backpropagation networks*, MacKay,
    1992; *Laplace redux*, Daxberger et al., 2021, https://arxiv.org/abs/2106.14806;
    *Improving predictions of Bayesian neural nets via local linearization*, Immer,
    Korzepa and Bauer, 2021, https://arxiv.org/abs/2008.08400.

    ```python
    method = Laplace(MAP(log_joint, optax.adam(1e-3)), structure="kronecker")
    state, _ = jaxprob.fit(method, model, (x, y), key=key, num_epochs=100)
    posterior = tune_prior(method.posterior(state, [(x, y)]))
    ```

    **Arguments:**

    - `method`: finds the mode.
    - `structure`: of $G$: `"full"` to a few thousand weights; `"kronecker"`, one factor
        pair for each `eqx.nn.Linear`; `"diagonal"` for any size, without correlations.
    - `where`: the leaves it is over (see `jaxprob.tree`), such as the last layer; all
        random leaves of `method` by default. Others stay at the mode.
    - `kind`: `"ggn"`, or `"fisher"` for the empirical Fisher matrix.
    """

    method: MAP
    structure: Structure = "full"
    where: Where | None = None
    kind: Kind = "ggn"

    def __check_init__(self):
        if self.structure not in ("full", "diagonal", "kronecker"):
            raise ValueError(
                f"structure={self.structure!r}: it is 'full', 'diagonal' or 'kronecker'"
            )
        if self.kind not in ("ggn", "fisher"):
            raise ValueError(f"kind={self.kind!r}: it is 'ggn' or 'fisher'")

    @property
    def log_joint(self) -> LogJoint:
        """That of the wrapped method."""
        return self.method.log_joint

    def init(self, model: Model, *, key: PRNGKey | None = None) -> TrainState:
        self._flags(model)
        return self.method.init(model, key=key)

    def update(
        self, state: TrainState, batch: PyTree, *, key: PRNGKey
    ) -> tuple[TrainState, Info]:
        return self.method.update(state, batch, key=key)

    def evaluate(self, state: TrainState, batch: PyTree, *, key: PRNGKey) -> Info:
        return self.method.evaluate(state, batch, key=key)

    def model(self, state: TrainState) -> Model:
        return self.method.model(state)

    def posterior(
        self,
        state: TrainState,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> LaplacePosterior:
        """The posterior from one pass over the training set.

        **Arguments:**

        - `state`: of training.
        - `batches`: the training set, such as `[(x, y)]` or an `ArrayLoader`.
        """
        if batches is None:
            raise ValueError(
                "Laplace looks at the training data once more: write "
                "posterior(state, batches), such as posterior(state, [(x, y)])"
            )
        model = self.model(state)
        joint = self.method.log_joint
        flags = self._flags(model)
        params, rest = eqx.partition(model, flags)
        matrix, log_likelihood = curvature(
            joint, model, flags, batches, structure=self.structure, kind=self.kind
        )
        return LaplacePosterior(
            params, rest, matrix, joint.prior, log_likelihood, joint.temperature
        )

    def _flags(self, model):
        where = self.method.random if self.where is None else self.where
        flags = choose(model, where)
        if not any(jax.tree.leaves(flags)):
            raise ValueError(f"where={where!r} makes no leaf random")
        if self.structure == "kronecker":
            linear_layers(model, flags)
        return flags


def tune_prior(
    posterior: LaplacePosterior, *, num_steps: int = 300, learning_rate: float = 0.1
) -> LaplacePosterior:
    """Sets the scales of the prior to those of highest evidence, by gradient ascent.

    Needs no data: only the mode and the curvature there. One scale is tuned for
    `IsotropicNormal` and `FanInNormal`, one for each pattern in a `PriorByPath`. The
    mode is kept; train again with the new prior where it moved far.

    Reference: *Scalable marginal likelihood estimation for model selection in deep
    learning*, Immer, Bauer, Fortuin, Rätsch and Khan, 2021,
    https://arxiv.org/abs/2104.04975.

    **Arguments:**

    - `posterior`: its prior's floating-point leaves are all positive scales.
    - `num_steps`, `learning_rate`: of Adam on the logarithms of the scales.

    **Returns:** the posterior under the tuned prior.
    """
    scales, rest = eqx.partition(posterior.prior, eqx.is_inexact_array)
    leaves = jax.tree.leaves(scales)
    if not leaves or not all(bool(jnp.all(leaf > 0)) for leaf in leaves):
        raise ValueError(
            "the prior to tune has positive scales as its leaves: IsotropicNormal, "
            "FanInNormal, or a PriorByPath of them"
        )
    dtype = posterior.log_likelihood.dtype
    logs = jax.tree.map(lambda s: jnp.log(s).astype(dtype), scales)

    def with_prior(logs):
        prior = eqx.combine(jax.tree.map(jnp.exp, logs), rest)
        return eqx.tree_at(lambda q: q.prior, posterior, prior)

    optimizer = optax.adam(learning_rate)

    @jax.jit
    def ascend(logs):
        def step(carry, _):
            logs, state = carry
            grads = jax.grad(lambda logs: -with_prior(logs).log_evidence())(logs)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(logs, updates), state), None

        (logs, _), _ = jax.lax.scan(
            step, (logs, optimizer.init(logs)), length=num_steps
        )
        return logs

    return with_prior(ascend(logs))
