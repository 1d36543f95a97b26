"""What every sampler must say, and drawing many samples in one dispatch."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._batch import num_rows
from .._types import PRNGKey
from ._denoiser import AbstractDenoiser
from ._types import Cond


class Draw(eqx.Module):
    """One sample and what it cost; with a leading axis, several.

    **Fields:**

    - `x_0`: the sample.
    - `num_evaluations`: calls of the denoiser it took.
    - `failed`: whether the solver gave up, at its maximum of steps.
    """

    x_0: Float[Array, "..."]
    num_evaluations: Int[Array, "..."]
    failed: Bool[Array, "..."]


class AbstractSampler(eqx.Module):
    """Turns noise into one sample. `jax.vmap` over keys for more, or call `sample`."""

    @abc.abstractmethod
    def draw(
        self,
        denoiser: AbstractDenoiser,
        key: PRNGKey,
        shape: tuple[int, ...],
        *,
        cond: Cond = None,
    ) -> Draw:
        """One sample with its cost.

        **Arguments:**

        - `denoiser`: the model.
        - `key`: all of the sample's randomness.
        - `shape`: of one example.
        - `cond`: what the sample is conditioned on.
        """

    def __call__(
        self,
        denoiser: AbstractDenoiser,
        key: PRNGKey,
        shape: tuple[int, ...],
        *,
        cond: Cond = None,
    ) -> Float[Array, "..."]:
        """One sample, NaN if the solver failed (raising inside jit can hang)."""
        out = self.draw(denoiser, key, shape, cond=cond)
        return jnp.where(out.failed, jnp.nan, out.x_0)


def sample(
    denoiser: AbstractDenoiser,
    sampler: AbstractSampler,
    *,
    key: PRNGKey,
    num: int,
    shape: tuple[int, ...],
    cond: PyTree = None,
    chunk: int | None = None,
) -> Draw:
    """Draws `num` samples in one dispatch.

    Sample i has the key `fold_in(key, i)`: it is the same whatever `num` and `chunk`.

    ```python
    draws = sample(denoiser, ODESampler(), key=key, num=64, shape=(1, 28, 28))
    images, evaluations = draws.x_0, draws.num_evaluations.max()
    ```

    **Arguments:**

    - `denoiser`, `sampler`: model and method.
    - `key`: all randomness.
    - `num`: how many.
    - `shape`: of one example.
    - `cond`: one condition for each sample, along the leading axis of every leaf.
    - `chunk`: how many are held in memory at a time; all by default.

    **Returns:** a `Draw` with leading axis `num`.

    **Raises:** `RuntimeError` when the solver gave up on a sample or a sample is not
    finite; `ValueError` for a `cond` of another length.
    """
    if num < 1:
        raise ValueError(f"num={num}: draw at least one sample")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk={chunk}: a chunk holds at least one sample")
    if jax.tree.leaves(cond) and num_rows(cond) != num:
        raise ValueError(
            f"cond has {num_rows(cond)} rows for num={num} samples; give each sample "
            "its own, such as jnp.full((num,), label)"
        )
    chunk = num if chunk is None else min(chunk, num)
    draws = _draw_all(denoiser, sampler, key, num, tuple(shape), cond, chunk)
    _check(draws)
    return draws


@eqx.filter_jit
def _draw_all(denoiser, sampler, key, num, shape, cond, chunk):
    def one(index_and_cond):
        index, cond = index_and_cond
        return sampler.draw(denoiser, jax.random.fold_in(key, index), shape, cond=cond)

    rows = (jnp.arange(num, dtype=jnp.uint32), cond)
    if chunk == num:
        return jax.vmap(one)(rows)
    return jax.lax.map(one, rows, batch_size=chunk)


def _check(draws: Draw) -> None:
    # On the host: raising from inside a computation hangs on several devices.
    failed = np.asarray(draws.failed)
    if failed.any():
        raise RuntimeError(
            f"the solver reached its maximum of steps for {failed.sum()} of "
            f"{failed.size} samples, first sample {np.argmax(failed)}. Raise "
            "max_steps, loosen rtol and atol, or raise level_min: an untrained or "
            "diverged network makes the equation stiff."
        )
    finite = np.isfinite(np.asarray(draws.x_0)).reshape(failed.size, -1).all(axis=1)
    if not finite.all():
        raise RuntimeError(
            f"{(~finite).sum()} of {finite.size} samples are not finite, first sample "
            f"{np.argmin(finite)}: the denoiser gave NaN or infinity. Look at its "
            "parameters and at the last training losses."
        )
