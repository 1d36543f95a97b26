r"""Linear multistep schemes in the denoiser's outputs, as tables of coefficients.

In $x = x_t/\alpha_t$ and $s = \sigma_t/\alpha_t$, with $\lambda = -\log s$, the
probability flow between two noise levels is exactly

$$x_b = \frac{b}{a} x_a + b \int_{-\log a}^{-\log b} e^\lambda D(x_\lambda, \lambda)\,
  d\lambda,$$

so a scheme that replaces D by a polynomial through past outputs is a row of numbers,

$$x_{i+1} = r_i x_i + \sum_j w_{ij} D_{i-j} + n_i z_i.$$

The numbers depend on the grid alone. They are computed on the host, in double
precision, and one `lax.scan` runs every scheme.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._denoiser.denoiser import at_level
from .grid_sampler import AbstractGridSampler, needed


class Table(eqx.Module):
    """Coefficients of a scheme on a grid of n steps, in double precision.

    **Fields:**

    - `keep`: $r_i$, the factor of x.
    - `predict`: $w_{ij}$, weights of the latest outputs, the newest first.
    - `correct`: weights of the output at the new point and of those before, if the
        scheme corrects each point after the denoiser has seen it; row i is for the
        step that ended at point i, so row 0 is not used.
    - `noise`: $n_i$, if the scheme is stochastic.
    """

    keep: np.ndarray
    predict: np.ndarray
    correct: np.ndarray | None = None
    noise: np.ndarray | None = None


class AbstractMultistep(AbstractGridSampler):
    """Base class of samplers that are a table of coefficients."""

    @abc.abstractmethod
    def table(self, levels: np.ndarray) -> Table:
        """Return the coefficients on a grid of falling noise levels."""

    @property
    def evaluations_per_step(self) -> int:
        return 1

    def _walk(self, denoiser, x, levels, key, cond, trajectory):
        table = self.table(levels)
        depth = table.predict.shape[1]
        if table.correct is not None:
            depth = max(depth, table.correct.shape[1])

        def cast(array):
            return None if array is None else jnp.asarray(array, x.dtype)

        rows = (
            jnp.arange(len(table.keep)),
            cast(levels[:-1]),
            cast(table.keep),
            cast(table.predict),
            cast(table.correct),
            cast(table.noise),
        )

        def step(carry, row):
            x, before, keep_before, past = carry
            i, level, keep, predict, correct, noise = row
            past = jnp.roll(past, 1, axis=0)
            past = past.at[0].set(at_level(denoiser, x, level, cond))
            if correct is not None:
                corrected = keep_before * before + _combine(correct, past)
                x = jnp.where(i == 0, x, corrected)
            after = keep * x + _combine(predict, past)
            if noise is not None:
                draw = jax.random.normal(
                    jax.random.fold_in(needed(key), i), x.shape, x.dtype
                )
                after = after + noise * draw
            # The path has corrected points; the denoiser saw uncorrected ones.
            return (after, x, keep, past), (x if trajectory else None)

        past = jnp.zeros((depth, *x.shape), x.dtype)
        carry = (x, x, jnp.ones((), x.dtype), past)
        carry, path = jax.lax.scan(step, carry, rows)
        return carry[0], path


def _combine(weights, outputs):
    return jnp.tensordot(weights, outputs[: len(weights)], axes=1)
