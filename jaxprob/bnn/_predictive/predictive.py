"""The posterior predictive distribution, a mixture over sampled models."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, PyTree

from ..._random.keys import check_key, example_keys
from ..._types import PRNGKey
from .._joint import row_statistics as row_statistics
from .._joint.likelihood import Likelihood
from .._joint.quantiles import quantile
from .._weights.scale import is_traced
from .outputs import AbstractOutputs, KeptOutputs
from .row_mixture import AbstractRowMixture
from .static import Static


class Predictive(AbstractRowMixture):
    r"""The mixture over posterior samples, for each row x.

    $$p(y \mid x) = \frac 1 S \sum_s p(y \mid f_{w_s}(x))$$

    `predict` makes it. It is a pytree of the mixture's parameters, the outputs
    $f_{w_s}(x)$, so it passes through `jax.jit` as an argument and as a result, and
    `jax.vmap` maps over several. Statistics are computed when they are asked for, in
    batches of rows. With several outputs, everything but `log_prob` is for each output
    separately. With a dict of likelihoods the statistics are asked by name,
    `predictive["price"].mean`; `log_prob` and `sample` are joint, of dicts.

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
        outputs: PyTree[Num[Array, "rows samples ..."]] | AbstractOutputs,
        likelihood: Likelihood,
        *,
        batch_size: int | None = None,
    ):
        known = isinstance(outputs, AbstractOutputs)
        self._outputs = outputs if known else KeptOutputs(outputs)
        self._likelihood = Static.of(likelihood)
        self.batch_size = self.num_rows if batch_size is None else batch_size

    @property
    def _moments(self):
        return self._once("_stored_moments", lambda: self._map(row_statistics.moments))

    @property
    def mean(self) -> Float[Array, "rows *out"]:
        """Mean of y; of angles the circular mean, the direction of the mean vector."""
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

    def log_prob(self, y: Any) -> Float[Array, " rows"]:
        r"""Log-density of the mixture itself, $\log \frac 1 S \sum_s p(y \mid w_s)$.

        It differs from that of the Gaussian with the same mean and variance, and is
        never smaller than the mean of $\log p(y \mid w_s)$.

        **Arguments:**

        - `y`: a target for each row; a pair `(values, observed)` where entries are
            missing, and a dict for several targets.
        """
        return self._map(row_statistics.log_prob, self.check_targets(y))

    def cdf(self, y: Num[Array | np.ndarray, "rows *out"]) -> Float[Array, "rows *out"]:
        """Distribution function of the mixture at a target for each row."""
        return self._map(row_statistics.cdf, self.check_targets(y))

    def quantile(self, q: float | Float[Array, ""]) -> Num[Array, "rows *out"]:
        """The q-quantile of the mixture, by bisection of its distribution function.

        The quantile of a mixture is not the mean of its components' quantiles; it lies
        between the smallest and the largest of them. Of counts it is the smallest whole
        number whose distribution function is q or more.

        **Arguments:**

        - `q`: in (0, 1). Values that are traced are not checked.
        """
        if not is_traced(q) and (np.ndim(q) or not 0 < q < 1):
            raise ValueError(
                f"q={q}: one number inside (0, 1) is required, such as q=0.9"
            )
        return self._map(quantile, shared=(jnp.asarray(q),))

    def interval(
        self, level: float = 0.9
    ) -> tuple[Num[Array, "rows *out"], Num[Array, "rows *out"]]:
        """The central interval with probability `level`, as (lower, upper).

        Ends of counts are whole numbers, both in the interval, and its probability is
        `level` or more; `probability(lower, upper)` is what it comes to.

        **Arguments:**

        - `level`: in (0, 1).
        """
        if np.ndim(level) or not 0 < level < 1:
            raise ValueError(
                f"level={level}: one probability inside (0, 1) is required"
            )
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)

    def probability(
        self,
        lower: Num[Array | np.ndarray, "rows *out"],
        upper: Num[Array | np.ndarray, "rows *out"],
    ) -> Float[Array, "rows *out"]:
        r"""Return $P(\text{lower} \le y \le \text{upper})$, for each output.

        **Arguments:**

        - `lower`, `upper`: ends of the intervals, both inside.
        """
        below = jnp.asarray(lower)
        if self.is_discrete:
            below = below - 1
        return self.cdf(upper) - self.cdf(below)

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
        r"""Epistemic part of it, $H[\mathbb E_s p_s] - \mathbb E_s H[p_s] \ge 0$.

        Reference: *Bayesian active learning for classification and preference
        learning*, Houlsby, Huszár, Ghahramani and Lengyel, 2011,
        https://arxiv.org/abs/1112.5745.
        """
        return self._information[2]

    def sample(self, *, key: PRNGKey) -> Any:
        """Draw a target for each row jointly: all rows share the sampled model.

        So differences between rows have the model's own uncertainty. For independent
        draws in each row use another key for each.

        **Arguments:**

        - `key`: of the draw. `jax.vmap(lambda k: p.sample(key=k))(keys)` draws many.
        """
        check_key(key)
        part_key, noise_key = jax.random.split(key)
        part = jax.random.randint(part_key, (), 0, self.num_samples)
        keys = example_keys(noise_key, self.num_rows)
        return self._map(row_statistics.sample, keys, shared=(part,))

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
