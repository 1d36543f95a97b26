"""The posterior predictive distribution, a mixture over sampled models."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, PyTree

from ..._checks import check_classes, check_finite
from ..._random.keys import check_key, example_keys
from ..._training.batch import num_rows
from ..._types import PRNGKey
from .._joint import row_statistics as row_statistics
from .._joint.families import base, family_of
from .._joint.likelihood import Likelihood
from .._weights.scale import is_traced
from .moments import AbstractMoments
from .outputs import AbstractOutputs, KeptOutputs
from .row_batches import map_batches, pad
from .static import Static


class Predictive(AbstractMoments):
    r"""The mixture over posterior samples, for each row x.

    $$p(y \mid x) = \frac 1 S \sum_s p(y \mid f_{w_s}(x))$$

    `predict` makes it. It is a pytree of the mixture's parameters, the outputs
    $f_{w_s}(x)$, so it passes through `jax.jit` as an argument and as a result, and
    `jax.vmap` maps over several. Statistics are computed when they are asked for, in
    batches of rows. With several outputs, everything but `log_prob` is for each output
    separately.

    - Regression: `mean`, `variance` = `aleatoric` + `epistemic`, `std`, `quantile`,
      `interval`, `cdf`.
    - Classification: `probs`, `class_log_probs`, `entropy`, `mutual_information`.
    - Both: `log_prob`, `sample`, `outputs`.

    **Arguments:**

    - `outputs`: arrays with leading axes of rows and samples.
    - `likelihood`: output -> distribution.
    - `batch_size`: rows at a time; by default all.
    """

    _outputs: AbstractOutputs
    _likelihood: Static[Likelihood]
    batch_size: int = eqx.field(static=True)

    def __init__(
        self,
        outputs: PyTree[Num[Array, "rows samples *out"]] | AbstractOutputs,
        likelihood: Likelihood,
        *,
        batch_size: int | None = None,
    ):
        known = isinstance(outputs, AbstractOutputs)
        self._outputs = outputs if known else KeptOutputs(outputs)
        self._likelihood = Static.of(likelihood)
        self.batch_size = self.num_rows if batch_size is None else batch_size

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood of the components."""
        return self._likelihood.value

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return num_rows(self._outputs.rows)

    @property
    def num_samples(self) -> int:
        """Number of components, the sampled models."""
        return self._outputs.num_samples

    @property
    def outputs(self) -> PyTree[Num[Array, "rows samples *out"]]:
        """The output of each sampled model in each row."""
        return map_batches(self._outputs.of, self._outputs.rows, self.batch_size)

    @property
    def _moments(self):
        return self._once("_stored_moments", lambda: self._map(row_statistics.moments))

    @property
    def mean(self) -> Float[Array, "rows *out"]:
        """Mean of y."""
        return self._moments[0]

    @property
    def epistemic(self) -> Float[Array, "rows *out"]:
        r"""Variance of the mean, $\mathrm{Var}_s[\mathbb E[y \mid w_s]]$.

        More data would reduce it to zero. Its square root is a standard deviation.
        """
        return self._moments[1]

    @property
    def aleatoric(self) -> Float[Array, "rows *out"]:
        r"""Mean of the variance, $\mathbb E_s[\mathrm{Var}[y \mid w_s]]$: the noise."""
        return self._moments[2]

    def log_prob(
        self, y: Num[Array | np.ndarray, "rows *out"]
    ) -> Float[Array, " rows"]:
        r"""Log-density of the mixture itself, $\log \frac 1 S \sum_s p(y \mid w_s)$.

        Not that of the Gaussian with the same mean and variance, nor the mean of
        $\log p(y \mid w_s)$, which is never larger.

        **Arguments:**

        - `y`: a target for each row.
        """
        return self._map(row_statistics.log_prob, self.check_targets(y))

    def cdf(self, y: Num[Array | np.ndarray, "rows *out"]) -> Float[Array, "rows *out"]:
        """Distribution function of the mixture at a target for each row."""
        return self._map(row_statistics.cdf, self.check_targets(y))

    def quantile(self, q: float) -> Float[Array, "rows *out"]:
        """The q-quantile of the mixture, by bisection of its distribution function.

        The quantile of a mixture is no mean of quantiles; it does lie between the
        smallest and the largest of its parts'.

        **Arguments:**

        - `q`: in (0, 1).
        """
        if np.ndim(q) or not 0 < q < 1:
            raise ValueError(f"q={q}: one number: a quantile's level is inside (0, 1)")
        return self._map(row_statistics.quantile, shared=(jnp.asarray(q),))

    def interval(
        self, level: float = 0.9
    ) -> tuple[Float[Array, "rows *out"], Float[Array, "rows *out"]]:
        """The central interval that holds y with probability `level`: (lower, upper).

        **Arguments:**

        - `level`: in (0, 1).
        """
        if np.ndim(level) or not 0 < level < 1:
            raise ValueError(f"level={level}: one probability inside (0, 1)")
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)

    @property
    def _information(self):
        return self._once(
            "_stored_information", lambda: self._map(row_statistics.information)
        )

    @property
    def probs(self) -> Float[Array, "rows *classes"]:
        """Class probabilities, or the probability of 1 for a Bernoulli likelihood."""
        return self._information[0]

    @property
    def entropy(self) -> Float[Array, "rows *out"]:
        r"""Total uncertainty of the class, $H[\mathbb E_s p_s]$, in nats."""
        return self._information[1]

    @property
    def mutual_information(self) -> Float[Array, "rows *out"]:
        r"""Its epistemic part, $H[\mathbb E_s p_s] - \mathbb E_s H[p_s] \ge 0$.

        Reference: *Bayesian active learning for classification and preference
        learning*, Houlsby, Huszár, Ghahramani and Lengyel, 2011,
        https://arxiv.org/abs/1112.5745.
        """
        return self._information[2]

    def sample(self, *, key: PRNGKey) -> Num[Array, "rows *out"]:
        """A target for each row, drawn jointly: all rows share the sampled model.

        So differences between rows are as uncertain as the model says. For independent
        draws in each row, use another key for each.

        **Arguments:**

        - `key`: of this draw. `jax.vmap(lambda k: p.sample(key=k))(keys)` draws many.
        """
        check_key(key)
        part_key, noise_key = jax.random.split(key)
        part = jax.random.randint(part_key, (), 0, self.num_samples)
        keys = example_keys(noise_key, self.num_rows)
        return self._map(row_statistics.sample, keys, shared=(part,))

    def check_rows(
        self, name: str, array: Num[Array | np.ndarray, "..."]
    ) -> Num[Array, "..."]:
        """The array, if it has an entry for each row, and all are finite."""
        array = jnp.asarray(array)
        if array.shape[:1] != (self.num_rows,):
            raise ValueError(
                f"{name} has shape {array.shape}, and the prediction is for "
                f"{self.num_rows} rows"
            )
        if not is_traced(array):
            check_finite(name, np.asarray(array))
        return array

    def check_targets(self, y: Num[Array | np.ndarray, "..."]) -> Num[Array, "..."]:
        """`check_rows`; and y has the shape of the predictions, and labels are classes.

        Any other shape would broadcast against the mean of each row.
        """
        y = self.check_rows("y", y)
        expected = (self.num_rows, *self._shape)
        if y.shape != expected:
            raise ValueError(
                f"y has shape {y.shape}, and the targets of these predictions have the "
                f"shape {expected}: give y.reshape({expected}) if the rows are the same"
            )
        family = family_of(self._kind)
        if not family.is_classification or is_traced(y):
            return y
        num_classes = 2 if family.is_binary else family.probs(self._kind).shape[-1]
        check_classes("y", np.asarray(y), num_classes)
        return y

    @property
    def _kind(self):
        """A distribution such as those of the parts."""
        return base(self._part)

    @property
    def _shape(self):
        """The shape of one target."""
        return self._part.batch_shape + self._part.event_shape

    @property
    def _part(self):
        return self.likelihood(self._once("_stored_first", self._first_output))

    def _first_output(self):
        # A whole batch, whose program the statistics need as well.
        batch = jax.tree.map(
            lambda a: pad(a[: self.batch_size], self.batch_size), self._outputs.rows
        )
        return jax.tree.map(lambda a: a[0, 0], self._outputs.of(batch))

    @property
    def is_classification(self) -> bool:
        """Whether y is a class label."""
        return family_of(self._kind).is_classification

    @property
    def is_discrete(self) -> bool:
        """Whether y is a whole number."""
        return self._kind.is_discrete

    @property
    def is_binary(self) -> bool:
        """Whether y is zero or one, and `probs` the probability of one."""
        return family_of(self._kind).is_binary

    @property
    def has_quantiles(self) -> bool:
        """Whether `quantile` and `interval` exist: of real outputs, each by itself."""
        return row_statistics.has_quantiles(self._kind)

    @property
    def class_log_probs(self) -> Float[Array, "rows *out classes"]:
        """Logarithms of all class probabilities, of two for a Bernoulli likelihood.

        Those of `probs` are minus infinity where that is rounded to zero.
        """
        return self._map(row_statistics.class_log_probs)

    def __repr__(self):
        return (
            f"{type(self).__name__}({self.num_rows} rows, {self.num_samples} samples, "
            f"{type(self._kind).__name__})"
        )

    def _map(self, statistic, *rows, shared=()):
        """A statistic of each row; `rows` are other arrays with an entry for each."""
        likelihood = self.likelihood

        def of_batch(batch):
            own, others = batch
            outputs = self._outputs.of(own)
            return _map_rows(statistic, likelihood, outputs, others, shared)

        return map_batches(of_batch, (self._outputs.rows, rows), self.batch_size)

    def _once(self, name: str, compute: Callable[[], Any]) -> Any:
        """The value, computed once for this object.

        Not a field: a copy that jit or vmap makes computes it again. A traced value
        belongs to its program and is not stored.
        """
        stored = vars(self).get(name)
        if stored is None:
            stored = compute()
            if not any(map(is_traced, jax.tree.leaves(stored))):
                object.__setattr__(self, name, stored)  # the dataclass is frozen
        return stored


@eqx.filter_jit
def _map_rows(statistic, likelihood, outputs, rows, shared):
    def one(outputs, rows):
        return statistic(likelihood, outputs, *rows, *shared)

    return jax.vmap(one)(outputs, rows)
