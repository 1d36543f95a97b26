"""The change of a log-density along the probability flow."""

import math
from collections.abc import Callable

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._denoiser.denoiser import at_level
from .._denoiser.last_level import last_level
from .._sampler.flow import (
    LARGEST_STEP,
    bent,
    first_stage,
    flow_field,
    in_bent,
    num_evaluations,
)
from .trace import AbstractTrace, ExactTrace

# Leading eigenvectors of the data's covariance that the prior takes from the denoiser.
_RANK = 8


class LogProb(eqx.Module):
    """A log-density in nats, and estimates of its errors.

    **Fields:**

    - `value`: the log-density.
    - `trace_error`: standard error from random probes; 0 for an exact trace, NaN for a
        single replicate.
    - `solver_error`: distance to the same solve at ten times the tolerances, which for
        most points is larger than the solver's error; NaN without `estimate_error`.
    - `prior_mismatch`: estimate of the error from the prior, which is Gaussian although
        the denoiser's distribution at the last noise level may not be: the difference
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


class Decoded(eqx.Module):
    """Data that the flow pairs with noise, and their log-density in nats.

    **Fields:**

    - `x`: the data, with the noise of `level_min` in them.
    - `value`: the log-density there, which is `log_prob(denoiser, x).value`.
    - `trace_error`, `num_evaluations`, `failed`: as in `LogProb`.
    """

    x: Float[Array, "..."]
    value: Float[Array, "..."]
    trace_error: Float[Array, "..."]
    num_evaluations: Int[Array, "..."]
    failed: Bool[Array, "..."]


class DensityFlow(eqx.Module):
    """Settings of a density: those that are arrays or objects, and static ones."""

    trace: AbstractTrace
    solver: dfx.AbstractSolver
    rtol: float
    atol: float
    levels: tuple[float, float] = eqx.field(static=True)
    prior: Callable | None
    estimate_error: bool = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def decode(self, denoiser, latent, cond, key):
        """Return the data of a latent and their density, in one solve."""
        unit, units = denoiser.standardised()
        high, low = self.levels
        if key is not None:
            key = jax.random.fold_in(key, bits_hash(latent))
        shape, dtype = latent.shape, latent.dtype
        start = last_level(
            unit, high, shape, cond, known=units.known, rank=_RANK, dtype=dtype
        )
        x = start.decode(latent)
        end, change, steps, failed = self._solve(unit, x, cond, key, 1.0, (high, low))
        values = start.log_prob(x) - change - units.log_volume(x)
        return Decoded(
            jnp.where(failed, jnp.nan, units.to_data(end)),
            jnp.where(failed, jnp.nan, jnp.mean(values)),
            standard_error(values, self.trace),
            num_evaluations(self.solver, steps),
            failed,
        )

    def __call__(self, denoiser, x, cond, key):
        unit, units = denoiser.standardised()
        high, low = self.levels
        if key is not None:
            key = jax.random.fold_in(key, bits_hash(x))
        volume, x = units.log_volume(x), units.to_unit(x)
        start = last_level(
            unit, high, x.shape, cond, known=units.known, rank=_RANK, dtype=x.dtype
        )

        def log_prior(end):
            if self.prior is None:
                return start.log_prob(end)
            return self.prior(units.to_data(end)) + volume

        way = low, high
        ends, change, steps, failed = self._solve(unit, x, cond, key, 1.0, way)
        values = log_prior(ends) + change
        value = jnp.where(failed, jnp.nan, jnp.mean(values) - volume)
        count = num_evaluations(self.solver, steps)
        solver_error = jnp.full_like(value, jnp.nan)
        if self.estimate_error:
            rough, rough_change, more, _ = self._solve(unit, x, cond, key, 10.0, way)
            rough_value = jnp.mean(log_prior(rough) + rough_change) - volume
            solver_error = jnp.abs(rough_value - value)
            count = count + num_evaluations(self.solver, more)
        x_0 = at_level(unit, ends, high, cond)
        score = start.score(ends) if self.prior is None else jax.grad(log_prior)(ends)
        mismatch = start.mismatch((x_0 - ends) / high**2 - score)
        return LogProb(
            value,
            standard_error(values, self.trace),
            solver_error,
            mismatch,
            count,
            start.encode(ends),
            failed,
        )

    def _solve(self, denoiser, x, cond, key, scale, way):
        """Return the end of the flow, changes of log-density, steps, and a failure."""
        first, final = way
        shape, dim = x.shape, x.size
        begin, last = bent(-math.log(first)), bent(-math.log(final))

        @in_bent
        def right_hand_side(u, state):
            y, _ = state

            def field(flat):
                return flow_field(denoiser, flat.reshape(shape), u, cond).ravel()

            value, product = jax.linearize(field, y.ravel())
            return value.reshape(shape), self.trace(product, dim, x.dtype, key=key)

        zeros = jnp.zeros((self.trace.num_replicates,), x.dtype)
        t0, y0 = jnp.asarray(begin, x.dtype), (x / math.hypot(1.0, first), zeros)
        solution = dfx.diffeqsolve(
            dfx.ODETerm(lambda w, state, args: right_hand_side(w, state)),
            self.solver,
            t0=t0,
            t1=jnp.asarray(last, x.dtype),
            dt0=math.copysign(LARGEST_STEP, last - begin),
            y0=y0,
            stepsize_controller=dfx.PIDController(
                # Steps of a method of order five grow like the fifth root of these.
                rtol=scale * self.rtol,
                atol=scale * self.atol,
                dtmax=LARGEST_STEP * scale**0.2,
            ),
            solver_state=first_stage(self.solver, right_hand_side, t0, y0),
            max_steps=self.max_steps,
            throw=False,
        )
        assert solution.ys is not None  # SaveAt(t1=True) is the default
        y, change = solution.ys[0][0], solution.ys[1][0]
        # Densities of y and of x differ by the volume of the scaling.
        growth = math.log(math.hypot(1.0, final)) - math.log(math.hypot(1.0, first))
        failed = solution.result != dfx.RESULTS.successful
        end = y * math.hypot(1.0, final)
        return end, change + dim * growth, solution.stats["num_steps"], failed


def bits_hash(x):
    """Return a number from the bits of an example, for `fold_in`.

    For a given x, a key folded with it is as random as the key was, so estimates stay
    unbiased. Two examples with one key have independent probes.
    """
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x), jnp.uint32).ravel()
    # Odd multipliers, so that each bit counts and the order of the numbers does.
    place = 2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1
    mixed = (bits ^ (bits >> 15)) * (place * jnp.uint32(2654435761))
    return jnp.sum(mixed ^ (mixed >> 13), dtype=jnp.uint32)


def standard_error(values, trace):
    if isinstance(trace, ExactTrace):
        return jnp.zeros_like(values[0])
    if trace.num_replicates == 1:
        return jnp.full_like(values[0], jnp.nan)
    return jnp.std(values, ddof=1) / math.sqrt(trace.num_replicates)
