"""The density of a diffusion model, by the probability flow."""

import math
import warnings
from collections.abc import Callable

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..._random.keys import check_key
from ..._types import PRNGKey
from .._denoiser.denoiser import AbstractDenoiser, at_noise_level, check_denoiser
from .._denoiser.last_level import last_level
from .._sampler.grids import level_range
from .._sampler.ode import (
    LARGEST_STEP,
    begun,
    bent,
    flow_field,
    in_bent,
    num_evaluations,
)
from .._schedule.argument_checks import as_example
from .._schedule.constants import free_schedules, hold_schedules
from .._types import Cond, Numbers
from ..nn import check_given
from .trace import AbstractTrace, ExactTrace

# Leading eigenvectors of the data's covariance that the prior takes from the denoiser.
_RANK = 8


class LogProb(eqx.Module):
    """A log-density in nats, and what stands between it and the truth.

    **Fields:**

    - `value`: the log-density.
    - `trace_error`: standard error from random probes; 0 for an exact trace, NaN for a
        single replicate, which cannot tell.
    - `solver_error`: distance to the same solve at ten times the tolerances, for most
        points larger than the solver's error; NaN if it was not asked for.
    - `prior_mismatch`: estimate of the error from the prior, which is a Gaussian where
        the denoiser's distribution at the last noise level may be none: the difference
        of their scores at the end of the flow, in standard deviations. The root of its
        mean square over data bounds the standard deviation of that error.
    - `num_evaluations`: of the denoiser, along the flow.
    - `latent`: the noise that the flow pairs with x, standard normal.
    - `failed`: whether the solver gave up; the value is NaN then.
    """

    value: Float[Array, "..."]
    trace_error: Float[Array, "..."]
    solver_error: Float[Array, "..."]
    prior_mismatch: Float[Array, "..."]
    num_evaluations: Int[Array, "..."]
    latent: Float[Array, "..."]
    failed: Bool[Array, "..."]


def log_prob(
    denoiser: AbstractDenoiser,
    x: Numbers,
    *,
    cond: Cond = None,
    trace: AbstractTrace | None = None,
    key: PRNGKey | None = None,
    solver: dfx.AbstractSolver | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    level_min: float = 0.002,
    level_max: float | None = None,
    prior: Callable[[Float[Array, "*shape"]], Float[Array, ""]] | None = None,
    sigma_data: float | None = None,
    estimate_error: bool = False,
    max_steps: int = 4096,
) -> LogProb:
    r"""Log-density of one example under the model.

    Along the probability flow $dy/du = h(y, u)$ the density changes by the divergence,

    $$\log p(y_{begin}) = \log p(y_{end}) + \int \nabla \cdot h\,du .$$

    It is the density of the data with noise of level `level_min` in them: the data's
    own needs a level well below their finest structure.

    At the last noise level s the data are taken for Gaussian, $N(m, s^2 I + C)$ with
    the mean and the leading covariance that the denoiser gives there, for this
    condition. What that leaves is `prior_mismatch`.

    Reference: *Score-Based Generative Modeling through Stochastic Differential
    Equations*, Song et al., 2021, section 4.3; *Neural Ordinary Differential
    Equations*, Chen et al., 2018.

    ```python
    out = log_prob(denoiser, x)
    out = log_prob(denoiser, image, trace=Hutchinson(8), key=key)
    out = log_prob_many(denoiser, images, trace=Hutchinson(8), key=key, batch_size=64)
    ```

    **Arguments:**

    - `denoiser`: the model.
    - `x`: one example; integers and half precision become float32.
    - `cond`: its condition.
    - `trace`: how to take the divergence; exactly by default. `Hutchinson` or `HutchPP`
        for images.
    - `key`: of the probes. They depend on x too, so that examples with one key, as
        under a `vmap` over x alone, have independent errors.
    - `solver`, `rtol`, `atol`, `max_steps`: diffrax's; `Tsit5` by default.
    - `level_min`, `level_max`: noise levels to begin and end at, in units of the data's
        standard deviation.
    - `prior`: log-density of $x_t/\alpha_t$ at the last noise level, in the data's
        units; by default the Gaussian above.
    - `sigma_data`: deprecated, without effect: the denoiser knows the scale of its data
        (`AbstractDenoiser.standardised`).
    - `estimate_error`: solve again at ten times the tolerances for `solver_error`; it
        adds about two thirds to the cost.

    Derivatives with respect to x are exact; those with respect to the denoiser leave
    out what the covariance of the data has in the prior, of order $C/s^2$.
    """
    check_denoiser(denoiser)
    check_given(denoiser, cond)
    x = as_example("x", x)
    trace = ExactTrace() if trace is None else trace
    if key is None and not isinstance(trace, ExactTrace):
        raise ValueError(f"{type(trace).__name__} draws probes: give log_prob a key")
    if key is not None:
        check_key(key)
    if sigma_data is not None:
        warnings.warn(
            f"log_prob(sigma_data={sigma_data:g}) has no effect: the denoiser knows "
            "the scale of its data. Leave it out",
            DeprecationWarning,
            stacklevel=2,
        )
    flow = _Flow(
        trace,
        dfx.Tsit5() if solver is None else solver,
        rtol,
        atol,
        level_range(denoiser.schedule, level_min, level_max),
        prior,
        estimate_error,
        max_steps,
    )
    return _compiled(flow, hold_schedules(denoiser), x, cond, key)


@eqx.filter_jit
def _compiled(flow, held, x, cond, key):
    return flow(free_schedules(held), x, cond, key)


class _Flow(eqx.Module):
    """Settings of a density, told from their values by jit."""

    trace: AbstractTrace
    solver: dfx.AbstractSolver
    rtol: float
    atol: float
    levels: tuple[float, float] = eqx.field(static=True)
    prior: Callable | None
    estimate_error: bool = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def __call__(self, denoiser, x, cond, key):
        unit, units = denoiser.standardised()
        high, _ = self.levels
        if key is not None:
            key = jax.random.fold_in(key, _hash(x))
        volume, x = units.log_volume(x), units.to_unit(x)
        law = last_level(
            unit, high, x.shape, cond, known=units.known, rank=_RANK, dtype=x.dtype
        )

        def log_prior(end):
            if self.prior is None:
                return law.log_prob(end)
            return self.prior(units.to_data(end)) + volume

        ends, change, steps, failed = self._solve(unit, x, cond, key, 1.0)
        values = log_prior(ends) + change
        value = jnp.where(failed, jnp.nan, jnp.mean(values) - volume)
        count = num_evaluations(self.solver, steps)
        solver_error = jnp.full_like(value, jnp.nan)
        if self.estimate_error:
            rough, rough_change, more, _ = self._solve(unit, x, cond, key, 10.0)
            rough_value = jnp.mean(log_prior(rough) + rough_change) - volume
            solver_error = jnp.abs(rough_value - value)
            count = count + num_evaluations(self.solver, more)
        x_0 = at_noise_level(unit, ends, jnp.asarray(math.log(high), x.dtype), cond)
        score = law.score(ends) if self.prior is None else jax.grad(log_prior)(ends)
        mismatch = law.mismatch((x_0 - ends) / high**2 - score)
        return LogProb(
            value,
            _standard_error(values, self.trace),
            solver_error,
            mismatch,
            count,
            law.encode(ends),
            failed,
        )

    def _solve(self, denoiser, x, cond, key, scale):
        """End of the flow, replicates of the change of log-density, steps, failed."""
        high, low = self.levels
        shape, dim = x.shape, x.size
        begin, last = bent(-math.log(low)), bent(-math.log(high))

        @in_bent
        def right_hand_side(u, state):
            y, _ = state

            def field(flat):
                return flow_field(denoiser, flat.reshape(shape), -u, cond).ravel()

            value, product = jax.linearize(field, y.ravel())
            return value.reshape(shape), self.trace(product, dim, x.dtype, key=key)

        zeros = jnp.zeros((self.trace.num_replicates,), x.dtype)
        t0, y0 = jnp.asarray(begin, x.dtype), (x / math.hypot(1.0, low), zeros)
        solution = dfx.diffeqsolve(
            dfx.ODETerm(lambda w, state, args: right_hand_side(w, state)),
            self.solver,
            t0=t0,
            t1=jnp.asarray(last, x.dtype),
            dt0=-LARGEST_STEP,
            y0=y0,
            stepsize_controller=dfx.PIDController(
                # Steps of a method of order five grow like the fifth root of these.
                rtol=scale * self.rtol,
                atol=scale * self.atol,
                dtmax=LARGEST_STEP * scale**0.2,
            ),
            solver_state=begun(self.solver, right_hand_side, t0, y0),
            max_steps=self.max_steps,
            throw=False,
        )
        assert solution.ys is not None  # SaveAt(t1=True) is the default
        y, change = solution.ys[0][0], solution.ys[1][0]
        # Densities of y and of x differ by the volume the scaling takes.
        growth = math.log(math.hypot(1.0, high)) - math.log(math.hypot(1.0, low))
        failed = solution.result != dfx.RESULTS.successful
        end = y * math.hypot(1.0, high)
        return end, change + dim * growth, solution.stats["num_steps"], failed


def _hash(x):
    """A number from the bits of an example, for `fold_in`.

    For a given x, a key folded with it is as random as the key was, so estimates stay
    unbiased; and two examples have independent probes although their key is one.
    """
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x), jnp.uint32).ravel()
    # Odd multipliers, so that each bit counts and the order of the numbers does.
    place = 2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1
    mixed = (bits ^ (bits >> 15)) * (place * jnp.uint32(2654435761))
    return jnp.sum(mixed ^ (mixed >> 13), dtype=jnp.uint32)


def bits_per_dim(
    log_density: Float[Array, "..."], dim: int, bin_width: float
) -> Float[Array, "..."]:
    r"""Bits per dimension of data that were dequantised uniformly.

    $$-\frac{\log p + d \log w}{d \log 2}$$

    is an upper bound of the code length of the integers, where w is the width of one
    integer in the units of the density: 1/(standard deviation in grey values) for
    standardised images, 1/256 for images divided by 256.

    Reference: *A note on the evaluation of generative models*, Theis et al., 2016.

    **Arguments:**

    - `log_density`: in nats, of the dequantised data; see `dequantise`.
    - `dim`: numbers in an example.
    - `bin_width`: w.
    """
    _check_width(bin_width)
    return -(log_density + dim * math.log(bin_width)) / (dim * math.log(2.0))


def dequantise(x: Numbers, bin_width: float, *, key: PRNGKey) -> Float[Array, "..."]:
    """Spreads each value over its bin: adds a uniform number in +-`bin_width`/2.

    Integers become floats: grey values of 0 to 255 have bins of width 1.
    """
    _check_width(bin_width)
    check_key(key)
    x = as_example("x", x)
    half = bin_width / 2.0
    return x + jax.random.uniform(key, x.shape, x.dtype, -half, half)


def _check_width(bin_width):
    if not 0.0 < bin_width < math.inf:
        raise ValueError(
            f"bin_width={bin_width}: the width of one integer in the data's units, "
            "1/std for grey values that were standardised by their std"
        )


def _standard_error(values, trace):
    if isinstance(trace, ExactTrace):
        return jnp.zeros_like(values[0])
    if trace.num_replicates == 1:
        return jnp.full_like(values[0], jnp.nan)
    return jnp.std(values, ddof=1) / math.sqrt(trace.num_replicates)
