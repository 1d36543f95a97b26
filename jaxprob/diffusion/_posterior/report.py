"""Diagnosis of the linear systems of moment matching."""

import warnings
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._random.keys import check_key
from ..._types import PRNGKey
from .._denoiser.denoiser import at_level
from .._schedule.argument_checks import as_example, check_kind
from .._types import Numbers
from .conditioned import measured
from .local_gaussian import local_gaussian
from .mmps import MMPS, mean_and_covariance
from .solve import conjugate_gradients

# Above these a report warns: part of the measurement is then not used.
_MUCH = 0.1


class SolveReport(eqx.Module):
    """Means over examples at each noise level, of the systems that `MMPS` solves.

    **Fields:**

    - `levels`: in units of the data's standard deviation.
    - `asymmetry`: $|(J - J^T) v| / |(J + J^T) v|$ for a random v; 0 for an exact
        denoiser, 1 for a Jacobian without a symmetric part.
    - `indefinite`: share of examples at which conjugate gradients came upon a direction
        in which $A V A^T$ is negative.
    - `residual`: relative size of the residual where they stopped.
    - `num_steps`: number of products with V.
    """

    levels: Float[np.ndarray, " levels"]
    asymmetry: Float[Array, " levels"]
    indefinite: Float[Array, " levels"]
    residual: Float[Array, " levels"]
    num_steps: Float[Array, " levels"]


def solve_report(
    posterior: MMPS,
    x: Numbers,
    *,
    key: PRNGKey,
    levels: Sequence[float] = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03),
    cond: PyTree = None,
) -> SolveReport:
    """Return how well the systems of `MMPS` are solved at each noise level.

    A learned denoiser is no exact posterior mean: its Jacobian need not be symmetric or
    positive. `MMPS` then leaves part of the measurement out, and this says where. It
    solves by conjugate gradients with the `rtol` and `max_steps` of the method, for
    small y too.

    ```python
    report = solve_report(MMPS(denoiser, Observation(y[0], noise=0.1)), y[:4], key=key)
    ```

    **Arguments:**

    - `posterior`: the denoiser of the posterior.
    - `x`: examples without noise along a leading axis, such as rows of the data.
    - `key`: of the noise that is added to them.
    - `levels`: noise levels in units of the data's standard deviation.
    - `cond`: conditions of the examples.

    **Raises:** a `UserWarning` if at some level more than a tenth of the examples met a
    negative direction, or the residual is above a tenth.
    """
    check_kind("posterior", posterior, MMPS, "give an MMPS(denoiser, observation)")
    check_key(key)
    x = as_example("x", x)
    unit, units = posterior.standardised()
    assert isinstance(unit, MMPS)

    @eqx.filter_jit
    def at(unit, level):
        def one(x, cond, key):
            noise_key, probe_key = jax.random.split(key)
            noisy = units.to_unit(x)
            noisy = noisy + level * jax.random.normal(noise_key, x.shape, x.dtype)
            return _solved(unit, noisy, level, cond, key=probe_key)

        found = jax.vmap(one)(x, cond, jax.random.split(key, len(x)))
        return jax.tree.map(lambda values: jnp.mean(values.astype(x.dtype)), found)

    rows = [at(unit, jnp.asarray(level, x.dtype)) for level in levels]
    columns = [jnp.stack(column) for column in zip(*rows, strict=True)]
    report = SolveReport(np.asarray(levels, float), *columns)
    _warn(report)
    return report


def _solved(posterior, x, level, cond, *, key):
    observation, cond = measured(posterior.observation, cond)
    x_0, covariance = mean_and_covariance(
        lambda x: at_level(posterior.denoiser, x, level, cond), x, level
    )
    v = jax.random.normal(key, x.shape, x.dtype)
    _, forwards = jax.jvp(
        lambda x: at_level(posterior.denoiser, x, level, cond), (x,), (v,)
    )
    # Half of the sum with the transpose is what `covariance` multiplies with.
    both = covariance(v) / level**2
    asymmetry = jnp.linalg.norm((forwards - both).ravel())
    asymmetry = asymmetry / jnp.linalg.norm(both.ravel())
    local = local_gaussian(observation, x_0)
    b = local.residual
    state = conjugate_gradients(
        lambda u: local.push(covariance(local.pull(u))),
        b,
        rtol=posterior.rtol,
        max_steps=posterior.max_steps,
    )
    total = jnp.vdot(b, b)
    residual = jnp.sqrt(state.square / jnp.where(total > 0.0, total, 1.0))
    return asymmetry, state.indefinite, residual, state.num_steps


def _warn(report):
    for what, values, remedy in (
        (
            "share of examples with a negative direction",
            report.indefinite,
            "The denoiser's Jacobian is not that of a posterior mean there, and MMPS "
            "leaves part of the measurement out: train it longer, or take PiGDM",
        ),
        (
            "relative residual",
            report.residual,
            "Raise max_steps, or the noise of the observation",
        ),
    ):
        values = np.asarray(values)
        if values.max() > _MUCH:
            worst = int(np.argmax(values))
            warnings.warn(
                f"the {what} is {values[worst]:.2g} at the noise level "
                f"{report.levels[worst]:g}. {remedy}",
                stacklevel=3,
            )
            # A solve that stopped at a negative direction has a residual too.
            return
