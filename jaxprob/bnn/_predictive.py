"""The posterior predictive distribution: a mixture with one part for each model."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, Num, PyTree

from .._keys import example_keys
from .._types import PRNGKey
from ._likelihood import BERNOULLI, CATEGORICAL, Likelihood, class_probs
from ._log_joint import check_target, log_likelihood_of

if TYPE_CHECKING:
    from ._calibrated import CalibratedPredictive

_BISECTIONS = 50


class Predictive:
    r"""The mixture over posterior samples, $p(y \mid x) = \frac 1 S \sum_s
    p(y \mid f_{w_s}(x))$, for each row x. `predict` makes it.

    Statistics are computed when they are asked for, in chunks of rows. With several
    outputs, everything but `log_prob` is for each output by itself.

    - Regression: `mean`, `variance` = `aleatoric` + `epistemic`, `std`, `quantile`,
      `interval`, `cdf`.
    - Classification: `probs`, `entropy`, `mutual_information`.
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
    ):
        self._chunks = chunks
        self._likelihood = likelihood
        self._chunk_size = chunk_size
        self.num_rows = num_rows
        self.num_samples = num_samples
        self._at = at

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
        from ._calibrated import CalibratedPredictive

        held_out = self._at(x)
        return CalibratedPredictive(self, held_out, held_out.check_rows("y", y))

    @property
    def outputs(self) -> PyTree[Num[Array, "rows samples *out"]]:
        """The output of each sampled model: the one thing that is held in full."""
        parts = [
            jax.tree.map(lambda a, n=n: a[:n], outputs) for outputs, n in self._chunks()
        ]
        return jax.tree.map(lambda *a: jnp.concatenate(a), *parts)

    @functools.cached_property
    def _moments(self):
        return self._map(_moments)

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

    @property
    def variance(self) -> Float[Array, "rows *out"]:
        """Variance of y, by the law of total variance."""
        return self.epistemic + self.aleatoric

    @property
    def std(self) -> Float[Array, "rows *out"]:
        """Standard deviation of y."""
        return jnp.sqrt(self.variance)

    @property
    def moment_matched(self) -> dist.Normal:
        """The Gaussians with the mean and the standard deviation of the mixture.

        An approximation, of one hump where the mixture may have several:
        `predictive.moment_matched.log_prob(y)` is not `predictive.log_prob(y)`.
        """
        return dist.Normal(self.mean, self.std)

    def log_prob(
        self, y: Num[Array | np.ndarray, "rows *out"]
    ) -> Float[Array, " rows"]:
        r"""Log-density of the mixture itself, $\log \frac 1 S \sum_s p(y \mid w_s)$.

        Not that of the Gaussian with the same mean and variance, nor the mean of
        $\log p(y \mid w_s)$, which is never larger.

        **Arguments:**

        - `y`: a target for each row.
        """
        return self._map(_log_prob, self.check_rows("y", y))

    def cdf(
        self, y: Float[Array | np.ndarray, "rows *out"]
    ) -> Float[Array, "rows *out"]:
        """Distribution function of the mixture at a target for each row."""
        return self._map(_cdf, self.check_rows("y", y))

    def quantile(self, q: float) -> Float[Array, "rows *out"]:
        """The q-quantile of the mixture, by bisection of its distribution function.

        The quantile of a mixture is no mean of quantiles; it does lie between the
        smallest and the largest of its parts'.

        **Arguments:**

        - `q`: in (0, 1).
        """
        if not 0 < q < 1:
            raise ValueError(f"q={q}: a quantile's level is inside (0, 1)")
        return self._map(_quantile, shared=(jnp.asarray(q),))

    def interval(
        self, level: float = 0.9
    ) -> tuple[Float[Array, "rows *out"], Float[Array, "rows *out"]]:
        """The central interval that holds y with probability `level`: (lower, upper).

        **Arguments:**

        - `level`: in (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"level={level}: a probability inside (0, 1)")
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)

    @functools.cached_property
    def _information(self):
        return self._map(_information)

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
        part_key, noise_key = jax.random.split(key)
        part = jax.random.randint(part_key, (), 0, self.num_samples)
        keys = example_keys(noise_key, self.num_rows)
        return self._map(_sample, keys, shared=(part,))

    def check_rows(
        self, name: str, array: Num[Array | np.ndarray, "..."]
    ) -> Num[Array, "..."]:
        """The array, if it has an entry for each row."""
        array = jnp.asarray(array)
        if array.shape[:1] != (self.num_rows,):
            raise ValueError(
                f"{name} has shape {array.shape}, and the prediction is for "
                f"{self.num_rows} rows"
            )
        return array

    @functools.cached_property
    def _kind(self):
        """A distribution such as those of the parts."""
        outputs, _ = next(iter(self._chunks()))
        return _marginal(self._likelihood(jax.tree.map(lambda a: a[0, 0], outputs)))

    @property
    def is_classification(self) -> bool:
        """Whether y is a class label."""
        return isinstance(self._kind, CATEGORICAL + BERNOULLI)

    @property
    def is_binary(self) -> bool:
        """Whether y is zero or one, and `probs` the probability of one."""
        return isinstance(self._kind, BERNOULLI)

    def __repr__(self):
        return (
            f"{type(self).__name__}({self.num_rows} rows, {self.num_samples} samples, "
            f"{type(self._kind).__name__})"
        )

    def _map(self, statistic, *rows, shared=()):
        """A statistic of each row, chunk by chunk; `rows` are cut along with them."""
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


def _parts(function, likelihood, outputs):
    """`function(distribution)` for each sample's output.

    Arrays leave the vmap and distributions do not: numpyro's would keep the batch shape
    that they had inside.
    """
    return jax.vmap(lambda output: function(likelihood(output)))(outputs)


def _marginal(p):
    """Each output by itself: takes off `to_event`."""
    while isinstance(p, dist.Independent):
        p = p.base_dist
    if p.event_shape and not isinstance(p, CATEGORICAL):
        raise ValueError(
            f"{type(p).__name__} has no distribution function or quantile for each "
            "output: use log_prob and sample"
        )
    return p


def _refuse_classes(p, what):
    if isinstance(p, CATEGORICAL):
        raise ValueError(
            f"class labels have no {what}: use probs, entropy, mutual_information or "
            "log_prob"
        )


def _moments(likelihood, outputs):
    def moments(p):
        _refuse_classes(p, "mean or variance")
        return p.mean, p.variance

    means, variances = _parts(moments, likelihood, outputs)
    return jnp.mean(means, 0), jnp.var(means, 0), jnp.mean(variances, 0)


def _log_prob(likelihood, outputs, y):
    terms = _parts(lambda p: log_likelihood_of(p, y), likelihood, outputs)
    return jax.nn.logsumexp(terms) - math.log(terms.shape[0])


def _cdf(likelihood, outputs, y):
    def cdf(p):
        _refuse_classes(p, "distribution function")
        check_target(p, y)
        return _marginal(p).cdf(y)

    return jnp.mean(_parts(cdf, likelihood, outputs), 0)


def _quantile(likelihood, outputs, q):
    def bracket(p):
        _refuse_classes(p, "quantile")
        p = _marginal(p)
        if p.is_discrete:
            raise ValueError(
                f"{type(p).__name__} is discrete, and its quantile a step: use probs, "
                "cdf or sample"
            )
        try:
            return (
                p.icdf(jnp.broadcast_to(q, p.batch_shape).astype(p.mean.dtype)),
                p.mean,
                p.variance,
            )
        except (NotImplementedError, ImportError):
            return None, p.mean, p.variance

    values, means, variances = _parts(bracket, likelihood, outputs)
    if values is not None:
        low, high = jnp.min(values, 0), jnp.max(values, 0)
    else:
        # Cantelli's inequality holds for any distribution with a variance.
        mean = jnp.mean(means, 0)
        std = jnp.sqrt(jnp.var(means, 0) + jnp.mean(variances, 0))
        low = mean - std * jnp.sqrt((1 - q) / q).astype(std.dtype)
        high = mean + std * jnp.sqrt(q / (1 - q)).astype(std.dtype)
    level = q.astype(low.dtype)

    def halve(_, ends):
        low, high = ends
        middle = low + (high - low) / 2
        below = _cdf(likelihood, outputs, middle) < level
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (low, high))
    return low + (high - low) / 2


def _information(likelihood, outputs):
    def probs(p):
        p = _marginal(p)
        if not isinstance(p, CATEGORICAL + BERNOULLI):
            raise ValueError(
                f"probs, entropy and mutual_information are for classes, and this "
                f"likelihood is {type(p).__name__}. For a mixture of densities the "
                "entropy has no closed form: -predictive.log_prob(y) averages to it "
                "over draws y of predictive.sample."
            )
        return class_probs(p)

    each = _parts(probs, likelihood, outputs)
    binary = isinstance(_marginal(likelihood(_first(outputs))), BERNOULLI)
    entropy = _binary_entropy if binary else _entropy
    mixture = jnp.mean(each, 0)
    total = entropy(mixture)
    # Rounding may leave -1e-8 of what Jensen's inequality says is positive.
    gain = jnp.maximum(total - jnp.mean(entropy(each), 0), 0.0)
    return mixture, total, gain


def _first(outputs):
    return jax.tree.map(lambda a: a[0], outputs)


def _entropy(probs):
    return -jnp.sum(jax.scipy.special.xlogy(probs, probs), -1)


def _binary_entropy(probs):
    rest = 1.0 - probs
    xlogy = jax.scipy.special.xlogy
    return -xlogy(probs, probs) - xlogy(rest, rest)


def _sample(likelihood, outputs, key, part):
    p = likelihood(jax.tree.map(lambda a: a[part], outputs))
    return p.sample(key)
