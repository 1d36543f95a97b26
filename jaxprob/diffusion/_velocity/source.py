"""Distributions at which a flow begins."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from ..._checks import check_finite, check_floating
from ..._types import PRNGKey
from .._denoiser.data_scale import per_column_values
from .._denoiser.units import PerColumn, along_leading
from .._types import Scalar


class AbstractSource(eqx.Module):
    """A distribution with a sampler, and perhaps with a density.

    A subclass defines `draw`, and `log_prob` if it has a density.
    """

    @abc.abstractmethod
    def draw(self, shape: tuple[int, ...], *, key: PRNGKey) -> Float[Array, "..."]:
        """Draw one example.

        **Arguments:**

        - `shape`: of one example of the data.
        - `key`: all of its randomness.
        """

    def log_prob(self, x: Float[Array, "*shape"]) -> Scalar:
        """Return the log-density of one example, in nats.

        **Raises:** `TypeError` for a source without a density, the default.
        """
        raise TypeError(
            f"{type(self).__name__} has no density, so the flow from it has none: take "
            "NormalSource(), or SampledSource(sampler, log_density)"
        )


class NormalSource(AbstractSource):
    r"""$N(m, S^2)$, the usual source.

    **Arguments:**

    - `mean`, `scale`: m and S, each one number, or one for each index of the leading
        axis of an example (columns of a vector, channels of an image).
    """

    mean: PerColumn = eqx.field(static=True)
    scale: PerColumn = eqx.field(static=True)

    def __init__(self, mean: PerColumn = 0.0, scale: PerColumn = 1.0):
        self.mean = per_column_values("mean", mean)
        self.scale = per_column_values("scale", scale)
        if not (np.asarray(self.scale) > 0.0).all():
            raise ValueError(f"scale={scale}: give positive standard deviations")

    def draw(self, shape: tuple[int, ...], *, key: PRNGKey) -> Float[Array, "..."]:
        z = jax.random.normal(key, shape)
        return along_leading(self.mean, z) + along_leading(self.scale, z) * z

    def log_prob(self, x: Float[Array, "*shape"]) -> Scalar:
        mean, scale = along_leading(self.mean, x), along_leading(self.scale, x)
        return jnp.sum(jax.scipy.stats.norm.logpdf(x, mean, scale))


class SampledSource(AbstractSource):
    """A source made of functions, such as the methods of a distribution of numpyro.

    ```python
    normals = dist.Normal(jnp.zeros(2), 2.0).to_event(1)
    source = SampledSource(normals.sample, normals.log_prob)
    ```

    **Arguments:**

    - `sampler`: `sampler(key)`, one example.
    - `log_density`: `log_density(x)`, its log-density in nats; `None` where it is not
        known, so that the flow has no density.
    """

    sampler: Callable[[PRNGKey], Float[Array, "..."]]
    log_density: Callable[[Float[Array, "..."]], Scalar] | None = None

    def draw(self, shape: tuple[int, ...], *, key: PRNGKey) -> Float[Array, "..."]:
        return check_source_shape(self.sampler(key), shape)

    def log_prob(self, x: Float[Array, "*shape"]) -> Scalar:
        if self.log_density is None:
            return super().log_prob(x)
        value = self.log_density(x)
        if jnp.shape(value):
            raise ValueError(
                f"log_density gives shape {jnp.shape(value)} for one example: give one "
                "number. A distribution of numpyro needs to_event(...) over all axes"
            )
        return value


class EmpiricalSource(AbstractSource):
    """Rows of a data set, each as likely as any other; it has no density.

    They become constants of the compiled program. For a large data set put rows of both
    sides in the batch and take `PairedSource`.

    **Arguments:**

    - `rows`: examples along a leading axis.

    **Raises:** `TypeError` for integers, `ValueError` for rows that are not finite.
    """

    rows: Float[Array, "rows ..."]

    def __init__(self, rows: Shaped[np.ndarray | Array, "rows ..."]):
        array = np.asarray(rows)
        check_floating("rows", array)
        check_finite("rows", array)
        if array.ndim == 0 or not len(array):
            raise ValueError(f"rows has shape {array.shape}: give at least one example")
        self.rows = jnp.asarray(array)

    def draw(self, shape: tuple[int, ...], *, key: PRNGKey) -> Float[Array, "..."]:
        index = jax.random.randint(key, (), 0, len(self.rows))
        return check_source_shape(self.rows[index], shape)


class PairedSource(AbstractSource):
    """Examples of the source stand in the batch, `(x_source, x)`.

    Row i of both is a pair, unless a coupling makes others. Samples begin at examples
    that are given: `sample(..., start=(x_source, 0.0))`.
    """

    def draw(self, shape: tuple[int, ...], *, key: PRNGKey) -> Float[Array, "..."]:
        raise TypeError(
            "PairedSource has no sampler: give the examples at which samples begin, "
            "sample(..., start=(x_source, 0.0)), or train and sample with an "
            "EmpiricalSource(rows)"
        )


def check_source_shape(
    x: Float[Array, "..."], shape: tuple[int, ...]
) -> Float[Array, "..."]:
    """Return an example of the source, and check that it has the shape of the data.

    **Raises:** `ValueError` with both shapes.
    """
    if jnp.shape(x) != shape:
        raise ValueError(
            f"the source draws examples of shape {jnp.shape(x)} where the data have "
            f"{shape}: a flow keeps the shape, so give a source of examples like the "
            "data"
        )
    return x
