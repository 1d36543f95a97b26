"""Conformance of denoisers, samplers and schedules of diffusion models."""

import jax
import jax.numpy as jnp
import numpy as np

from .._types import PRNGKey
from ..diffusion import AbstractDenoiser, AbstractSampler, AbstractSchedule
from ..diffusion._schedule.equations import check_equations
from ._contract import ContractError, finite, require
from ._gaussian_mixture import GaussianMixture, GaussianMixtureDenoiser

_LEVELS = (1e-3, 0.1, 1.0, 30.0)


def check_schedule(schedule: AbstractSchedule) -> None:
    """Check a schedule against its own equations.

    ```python
    check_schedule(VP.linear())
    ```

    `alpha`, `sigma`, the log-SNR and its inverse, drift and squared diffusion have to
    agree with one another; data are at `t_min` and noise at `t_max`.

    **Raises:** `ContractError` that names the method and the time.
    """
    try:
        check_equations(schedule)
    except (TypeError, ValueError) as error:
        raise ContractError(f"{type(schedule).__name__}: {error}") from error


def check_denoiser(
    denoiser: AbstractDenoiser, x: jax.Array, cond: object = None, *, key: PRNGKey
) -> None:
    r"""Check a denoiser at an example.

    ```python
    check_denoiser(denoiser, x[0], key=key)
    ```

    1. `denoise` keeps shape and dtype, under `jit` and `vmap` too, and is finite.
    2. Without noise the answer is the input: at a level of a thousandth of the data's
       standard deviation it differs by less than a tenth of it.
    3. Near pure noise the answer hardly depends on the noise.
    4. `standardised()` is the same denoiser in other units.
    5. Calling it at a time is `denoise` at that time's level.

    A network that is not trained breaks the second and third clause.

    **Arguments:**

    - `denoiser`: to be checked.
    - `x`: one example of the data, without noise.
    - `cond`: its condition.
    - `key`: of the noise.

    **Raises:** `ContractError` that names the broken clause.
    """
    unit, units = denoiser.standardised()
    y = jnp.asarray(units.to_unit(x))
    noise = jax.random.normal(key, (8, *x.shape), y.dtype)

    @jax.jit
    def answers(level):
        return jax.vmap(lambda z: unit.denoise(y + level * z, level, cond))(noise)

    for level in _LEVELS:
        found = answers(jnp.asarray(level, y.dtype))
        require(
            found.shape == noise.shape and found.dtype == y.dtype,
            denoiser,
            f"denoise turned shape {x.shape} and dtype {y.dtype} into "
            f"{found.shape[1:]} and {found.dtype}",
        )
        require(finite(found), denoiser, f"denoise is not finite at the level {level}")
    error = float(jnp.max(jnp.abs(answers(jnp.asarray(1e-3, y.dtype)) - y[None])))
    require(
        error < 0.1,
        denoiser,
        f"at the level .001 the answer is {error:.2g} standard deviations from the "
        "input, and without noise it is the input",
    )
    end = answers(jnp.asarray(1e3, y.dtype))
    spread = float(jnp.max(jnp.std(end, axis=0)))
    require(
        spread < 0.5,
        denoiser,
        f"at the level 1000 the answers differ by {spread:.2g} standard deviations "
        "between draws of noise, where hardly anything of the data is left",
    )
    _check_coordinates(denoiser, unit, units, x, cond)


def _check_coordinates(denoiser, unit, units, x, cond):
    inner = denoiser.schedule
    t = jnp.asarray(0.5 * (inner.t_min + inner.t_max), x.dtype)
    level, alpha = inner.level(t), inner.alpha(t)
    scaled = x + 0.1 * jnp.ones_like(x)
    whole = denoiser.denoise(scaled, level, cond)
    timed = denoiser(alpha * scaled, t, cond)
    require(
        np.allclose(whole, timed, rtol=1e-3, atol=1e-3 * float(jnp.std(whole)) + 1e-6),
        denoiser,
        "calling it at a time differs from denoise at the level of that time",
    )
    if denoiser.noise_units().is_identity and not units.is_identity:
        return  # its levels have another unit than those of `standardised`
    back = units.to_data(unit.denoise(units.to_unit(scaled), level, cond))
    require(
        np.allclose(back, whole, rtol=1e-3, atol=1e-3 * float(jnp.std(whole)) + 1e-6),
        denoiser,
        "standardised() is not the same denoiser in other units",
    )


def check_sampler(
    sampler: AbstractSampler, *, key: PRNGKey, num_samples: int = 2000
) -> None:
    """Check a sampler on a mixture of two Gaussians whose denoiser is exact.

    ```python
    check_sampler(ExpAB(18), key=key, num_samples=200)
    ```

    1. `draw` is a function of the key: equal keys give equal samples, others do not.
    2. Samples have the shape that was asked for and are finite.
    3. Their mean and covariance are those of the mixture within five standard errors
       and a twentieth.

    **Arguments:**

    - `sampler`: to be checked.
    - `key`: of the samples.
    - `num_samples`: how many are drawn.

    **Raises:** `ContractError` that names the broken clause.
    """
    from ..diffusion import VE, sample

    mixture = GaussianMixture(
        jnp.asarray([0.5, 0.5]),
        jnp.asarray([[-1.0, 0.0], [1.0, 0.5]]),
        0.09 * jnp.stack([jnp.eye(2), jnp.eye(2)]),
    )
    denoiser = GaussianMixtureDenoiser(mixture, VE())
    first, again = (sampler.draw(denoiser, (2,), key=key).x_0 for _ in range(2))
    require(first.shape == (2,), sampler, f"a sample has shape {first.shape}, not (2,)")
    require(
        bool(jnp.array_equal(first, again)), sampler, "draw differs for one and one key"
    )
    found = sample(denoiser, sampler, key=key, num_samples=num_samples, shape=(2,))
    draws = np.asarray(found.x_0, np.float64)
    require(np.isfinite(draws).all(), sampler, "samples are not finite")
    require(
        len(np.unique(draws[:, 0])) > num_samples // 2,
        sampler,
        "samples of different keys are equal",
    )
    centred = draws - np.asarray(mixture.mean())
    products = centred[:, :, None] * centred[:, None, :]
    for name, values, expected in (
        ("mean", centred, 0.0),
        ("covariance", products, np.asarray(mixture.covariance())),
    ):
        error = values.std(0) / np.sqrt(num_samples)
        far = np.abs(values.mean(0) - expected) > 5.0 * error + 0.05
        require(
            not far.any(),
            sampler,
            f"the {name} of {num_samples} samples is off by "
            f"{np.abs(values.mean(0) - expected).max():.3g}, with a standard error of "
            f"{error.max():.2g}",
        )
