"""A sampler with its denoiser as a program."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..diffusion import AbstractDenoiser, AbstractSampler, AbstractVelocityField
from ._program import Program, exported


def export_sampler(
    denoiser: AbstractDenoiser | AbstractVelocityField,
    sampler: AbstractSampler,
    shape: tuple[int, ...],
    *,
    cond: PyTree = None,
    platforms: Sequence[str] = ("cpu",),
) -> Program:
    """Return a sampler as a program of `(index, key=key)`, or `(index, cond, key=key)`.

    Sample `index[i]` is the one that `sample` draws with the same key, up to rounding:
    its key is `fold_in(key, index[i])`. A sample at which the solver gave up is NaN.
    Solvers of diffrax (`ODESampler`, `SDESampler`) raise errors through Python, which
    no file holds; with the environment variable `EQX_ON_ERROR=nan` they are exported.

    ```python
    program = export_sampler(denoiser, ExpAB(4), (2,))
    x_0 = program(jnp.arange(64, dtype=jnp.uint32), key=key)
    ```

    **Arguments:**

    - `denoiser`, `sampler`: as in `sample`.
    - `shape`: of one example.
    - `cond`: conditions of several samples as an example of shapes and dtypes, if the
        samples are to have some.
    - `platforms`: of `"cpu"`, `"cuda"` and `"tpu"`, those on which the program runs.

    **Raises:** `TypeError` for a sampler of another kind of model; `ValueError` for an
    unknown platform, or a program that calls Python.
    """
    sampler.check_model(denoiser)
    shape = tuple(shape)

    def function(key: Array, index: Array, *rest: PyTree) -> Array:
        def of_index(index, *rest):
            return sampler(
                denoiser,
                shape,
                key=jax.random.fold_in(key, index),
                cond=rest[0] if rest else None,
            )

        return jax.vmap(of_index)(index, *rest)

    if cond is None:
        return exported(function, (jnp.zeros(1, jnp.uint32),), platforms)
    index = jnp.arange(len(jax.tree.leaves(cond)[0]), dtype=jnp.uint32)
    return exported(function, (index, cond), platforms)
