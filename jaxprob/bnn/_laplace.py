"""Laplace: a Gaussian with the curvature of the log joint at its mode."""

import functools
from collections.abc import Iterable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .. import tree
from .._learner import TrainState
from .._types import Info, Model, PRNGKey, Where
from ._apply import call_model
from ._bayesianize import choose
from ._curvature import AbstractCurvature, KroneckerCurvature
from ._inference import AbstractInference
from ._kronecker import factored_layers
from ._laplace_pass import Structure, curvature
from ._likelihood import BernoulliLikelihood, CategoricalLikelihood, Likelihood
from ._link import probit, softmax_bridge
from ._log_joint import LogJoint
from ._map import MAP
from ._output_hessian import Kind
from ._posterior import AbstractPosterior, chosen
from ._prior import Prior, density, prior_at
from ._scale import is_traced
from ._stateful import Stateful


class LaplacePosterior(AbstractPosterior):
    r"""$q(w) = \mathcal N(\hat w, T (G + \mathrm{diag}(\tau))^{-1})$.

    The prior enters when it is used, so another prior costs no pass over the data:
    `eqx.tree_at(lambda q: q.prior, posterior, IsotropicNormal(0.3))`.

    **Arguments:**

    - `params`: $\hat w$, `None` at leaves that are not random.
    - `rest`: all other leaves.
    - `curvature`: $G$.
    - `prior`: its precision is $\tau$.
    - `likelihood`: that of the data.
    - `log_likelihood`: of all data at $\hat w$.
    - `num_targets`: how many numbers all targets hold.
    - `temperature`: T.
    - `kind`: of the curvature, `"ggn"` or `"fisher"`.
    """

    params: PyTree
    rest: PyTree
    curvature: AbstractCurvature
    prior: Prior
    likelihood: Likelihood
    log_likelihood: Float[Array, ""]
    num_targets: int = eqx.field(static=True)
    temperature: float = eqx.field(static=True)
    kind: Kind = eqx.field(static=True, default="ggn")

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

        Differentiable in the prior; in the likelihood and in the weights too if the
        pass over the data is inside the derivative. It is that of $T = 1$.
        """
        log_prior = sum(
            (
                density(prior_at(self.prior, path, leaf), leaf)
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

    def class_probs(
        self,
        x: PyTree,
        *,
        link: Literal["probit", "bridge"] = "probit",
        apply: Any = call_model,
    ) -> Float[Array, "rows *classes"]:
        """Class probabilities of the linearised network without sampling.

        `predict` draws samples instead, and is exact as their number grows.

        **Arguments:**

        - `x`: rows.
        - `link`: how a Gaussian over logits becomes probabilities: `bnn.probit`, or for
            several classes the mean of `bnn.softmax_bridge`.
        - `apply`: as in `LogJoint`.

        **Returns:** a row of probabilities each, or that of 1 for a Bernoulli
        likelihood.
        """
        if link not in ("probit", "bridge"):
            raise ValueError(f"link={link!r}: it is 'probit' or 'bridge'")
        mean, covariance = self.output_distribution(x, apply=apply)
        binary = isinstance(self.likelihood, BernoulliLikelihood)
        if not binary and not isinstance(self.likelihood, CategoricalLikelihood):
            raise ValueError(
                "class_probs is for CategoricalLikelihood and BernoulliLikelihood, and "
                f"this posterior's is {type(self.likelihood).__name__}"
            )
        if binary and link == "bridge":
            raise ValueError("the bridge is for several classes: link='probit'")
        if link == "bridge":
            alpha = jax.vmap(softmax_bridge)(mean, covariance)
            return alpha / jnp.sum(alpha, -1, keepdims=True)
        out = jax.vmap(functools.partial(probit, binary=binary))(mean, covariance)
        shape = eqx.filter_eval_shape(self._one_output, x, apply).shape
        return out.reshape(-1, *shape)

    def _one_output(self, x, apply):
        model = eqx.nn.inference_mode(self.mean())
        row = jax.tree.map(lambda a: jnp.asarray(a)[0], x)
        return apply(model, row, key=jax.random.key(0))

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
                return jax.grad(lambda leaf: density(p, leaf))(leaf)

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
        pair for each `eqx.nn.Linear` and convolution; `"low_rank"`, the leading
        eigenvectors, for any module; `"diagonal"` for any size, without correlations.
    - `where`: the leaves it is over (see `jaxprob.tree`), such as the last layer; all
        random leaves of `method` by default. Others stay at the mode.
    - `kind`: `"ggn"`, or `"fisher"` for the empirical Fisher matrix.
    - `rank`: how many eigenvectors `"low_rank"` keeps.
    """

    method: MAP
    structure: Structure = "full"
    where: Where | None = None
    kind: Kind = "ggn"
    rank: int = 20

    def __check_init__(self):
        if self.structure not in ("full", "diagonal", "kronecker", "low_rank"):
            raise ValueError(
                f"structure={self.structure!r}: it is 'full', 'kronecker', 'low_rank' "
                "or 'diagonal'"
            )
        if self.rank < 1:
            raise ValueError(f"rank={self.rank}: at least one")
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
        _refuse_batch_statistics(model)
        joint = self.method.log_joint
        flags = self._flags(model)
        params, rest = eqx.partition(model, flags)
        matrix, log_likelihood, targets = curvature(
            joint,
            model,
            flags,
            batches,
            structure=self.structure,
            kind=self.kind,
            rank=self.rank,
        )
        posterior = LaplacePosterior(
            params,
            rest,
            matrix,
            joint.prior,
            joint.likelihood,
            log_likelihood,
            joint.num_data * targets,
            joint.temperature,
            self.kind,
        )
        if isinstance(matrix, KroneckerCurvature):
            _check_columns(posterior)
        return posterior

    def _flags(self, model):
        where = self.method.random if self.where is None else self.where
        flags = choose(model, where)
        if not any(jax.tree.leaves(flags)):
            raise ValueError(f"where={where!r} makes no leaf random")
        if self.structure == "kronecker":
            factored_layers(model, flags)
        return flags


def _refuse_batch_statistics(model):
    kinds = (eqx.nn.BatchNorm, Stateful)
    nodes = jax.tree_util.tree_leaves_with_path(
        model, is_leaf=lambda node: isinstance(node, kinds)
    )
    for path, node in nodes:
        if isinstance(node, kinds) and not node.inference:
            name = jax.tree_util.keystr(path, simple=True, separator=".") or "the model"
            raise ValueError(
                f"{name} ({type(node).__name__}) is in training mode: it normalises by "
                "the statistics of a batch, so an output depends on other rows and the "
                "likelihood has no curvature for each row. Train on in inference mode, "
                "where the running statistics are constants, and give "
                "posterior(eqx.nn.inference_mode(state), batches); or use GroupNorm."
            )


def _check_columns(posterior):
    """A Kronecker product with the prior is inverted for one precision per input."""
    tau = posterior._tau()
    if is_traced(tau):
        return
    for block in posterior.curvature.blocks:
        rows = block.matrix(tau)
        if not bool(jnp.all(rows == rows[:1])):
            raise ValueError(
                "structure='kronecker' takes priors whose precision is the same for "
                "all outputs of a layer, such as one Normal for each leaf; this one's "
                "differs. Use structure='diagonal', 'low_rank' or 'full'."
            )
