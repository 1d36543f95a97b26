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
from .._weights.unconstrained import constrained
from .batch_apply import BatchApply
from .joint_likelihood import as_likelihood
from .likelihood import Likelihood
from .prior import Prior, log_prior
from .row import Row, as_row, weighted
from .target import log_likelihood_of

RowTerm: TypeAlias = Callable[[dist.Distribution, Row], Array]
"""`term(p, row)`: a scalar for a row whose target has the distribution p.

It is multiplied by the weight of the row.
"""


class LogJoint(eqx.Module):
    r"""Log of the (tempered) joint density of data and weights, from one minibatch.

    $$\log p_T(\mathcal D, w) = \frac{1}{T} \Big[ \frac{N}{B} \sum_{i=1}^{B}
      u_i \log p(y_i \mid f_w(x_i)) + \log p(w) \Big]$$

    For a batch drawn at random this is unbiased for the whole data set, in nats. The
    prior counts once for N rows, whatever the batch size. B is the number of rows
    without padding. Inference methods divide by N, so that learning rates depend on
    neither N nor B.

    A batch is `(x, y)`, or `(x, y, weight)` with a weight $u_i \ge 0$ for each row: a
    row of weight 2 counts as if it were there twice. N and B are numbers of rows
    whatever their weights are, so that minibatches are unbiased for the weighted sum.
    Weights that average to one leave the width of the posterior as it is; weights whose
    sum is 2 N narrow it as twice the rows would.

    $T = 1$ is the posterior, $T < 1$ a *cold* one, $p(w \mid \mathcal D)^{1/T}$: both
    likelihood and prior are raised to $1/T$.

    Reference for the temperature: *How good is the Bayes posterior in deep neural
    networks really?*, Wenzel et al., 2020, https://arxiv.org/abs/2002.02405.

    ```python
    log_joint = LogJoint(NormalLikelihood(0.3), FanInNormal(), num_data=len(x))
    ```

    **Arguments:**

    - `likelihood`: `likelihood(output) -> numpyro distribution over y`, one example;
        or a dict of them for several targets (see `JointLikelihood`).
    - `prior`: a numpyro distribution for all leaves, or `(path, leaf) -> distribution`.
    - `num_data`: N, rows of the training set. It has no default, because a wrong N
        means a wrong temperature.
    - `temperature`: T.
    - `apply`: `apply(model, x, key=key)`, the output for one example. By default
        `model(x, key=key)`, or `model(x)` if the model takes no key. `BatchApply`
        computes the outputs of all rows of a batch at once.
    """

    likelihood: Likelihood
    prior: Prior
    num_data: int | float = eqx.field(static=True)
    temperature: float = eqx.field(static=True)
    apply: Callable[..., Any]

    def __init__(
        self,
        likelihood: Likelihood | dict[str, Any],
        prior: Prior,
        num_data: int,
        *,
        temperature: float = 1.0,
        apply: Callable[..., Any] = call_model,
    ):
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
        self.likelihood = as_likelihood(likelihood)
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

        - `model`: all leaves are arrays, or in unconstrained coordinates.
        - `batch`: `(x, y)` or `(x, y, weight)`, or a `jaxprob.Batch` of it.
        - `key`: for models that draw noise; example i has `fold_in(key, i)`. Without
            it each call of the model gets `key=None`.
        - `term`: replaces a row's log-likelihood by `term(p, row)`, where p is the
            likelihood's distribution; $\log p(y)$ by default.
        """
        term = plain_term if term is None else term
        model = constrained(model)

        if isinstance(self.apply, BatchApply):
            row, mask = self.apply.rows(model, batch, key=key), unpack(batch)[1]
            values = jax.vmap(lambda row: term(self.likelihood(row.x), row))(row)
            return self._scaled(row.known(mask), values, mask)

        def one(row, key):
            return term(self.likelihood(self.apply(model, row.x, key=key)), row)

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

        used = constrained(model)

        def one(row, key):
            out, state = used.advance(row.x, key=key)
            return term(self.likelihood(out), row), state

        mapped = jax.vmap(one, out_axes=(0, None), axis_name=model.axis_name)
        value, state = self._total(mapped, batch, key)
        return value, statistics(eqx.tree_at(lambda m: m.state, model, state))

    def _total(self, mapped, batch, key):
        """N/B times the weighted sum over the rows, and the rest of `mapped`."""
        data, mask = unpack(batch)
        if isinstance(batch, Batch) and not batch.filled:
            data = fill_padding(data, mask)
        row = as_row(data)
        row = row._replace(weight=row.known(mask))
        keys = None if key is None else example_keys(key, num_rows(data))
        out = mapped(row, keys)
        values, rest = out if isinstance(out, tuple) else (out, None)
        return self._scaled(row.weight, values, mask), rest

    def _scaled(self, weights, values, mask):
        """N/B times the weighted sum of the values of rows."""
        values = single(values)
        total = jnp.sum(weighted(weights, values))
        count = jnp.maximum(jnp.sum(jnp.asarray(mask)), 1).astype(values.dtype)
        return self.num_data * (total / count)

    def log_prior(self, params: PyTree) -> Float[Array, ""]:
        """Return the log prior density of all floating-point arrays, in nats.

        Leaves in unconstrained coordinates (see `unconstrained`) have the density of
        their coordinates. Its Jacobian is multiplied by the temperature, by which the
        joint density is divided.
        """
        return log_prior(self.prior, params, temperature=self.temperature)

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


def plain_term(p: Any, row: Row) -> Float[Array, ""]:
    """Return the row's log-likelihood itself; see `RowTerm`."""
    return log_likelihood_of(p, row.y)
