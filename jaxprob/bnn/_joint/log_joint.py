"""Log joint density of data and weights, in nats for the whole data set."""

from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from ..._jaxpr.examples_last import vmap_last
from ..._random.keys import example_keys
from ..._training.batch import Batch, num_rows, unpack
from ..._types import Model, PRNGKey
from ...tree._single import single
from .._weights.apply import call_model
from .._weights.running_statistics import statistics, trains_statistics
from .families import base, family_of
from .likelihood import Likelihood, check_likelihood
from .prior import Prior, log_prior
from .xy import xy

RowTerm: TypeAlias = Callable[[dist.Distribution, PyTree, Array], Array]
"""`term(p, x, y)`: a scalar for one row with target y under the distribution p."""


class LogJoint(eqx.Module):
    r"""Log of the (tempered) joint density of data and weights, from one minibatch.

    $$\log p_T(\mathcal D, w) = \frac{1}{T} \Big[ \frac{N}{B} \sum_{i=1}^{B}
      \log p(y_i \mid f_w(x_i)) + \log p(w) \Big]$$

    For a batch drawn at random this is unbiased for the whole data set, in nats. The
    prior counts once for N rows, whatever the batch size. B is the number of rows
    without padding. Inference methods divide by N, so that learning rates depend on
    neither N nor B.

    $T = 1$ is the posterior, $T < 1$ a *cold* one, $p(w \mid \mathcal D)^{1/T}$: both
    likelihood and prior are raised to $1/T$.

    Reference for the temperature: *How good is the Bayes posterior in deep neural
    networks really?*, Wenzel et al., 2020, https://arxiv.org/abs/2002.02405.

    ```python
    log_joint = LogJoint(NormalLikelihood(0.3), FanInNormal(), num_data=len(x))
    ```

    **Arguments:**

    - `likelihood`: `likelihood(output) -> numpyro distribution over y`, one example.
    - `prior`: a numpyro distribution for all leaves, or `(path, leaf) -> distribution`.
    - `num_data`: N, rows of the training set. It has no default, because a wrong N
        means a wrong temperature.
    - `temperature`: T.
    - `apply`: `apply(model, x, key=key)`, the output for one example. By default
        `model(x, key=key)`, or `model(x)` if the model takes no key.
    """

    likelihood: Likelihood
    prior: Prior
    num_data: int | float = eqx.field(static=True)
    temperature: float = eqx.field(static=True)
    apply: Callable[..., Any]

    def __init__(
        self,
        likelihood: Likelihood,
        prior: Prior,
        num_data: int,
        *,
        temperature: float = 1.0,
        apply: Callable[..., Any] = call_model,
    ):
        check_likelihood(likelihood)
        known = callable(prior) or isinstance(prior, dist.Distribution)
        if not known or isinstance(prior, type):
            raise TypeError(
                f"prior={prior!r}: give a numpyro distribution, or a function (path, "
                "leaf) -> distribution, such as FanInNormal()"
            )
        if not isinstance(num_data, int | np.integer) or num_data < 1:
            given = type(num_data).__name__ if np.ndim(num_data) else repr(num_data)
            raise ValueError(
                f"num_data={given}: it is the number of rows of the training set, "
                "len(x)"
            )
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}: it has to be positive")
        self.likelihood = likelihood
        self.prior = prior
        # JAX computes with integers of 32 bits, and with floats beyond.
        self.num_data = int(num_data) if num_data < 2**31 else float(num_data)
        self.temperature = float(temperature)
        self.apply = apply

    def log_likelihood(
        self,
        model: Model,
        batch: PyTree,
        *,
        key: PRNGKey | None = None,
        term: RowTerm | None = None,
    ) -> Float[Array, ""]:
        r"""$\frac{N}{B} \sum_i \log p(y_i \mid f_w(x_i))$, without the temperature.

        **Arguments:**

        - `model`: all leaves are arrays.
        - `batch`: `(x, y)`, or a `jaxprob.Batch` of it.
        - `key`: for models that draw noise; example i has `fold_in(key, i)`. Without
            it each call of the model gets `key=None`.
        - `term`: replaces a row's log-likelihood by `term(p, x, y)`, where p is the
            likelihood's distribution; $\log p(y)$ by default.
        """
        term = plain_term if term is None else term

        def one(x, y, key):
            return term(self.likelihood(self.apply(model, x, key=key)), x, y)

        return self._total(vmap_last(one), batch, key)[0]

    def with_statistics(
        self,
        model: Model,
        batch: PyTree,
        *,
        key: PRNGKey,
        term: RowTerm | None = None,
    ) -> tuple[Float[Array, ""], PyTree]:
        """Return `log_likelihood` and the running statistics after this batch.

        **Arguments:** as in `log_likelihood`. A `Stateful` model in training uses the
        statistics of the batch.

        **Returns:** the value; and the model's tree with its new running statistics and
        `None` elsewhere, or `None` for a model without.
        """
        if not trains_statistics(model):
            return self.log_likelihood(model, batch, key=key, term=term), None
        term = plain_term if term is None else term
        if self.apply is not call_model:
            raise ValueError(
                "apply=... computes the output for one input, and a Stateful model in "
                "training has outputs for a batch: move the code of apply into the "
                "model's call, or train it in inference mode"
            )

        def one(x, y, key):
            out, state = model.advance(x, key=key)
            return term(self.likelihood(out), x, y), state

        mapped = jax.vmap(one, out_axes=(0, None), axis_name=model.axis_name)
        value, state = self._total(mapped, batch, key)
        return value, statistics(eqx.tree_at(lambda m: m.state, model, state))

    def _total(self, mapped, batch, key):
        """N/B times the sum over the rows, and the other result of `mapped`."""
        data, mask = unpack(batch)
        if isinstance(batch, Batch) and not batch.filled:
            data = fill_padding(data, mask)
        x, y = xy(data)
        keys = None if key is None else example_keys(key, num_rows(data))
        out = mapped(x, y, keys)
        values, rest = out if isinstance(out, tuple) else (out, None)
        mask, values = jnp.asarray(mask), single(values)
        total = jnp.sum(jnp.where(mask, values, jnp.zeros((), values.dtype)))
        count = jnp.maximum(jnp.sum(mask), 1).astype(values.dtype)
        return self.num_data * (total / count), rest

    def log_prior(self, params: PyTree) -> Float[Array, ""]:
        """Return the log prior density of all floating-point arrays, in nats."""
        return log_prior(self.prior, params)

    def __call__(
        self,
        model: Model,
        batch: PyTree,
        *,
        key: PRNGKey | None = None,
        params: PyTree | None = None,
    ) -> Float[Array, ""]:
        """Return the tempered log joint.

        ```python
        log_density = log_joint(model, (x, y))
        ```

        **Arguments:**

        - `model`, `batch`: as in `log_likelihood`.
        - `key`: needed only by models that draw noise.
        - `params`: the part of the model that has a prior, `None` elsewhere in its
            tree; all of the model by default.
        """
        prior = self.log_prior(model if params is None else params)
        value = self.log_likelihood(model, batch, key=key) + prior
        return value / self.temperature


def fill_padding(data: PyTree, mask: Array | np.ndarray) -> PyTree:
    """Replace padded rows by copies of the others, in turn.

    A mask on their log-likelihoods alone would leave zero times NaN in the gradient.
    The copies are taken in turn, because they enter statistics of the batch.
    """
    mask = jnp.asarray(mask)
    real = jnp.argsort(~mask, stable=True)  # padded rows come last
    place = jnp.arange(mask.size)
    copies = real[place % jnp.maximum(jnp.sum(mask), 1)]
    rows = jnp.where(mask, place, copies)
    return jax.tree.map(lambda array: jnp.asarray(array)[rows], data)


def plain_term(p: Any, x: PyTree, y: Array) -> Float[Array, ""]:
    """Return the row's log-likelihood itself; see `RowTerm`."""
    return log_likelihood_of(p, y)


def log_likelihood_of(p: Any, y: Array) -> Float[Array, ""]:
    """Return the log-probability of one target, summed over its entries.

    **Raises:** `TypeError` for a value that is not a distribution, or a target of the
    wrong dtype; `ValueError` when shapes differ. Nothing is broadcast: (1,) against ()
    would make a matrix of a batch.
    """
    check_target(p, y)
    family = family_of(p)
    if family.is_binary:
        y = y.astype(family.probs(base(p)).dtype)
    elif jnp.issubdtype(y.dtype, jnp.bool_):
        y = y.astype(jnp.int32)
    # numpyro mixes bools and floats, which strict promotion rejects.
    with jax.numpy_dtype_promotion("standard"):
        return jnp.sum(p.log_prob(y))


def check_target(p: Any, y: Array) -> None:
    """Reject a target whose shape or dtype differs from the distribution's."""
    if not isinstance(p, dist.Distribution):
        raise TypeError(
            f"the likelihood returned {type(p).__name__} where a numpyro distribution "
            "is needed"
        )
    shape = p.batch_shape + p.event_shape
    if shape != jnp.shape(y):
        raise ValueError(
            f"for one example the likelihood has shape {shape} and y has shape "
            f"{jnp.shape(y)}. They have to agree: broadcasting would compare each "
            "prediction with each target. A model that gives (1,) goes with y of shape "
            "(rows, 1), y[:, None]; one that gives () with y of shape (rows,)."
        )
    floating = jnp.issubdtype(y.dtype, jnp.floating)
    if p.is_discrete and floating and p.support is not dist.constraints.boolean:
        raise TypeError(
            f"y is {y.dtype} and {type(p).__name__} is over integers: write "
            "y.astype(np.int32)"
        )
    if not p.is_discrete and not floating:
        raise TypeError(
            f"y is {y.dtype} and {type(p).__name__} is over real numbers: write "
            "y.astype(np.float32)"
        )
