"""A function of one example over many: compiled once, in batches, with a layout."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..._engine.layout import Layout
from ..._random.keys import check_key
from ..._types import PRNGKey
from .._denoiser.denoiser import AbstractDenoiser, check_denoiser
from .._sampler.rows import check_rows, over_rows
from .._schedule.argument_checks import as_example
from .._schedule.constants import hold_schedules
from .._types import Numbers
from .._velocity.velocity_field import AbstractVelocityField
from ..nn import check_condition


def map_examples(
    function: Callable[..., PyTree],
    denoiser: AbstractDenoiser | AbstractVelocityField,
    x: Numbers,
    *,
    cond: PyTree = None,
    key: PRNGKey | None = None,
    batch_size: int | None = None,
    progress: bool = False,
    layout: Layout | None = None,
    **settings: Any,
) -> PyTree:
    """Return `function(denoiser, x[i], cond=cond[i], **settings)` for each example.

    The function is `log_prob`, `encode`, `decode`, `flow_log_prob` or a user's. The
    program is compiled once for models of one structure and one set of settings.

    ```python
    out = map_examples(log_prob, denoiser, images, trace=Hutchinson(8), key=key)
    nats, errors = out.value.mean(), out.trace_error
    latents = map_examples(encode, denoiser, images, batch_size=64)
    ```

    **Arguments:**

    - `function`: a function of a file, so that a second call finds the program of the
        first. It returns a tree of arrays.
    - `denoiser`: the model, a denoiser or a velocity field.
    - `x`: examples, or latents for `decode`, along a leading axis.
    - `cond`: one condition for each, along the leading axis of every leaf.
    - `key`: if given, the function gets `key=fold_in(key, i)` for row i, which does not
        depend on `batch_size`. `log_prob` needs it for random traces.
    - `batch_size`: examples that are in memory at a time; all by default, or a
        twentieth with a progress bar.
    - `progress`: whether to show a progress bar on standard error.
    - `layout`: devices that share the examples of a batch.
    - `settings`: further arguments of the function, such as `trace` and `rtol`.

    **Returns:** what the function returns, with a leading axis.

    **Raises:** `ValueError` for no examples, or a `cond` of another length.
    """
    if not isinstance(denoiser, AbstractVelocityField):
        check_denoiser(denoiser)
    if key is not None:
        check_key(key)
    x = as_example("x", x)
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(
            f"x has shape {x.shape}: give examples along a leading axis, at least "
            "one. For one example write x[None]"
        )
    check_rows(cond, len(x))
    check_condition(denoiser, cond)
    return over_rows(
        _Mapped(function, key, tuple(settings.items())),
        hold_schedules(denoiser),
        (jnp.arange(len(x), dtype=jnp.uint32), x, cond),
        batch_size=batch_size,
        progress=progress,
        layout=layout,
    )


class _Mapped(eqx.Module):
    """The function of a batch of rows."""

    function: Callable[..., PyTree]
    key: PRNGKey | None
    settings: tuple[tuple[str, Any], ...]

    def __call__(self, denoiser, rows):
        def one(row):
            i, x, cond = row
            settings = dict(self.settings)
            if self.key is not None:
                settings["key"] = jax.random.fold_in(self.key, i)
            return self.function(denoiser, x, cond=cond, **settings)

        return jax.vmap(one)(rows)
