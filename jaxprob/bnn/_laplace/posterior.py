"""The Gaussian that Laplace's method ends in, and what it answers without sampling."""

import functools
import warnings
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ... import tree
from ..._checks import path_name
from ..._random.keys import check_key
from ..._types import Model, PRNGKey
from ...tree._ravel import ravel
from ...tree._single import single
from .._joint.class_logits import logit_family
from .._joint.likelihood import Likelihood
from .._joint.output_hessian import Kind
from .._joint.output_link import output_link
from .._joint.prior import Prior, density, prior_at
from .._posterior.posterior import AbstractPosterior, chosen
from .._weights.apply import call_model
from .._weights.scale import is_traced
from .curvature import AbstractCurvature
from .link import probit, softmax_bridge
from .row_chunks import at_once


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
    - `squares`: the sum of squared residuals there, of all data; `None` for likelihoods
        that are not a `NormalLikelihood` of one scale.
    - `num_targets`: how many numbers all targets hold.
    - `temperature`: T.
    - `kind`: of the curvature, `"ggn"`, `"hessian"` or `"fisher"`.
    """

    params: PyTree
    rest: PyTree
    curvature: AbstractCurvature
    prior: Prior
    likelihood: Likelihood
    log_likelihood: Float[Array, ""]
    squares: Float[Array, ""] | None
    num_targets: int = eqx.field(static=True)
    temperature: float = eqx.field(static=True)
    kind: Kind = eqx.field(static=True, default="ggn")

    @property
    def linearized(self) -> bool:
        """`predict` linearises the network round the mode, for which this is exact."""
        return True

    @property
    def output_likelihood(self) -> Likelihood:
        return self.likelihood

    def sample(self, *, key: PRNGKey) -> Model:
        """Draw a model from the Gaussian over weights.

        Run as a network it is wider than the posterior, often many times where the
        curvature is small, because the Gaussian holds for the linearised network alone.
        For functions take `sample_function`, which is what `predict` uses.
        """
        return self.factorised().sample(key=key)

    def factorised(self) -> "FactorisedLaplace":
        root = _root(self.curvature, self.tau())
        return FactorisedLaplace(
            self.params,
            self.rest,
            self.curvature,
            root,
            self.likelihood,
            self.temperature,
        )

    def mean(self) -> Model:
        return eqx.combine(self.params, self.rest)

    def log_prob(self, model: Model) -> Float[Array, ""]:
        delta = ravel(chosen(self.params, model))[0] - ravel(self.params)[0]
        tau = self.tau()
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
        return _log_evidence(self, self.tau())

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

        Warns where outputs with a variance are probabilities, rates or scales, as
        after a softmax inside the model: there a Gaussian is no more than a first-order
        approximation, and `predict` linearises logits or logarithms instead.
        """
        x = jax.tree.map(jnp.asarray, x)
        mean, covariance = _output_distribution(self, self.tau(), x, apply)
        if not is_traced(covariance):
            link = output_link(self.likelihood, self._one_output(x, apply))
            columns = [] if link is None else link.columns
            variances = np.asarray(jnp.diagonal(covariance, axis1=1, axis2=2))
            if np.any(variances[:, columns] > 0):
                warnings.warn(
                    "the likelihood takes these outputs as probabilities, rates or "
                    "scales, which a Gaussian does not stay among: it is a first-order "
                    "approximation. Write bnn.predict, which linearises their logits "
                    "or logarithms; or move the model's last function, such as the "
                    "softmax, into the likelihood.",
                    stacklevel=2,
                )
        return mean, covariance

    def joint_output_distribution(
        self, x: PyTree, *, apply: Any = call_model
    ) -> tuple[Float[Array, "rows out"], Float[Array, "rows out rows out"]]:
        r"""Return the linearised network's Gaussian over the outputs of all rows.

        $$\mathrm{Cov}[f_i(x), f_j(x')] = J_i(x) \Sigma J_j(x')^\top$$

        It is a Gaussian process at these inputs; memory grows with rows x outputs x
        weights. For each row by itself take `output_distribution`, for draws
        `sample_function`.

        **Arguments:**

        - `x`: rows.
        - `apply`: as in `LogJoint`.

        **Returns:** the mean, outputs flattened, and the covariance of each output of
        each row with each other.
        """
        x = jax.tree.map(jnp.asarray, x)
        return _joint_output_distribution(self, self.tau(), x, apply)

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
        output = self._one_output(x, apply)
        family = logit_family(self.likelihood, output)
        if family is None:
            raise ValueError(
                "class_probs is for outputs that are the logits of classes, such as "
                "those of CategoricalLikelihood and BernoulliLikelihood, and this "
                f"posterior's likelihood is {type(self.likelihood).__name__}. For any "
                "other write bnn.predict(...).probs"
            )
        binary = family.is_binary
        if binary and link == "bridge":
            raise ValueError("the bridge is for several classes: link='probit'")
        shape = output.shape
        if binary:
            flat = jax.vmap(functools.partial(probit, binary=True))(mean, covariance)
            return flat.reshape(-1, *shape)
        mean, covariance = _each_label(mean, covariance, num_classes=shape[-1])
        if link == "bridge":
            alpha = jax.vmap(jax.vmap(softmax_bridge))(mean, covariance)
            probs = alpha / jnp.sum(alpha, -1, keepdims=True)
        else:
            probs = jax.vmap(jax.vmap(probit))(mean, covariance)
        return probs.reshape(-1, *shape)

    def _one_output(self, x, apply):
        """Shapes of the output in one row."""
        model = eqx.nn.inference_mode(self.mean())
        row = jax.tree.map(lambda a: jnp.asarray(a)[0], x)
        return eqx.filter_eval_shape(
            lambda row: apply(model, row, key=jax.random.key(0)), row
        )

    def tau(self) -> Float[Array, " dim"]:
        r"""$\tau$: negative second derivatives of the log prior at the mode."""
        return prior_precision(self.prior, self.params)


class FactorisedLaplace(AbstractPosterior):
    """The posterior of Laplace's method with its precision decomposed.

    **Arguments:**

    - `params`, `rest`, `curvature`, `likelihood`, `temperature`: as in
        `LaplacePosterior`.
    - `root`: of the precision, as the curvature made it.
    """

    params: PyTree
    rest: PyTree
    curvature: AbstractCurvature
    root: PyTree
    likelihood: Likelihood
    temperature: float = eqx.field(static=True)

    @property
    def linearized(self) -> bool:
        return True

    @property
    def output_likelihood(self) -> Likelihood:
        return self.likelihood

    def sample(self, *, key: PRNGKey) -> Model:
        vector, unravel = ravel(self.params)
        check_key(key)
        draw = self.curvature.draw(self.root, key=key)
        return eqx.combine(unravel(vector + self.temperature**0.5 * draw), self.rest)

    def mean(self) -> Model:
        return eqx.combine(self.params, self.rest)


def _each_label(mean, covariance, num_classes):
    """Logits of one label each: axes (rows, labels, classes), and their covariances."""
    labels = mean.shape[-1] // num_classes
    blocks = covariance.reshape(-1, labels, num_classes, labels, num_classes)
    own = jnp.moveaxis(jnp.diagonal(blocks, axis1=1, axis2=3), -1, 1)
    return mean.reshape(-1, labels, num_classes), own


# Compiled whole: one by one, each of their lines would be a program for each shape.


@eqx.filter_jit
def _root(curvature, tau):
    return curvature.root(tau)


def prior_precision(prior: Prior, params: PyTree) -> Float[Array, " dim"]:
    """Return minus the second derivatives of the log prior, of all weights.

    **Raises:** `ValueError` where one is not positive.
    """
    vector, leaves = _precisions(prior, params)
    for name, tau in tree.paths(leaves).items():
        if not is_traced(tau) and (np.asarray(tau) <= 0).any():
            p = prior_at(prior, name, tree.get(params, name))
            raise ValueError(
                f"the log prior of {name}, {type(p).__name__}, is not concave at "
                "the mode: Laplace needs one that is, such as a Normal"
            )
    return vector


@eqx.filter_jit
def _precisions(prior, params):
    """Minus the second derivatives of the log prior: as one vector, and by leaf."""

    def one(path, leaf):
        name = path_name(path)
        p = prior_at(prior, name, leaf)
        if p.event_dim:
            raise ValueError(
                f"the prior of {name} correlates its entries: Laplace takes priors "
                "that are independent in each entry"
            )
        leaf = single(leaf)

        def slope(leaf):
            return jax.grad(lambda leaf: density(p, leaf))(leaf)

        # Entries are independent, so the Hessian times ones is its diagonal.
        return -jax.jvp(slope, (leaf,), (jnp.ones_like(leaf),))[1]

    leaves = jax.tree_util.tree_map_with_path(one, params)
    return ravel(leaves)[0], leaves


@eqx.filter_jit
def _log_evidence(posterior, tau):
    log_prior = sum(
        (
            density(prior_at(posterior.prior, path, leaf), leaf)
            for path, leaf in tree.paths(posterior.params).items()
        ),
        start=0.0,
    )
    volume = 0.5 * tau.size * jnp.log(2 * jnp.pi)
    log_det = posterior.curvature.log_det(tau)
    return posterior.log_likelihood + log_prior + volume - 0.5 * log_det


@eqx.filter_jit
def _output_distribution(posterior, tau, x, apply):
    root = posterior.curvature.root(tau)

    def one(x):
        mean, jacobian = _with_jacobian(posterior, x, apply)
        covariance = posterior.curvature.spread(root, jacobian)
        return mean, posterior.temperature * covariance

    return _map_rows(one, posterior, x, apply)


@eqx.filter_jit
def _joint_output_distribution(posterior, tau, x, apply):
    mean, jacobian = _map_rows(
        lambda x: _with_jacobian(posterior, x, apply), posterior, x, apply
    )
    rows = jacobian.reshape(-1, jacobian.shape[-1])
    covariance = posterior.curvature.spread(posterior.curvature.root(tau), rows)
    shape = mean.shape + mean.shape
    return mean, posterior.temperature * covariance.reshape(shape)


def _map_rows(one, posterior, x, apply):
    """A function of each row, of as many at a time as their Jacobians allow."""
    first = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
    _, jacobian = jax.eval_shape(lambda x: _with_jacobian(posterior, x, apply), first)
    # The Jacobian and what the curvature makes of it.
    size = at_once(4 * jacobian.size * jacobian.dtype.itemsize, 64)
    return jax.lax.map(one, x, batch_size=size)


def _with_jacobian(posterior, x, apply):
    """Outputs of one row at the mode, flattened, and their Jacobian in the weights."""
    vector, unravel = ravel(posterior.params)
    rest = eqx.nn.inference_mode(posterior.rest)

    def output(vector):
        model = eqx.combine(unravel(vector), rest)
        return ravel(apply(model, x, key=jax.random.key(0)))[0]

    return output(vector), jax.jacrev(output)(vector)
