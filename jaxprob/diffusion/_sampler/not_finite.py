"""The error of a draw that is not finite: where on its way that began."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._schedule.constants import free_schedules


def check_finite_draws(draws, held, sampler, key, rows, shape) -> None:
    """Check that all samples are finite and that the solver came to their ends.

    A sample that is not is drawn once more on its own, with its path.

    **Arguments:** those of `sample`; `held` is what `hold_schedules` returns, and
    `rows` are conditions and first points.

    **Raises:** `RuntimeError` with the step and the level at which it began.
    """
    # On the host: raising from inside a computation hangs on several devices.
    failed = np.asarray(draws.failed)
    finite = np.isfinite(np.asarray(draws.x_0)).reshape(failed.size, -1).all(axis=1)
    if finite.all() and not failed.any():
        return
    first = int(np.argmax(failed | ~finite))
    key = jax.random.fold_in(key, first)
    cond, start = jax.tree.map(lambda leaf: leaf[first], rows)
    place = _first_bad(held, sampler, key, (cond, start), shape, failed[first])
    if place is not None:
        step, steps, level = place
        raise RuntimeError(
            f"{(failed | ~finite).sum()} of {finite.size} samples are not finite, "
            f"first sample {first}: the denoiser gave NaN or infinity, there at step "
            f"{step} of {steps}, {sampler.level_name} {level:.3g}. Look at its "
            f"parameters and at the last training losses.{_about(cond)}"
        )
    raise RuntimeError(
        f"the solver reached its maximum of steps for {failed.sum()} of {failed.size} "
        f"samples, first sample {first}. Raise max_steps, loosen rtol and atol, or "
        "raise level_min: an untrained or diverged network makes the equation stiff."
    )


def _about(cond):
    classes = [
        np.asarray(leaf)
        for leaf in jax.tree.leaves(cond)
        if jnp.issubdtype(leaf.dtype, jnp.integer)
    ]
    if not classes:
        return ""
    listing = ", ".join(str(np.ravel(leaf)[:4].tolist()) for leaf in classes)
    return (
        f" Or the network has no such class as in the sample's cond, {listing}: a "
        "table gives NaN for a row that it does not have."
    )


def _first_bad(held, sampler, key, row, shape, failed):
    """Step, steps and noise level at which values are first not finite."""

    @eqx.filter_jit
    def follow(held, key, row):
        denoiser, (cond, start) = free_schedules(held), row
        settings = {} if start is None else {"start": start}
        settings |= {"key": key, "cond": cond, "trajectory": True}
        out = sampler.draw(denoiser, shape, **settings)
        outputs = jax.vmap(lambda x, level: sampler.answer(denoiser, x, level, cond))(
            out.path, out.levels
        )
        return out.path, outputs, out.levels

    path, outputs, levels = (np.asarray(a) for a in follow(held, key, row))
    for step, level in enumerate(levels):
        if not np.isfinite(path[step]).all():
            # A solver that gave up saves no more, and that reads as infinity.
            return None if failed else (step, len(levels), float(level))
        if not np.isfinite(outputs[step]).all():
            return step + 1, len(levels), float(level)
    return None if failed else (len(levels), len(levels), float(levels[-1]))
