"""The posterior predictive distribution: a mixture with one part for each model."""

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, PyTree

from ..._checks import check_classes, check_finite
from ..._random.keys import check_key, example_keys
from ..._types import PRNGKey
from .._joint import row_statistics as row_statistics
from .._joint.families import base, family_of
from .._joint.likelihood import Likelihood
from .._weights.scale import is_traced
from .spread import AbstractSpread

if TYPE_CHECKING:
    from .calibrated import CalibratedPredictive


class Predictive(AbstractSpread):
    r"""The mixture over posterior samples, $p(y \mid x) = \frac 1 S \sum_s
    p(y \mid f_{w_s}(x))$, for each row x. `predict` makes it.

    Statistics are computed when they are asked for, in chunks of rows. With several
    outputs, everything but `log_prob` is for each output by itself.

    - Regression: `mean`, `variance` = `aleatoric` + `epistemic`, `std`, `quantile`,
      `interval`, `cdf`.
    - Classification: `probs`, `class_log_probs`, `entropy`, `mutual_information`.
    - Both: `log_prob`, `sample`, `outputs`.
    """

    def __init__(
        self,
        chunks: Callable[[], Iterator[tuple[PyTree, int]]],
        likelihood: Likelihood,
        *,
        num_rows: int,
        num_samples: int,
        chunk_size: int,
        at: Callable[[PyTree], "Predictive"],
        loop: Callable[..., PyTree],
        is_unrolled: Callable[[], bool],
    ):
        self._chunks = chunks
        self._likelihood = likelihood
        self._chunk_size = chunk_size
        self.num_rows = num_rows
        self.num_samples = num_samples
        self._at = at
        self._loop = loop
        self._is_unrolled = is_unrolled

    def calibrate(
        self, x: PyTree, y: Num[Array | np.ndarray, "held_out *out"]
    ) -> "CalibratedPredictive":
        """This predictive, put right on rows that the model was not trained on.

        ```python
        predictive = predict(posterior, likelihood, x_test, key=key)
        calibrated = predictive.calibrate(x_val, y_val)
        lower, upper = calibrated.conformal_interval(0.9)
        ```

        **Arguments:**

        - `x`, `y`: the held-out rows. They are predicted with the same samples.

        **Returns:** a `CalibratedPredictive`.
        """
        from .calibrated import CalibratedPredictive

        if not self.is_classification and self._kind.is_discrete:
            raise ValueError(
                f"{self} is of whole numbers, which no factor stretches: calibrate is "
                "for classes and for real outcomes"
            )
        held_out = self._at(x)
        return CalibratedPredictive(self, held_out, held_out.check_targets(y))

    @property
    def outputs(self) -> PyTree[Num[Array, "rows samples *out"]]:
        """The output of each sampled model: the one thing that is held in full."""
        if self._is_unrolled():
            return self._loop(lambda outputs, _: outputs, ())
        parts = [
            jax.tree.map(lambda a, n=n: a[:n], outputs) for outputs, n in self._chunks()
        ]
        return jax.tree.map(lambda *a: jnp.concatenate(a), *parts)

    @functools.cached_property
    def _moments(self):
        return self._map(row_statistics.moments)

    @property
    def mean(self) -> Float[Array, "rows *out"]:
        """Mean of y."""
        return self._moments[0]

    @property
    def epistemic(self) -> Float[Array, "rows *out"]:
        r"""$\mathrm{Var}_s[\mathbb E[y \mid w_s]]$: what more data would take away."""
        return self._moments[1]

    @property
    def aleatoric(self) -> Float[Array, "rows *out"]:
        r"""$\mathbb E_s[\mathrm{Var}[y \mid w_s]]$: what the likelihood calls noise."""
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

    @functools.cached_property
    def _information(self):
        return self._map(row_statistics.information)

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

    @functools.cached_property
    def _part(self):
        if self._is_unrolled():
            outputs = self.outputs
        else:
            outputs, _ = next(iter(self._chunks()))
        first = jax.tree.map(lambda a: a[0, 0], outputs)
        return self._likelihood(first)

    @property
    def is_classification(self) -> bool:
        """Whether y is a class label."""
        return family_of(self._kind).is_classification

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
        """A statistic of each row, chunk by chunk; `rows` are cut along with them."""
        if self._is_unrolled():

            def of_chunk(outputs, rows):
                return _map_rows(statistic, self._likelihood, outputs, rows, shared)

            return self._loop(of_chunk, rows)
        parts = []
        start = 0
        for outputs, count in self._chunks():
            own = [pad(a[start : start + count], self._chunk_size) for a in rows]
            part = _map_rows(statistic, self._likelihood, outputs, tuple(own), shared)
            parts.append(jax.tree.map(lambda a, n=count: a[:n], part))
            start += count
        return jax.tree.map(lambda *a: jnp.concatenate(a), *parts)


def pad(array: Any, rows: int) -> Any:
    """The array with its first row repeated until there are `rows`.

    One shape for all chunks is one compilation.
    """
    short = rows - array.shape[0]
    if not short:
        return array
    return jnp.concatenate([array, jnp.repeat(array[:1], short, axis=0)])


@eqx.filter_jit
def _map_rows(statistic, likelihood, outputs, rows, shared):
    def one(outputs, rows):
        return statistic(likelihood, outputs, *rows, *shared)

    return jax.vmap(one)(outputs, rows)
