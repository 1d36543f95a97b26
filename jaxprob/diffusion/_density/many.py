"""Densities and latents of many examples: compiled once, in batches, with a layout."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._engine.layout import Layout
from ..._types import PRNGKey
from .._denoiser.denoiser import AbstractDenoiser, check_denoiser
from .._sampler.ode import ODESampler
from .._sampler.rows import check_rows, over_rows
from .._schedule.argument_checks import as_example
from .._schedule.constants import hold_schedules
from .._types import Numbers
from ..nn import check_condition
from .latent import decode, encode
from .log_prob import LogProb, log_prob


def log_prob_many(
    denoiser: AbstractDenoiser,
    x: Numbers,
    *,
    cond: PyTree = None,
    key: PRNGKey | None = None,
    batch_size: int | None = None,
    progress: bool = False,
    layout: Layout | None = None,
    **settings: Any,
) -> LogProb:
    """Log-densities of many examples under the model, as `log_prob` of each.

    The program is compiled once for denoisers of one structure and one set of settings.
    Row i has the key `fold_in(key, i)`: its number does not depend on `batch_size`.

    ```python
    out = log_prob_many(denoiser, images, trace=Hutchinson(8), key=key, batch_size=64)
    nats, errors = out.value.mean(), out.trace_error
    ```

    **Arguments:**

    - `denoiser`: the model.
    - `x`: examples along a leading axis.
    - `cond`: one condition for each, along the leading axis of every leaf.
    - `key`: of the probes of random traces.
    - `batch_size`: examples that are in memory at a time; all by default, or a
        twentieth with a progress bar.
    - `progress`: whether to show a progress bar on standard error.
    - `layout`: devices that share the examples of a batch.
    - `settings`: the other arguments of `log_prob`, such as `trace` and `rtol`.

    **Returns:** a `LogProb` whose fields have a leading axis.

    **Raises:** `ValueError` for no examples, or a `cond` of another length.
    """
    many = _Densities(key, tuple(settings.items()))
    return _run(many, denoiser, "x", x, cond, batch_size, progress, layout)


def encode_many(
    denoiser: AbstractDenoiser,
    x: Numbers,
    *,
    cond: PyTree = None,
    sampler: ODESampler | None = None,
    batch_size: int | None = None,
    progress: bool = False,
    layout: Layout | None = None,
) -> Float[Array, "..."]:
    """The noise that the flow pairs with each of many examples; `encode` of each.

    **Arguments:** as in `log_prob_many` and `encode`.
    """
    many = _Latents(True, sampler)
    return _run(many, denoiser, "x", x, cond, batch_size, progress, layout)


def decode_many(
    denoiser: AbstractDenoiser,
    latent: Numbers,
    *,
    cond: PyTree = None,
    sampler: ODESampler | None = None,
    batch_size: int | None = None,
    progress: bool = False,
    layout: Layout | None = None,
) -> Float[Array, "..."]:
    """The data that the flow pairs with each of many latents; `decode` of each.

    **Arguments:** as in `log_prob_many` and `decode`.
    """
    many = _Latents(False, sampler)
    return _run(many, denoiser, "latent", latent, cond, batch_size, progress, layout)


class _Densities(eqx.Module):
    key: PRNGKey | None
    settings: tuple[tuple[str, Any], ...]

    def __call__(self, denoiser, rows):
        def one(row):
            i, x, cond = row
            key = None if self.key is None else jax.random.fold_in(self.key, i)
            return log_prob(denoiser, x, cond=cond, key=key, **dict(self.settings))

        return jax.vmap(one)(rows)


class _Latents(eqx.Module):
    forward: bool = eqx.field(static=True)
    sampler: ODESampler | None

    def __call__(self, denoiser, rows):
        of = encode if self.forward else decode

        def one(row):
            _, x, cond = row
            return of(denoiser, x, cond=cond, sampler=self.sampler)

        return jax.vmap(one)(rows)


def _run(many, denoiser, name, x, cond, batch_size, progress, layout):
    check_denoiser(denoiser)
    x = as_example(name, x)
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(
            f"{name} has shape {x.shape}: give examples along a leading axis, at least "
            f"one. For one example write {name}[None]"
        )
    check_rows(cond, len(x))
    check_condition(denoiser, cond)
    rows = jnp.arange(len(x), dtype=jnp.uint32), x, cond
    held = hold_schedules(denoiser)
    return over_rows(
        many, held, rows, batch_size=batch_size, progress=progress, layout=layout
    )
