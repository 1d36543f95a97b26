"""The density of a diffusion model, by the probability flow."""

import math
from collections.abc import Callable

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._keys import check_key
from .._types import PRNGKey
from ._denoiser import AbstractDenoiser, check_denoiser
from ._grids import level_range
from ._kinds import as_example
from ._ode import LARGEST_STEP, begun, bent, flow_field, in_bent, num_evaluations
from ._trace import AbstractTrace, ExactTrace
from ._types import Cond, Numbers


class LogProb(eqx.Module):
    """A log-density in nats, and what stands between it and the truth.

    **Fields:**

    - `value`: the log-density.
    - `trace_error`: standard error from random probes; 0 for an exact trace, NaN for a
        single replicate, which cannot tell.
    - `solver_error`: distance to the same solve at ten times the tolerances, for most
        points larger than the solver's error; NaN if it was not asked for.
    - `prior_mismatch`: the divergence, in nats, of the prior of a sampler from the law
        of the last noise level, if the data have the standard deviation `sigma_data`.
    - `num_evaluations`: of the denoiser.
    - `latent`: the noise that the flow pairs with x, standard normal.
    - `failed`: whether the solver gave up; the value is NaN then.
    """

    value: Float[Array, "..."]
    trace_error: Float[Array, "..."]
    solver_error: Float[Array, "..."]
    prior_mismatch: float = eqx.field(static=True)
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
    sigma_data: float = 1.0,
    estimate_error: bool = False,
    max_steps: int = 4096,
) -> LogProb:
    r"""Log-density of one example under the model.

    Along the probability flow $dy/du = h(y, u)$ the density changes by the divergence,

    $$\log p(y_{begin}) = \log p(y_{end}) + \int \nabla \cdot h\,du .$$

    It is the density of the data with noise of level `level_min` in them: the data's
    own needs a level well below their finest structure.

    Reference: *Score-Based Generative Modeling through Stochastic Differential
    Equations*, Song et al., 2021, section 4.3; *Neural Ordinary Differential
    Equations*, Chen et al., 2018.

    ```python
    out = jax.vmap(lambda x: log_prob(denoiser, x))(xs)
    out = log_prob(denoiser, image, trace=Hutchinson(8), key=key)
    ```

    **Arguments:**

    - `denoiser`: the model.
    - `x`: one example; integers and half precision become float32.
    - `cond`: its condition.
    - `trace`: how to take the divergence; exactly by default. `Hutchinson` or `HutchPP`
        for images.
    - `key`: of the probes.
    - `solver`, `rtol`, `atol`, `max_steps`: diffrax's; `Tsit5` by default.
    - `level_min`, `level_max`: noise levels to begin and end at.
    - `prior`: log-density of $x_t/\alpha_t$ at the last noise level s; by default that
        of $N(0, s^2)$, which samplers begin with.
    - `sigma_data`: standard deviation of the data, for `prior_mismatch`.
    - `estimate_error`: solve again at ten times the tolerances for `solver_error`; it
        adds about two thirds to the cost.
    """
    check_denoiser(denoiser)
    x = as_example("x", x)
    trace = ExactTrace() if trace is None else trace
    if key is None and not isinstance(trace, ExactTrace):
        raise ValueError(f"{type(trace).__name__} draws probes: give log_prob a key")
    if key is not None:
        check_key(key)
    solver = dfx.Tsit5() if solver is None else solver
    high, low = level_range(denoiser.schedule, level_min, level_max)
    shape, dim = x.shape, x.size
    begin, last = bent(-math.log(low)), bent(-math.log(high))

    @in_bent
    def right_hand_side(u, state):
        y, _ = state

        def field(flat):
            return flow_field(denoiser, flat.reshape(shape), -u, cond).ravel()

        value, product = jax.linearize(field, y.ravel())
        return value.reshape(shape), trace(product, dim, x.dtype, key)

    def solve(scale):
        zeros = jnp.zeros((trace.num_replicates,), x.dtype)
        t0, y0 = jnp.asarray(begin, x.dtype), (x / math.hypot(1.0, low), zeros)
        solution = dfx.diffeqsolve(
            dfx.ODETerm(lambda w, state, args: right_hand_side(w, state)),
            solver,
            t0=t0,
            t1=jnp.asarray(last, x.dtype),
            dt0=-LARGEST_STEP,
            y0=y0,
            stepsize_controller=dfx.PIDController(
                # Steps of a method of order five grow like the fifth root of these.
                rtol=scale * rtol,
                atol=scale * atol,
                dtmax=LARGEST_STEP * scale**0.2,
            ),
            solver_state=begun(solver, right_hand_side, t0, y0),
            max_steps=max_steps,
            throw=False,
        )
        assert solution.ys is not None  # SaveAt(t1=True) is the default
        y, change = solution.ys[0][0], solution.ys[1][0]
        end = y * math.hypot(1.0, high)
        # Densities of y and of x differ by the volume the scaling takes.
        volume = dim * (
            math.log(math.hypot(1.0, high)) - math.log(math.hypot(1.0, low))
        )
        base = _normal(end, high) if prior is None else prior(end)
        steps = solution.stats["num_steps"]
        failed = solution.result != dfx.RESULTS.successful
        return base + volume + change, end / high, steps, failed

    values, latent, steps, failed = solve(1.0)
    value = jnp.where(failed, jnp.nan, jnp.mean(values))
    count = num_evaluations(solver, steps)
    solver_error = jnp.full_like(value, jnp.nan)
    if estimate_error:
        rough, _, more, _ = solve(10.0)
        solver_error = jnp.abs(jnp.mean(rough) - value)
        count = count + num_evaluations(solver, more)
    return LogProb(
        value,
        _standard_error(values, trace),
        solver_error,
        prior_mismatch(dim, high, sigma_data),
        count,
        latent,
        failed,
    )


def prior_mismatch(dim: int, level: float, sigma_data: float = 1.0) -> float:
    r"""$KL(N(0, \sigma_d^2 + s^2) \,\|\, N(0, s^2))$ in nats: $d (v - 1 - \log v)/2$.

    With $v = 1 + \sigma_d^2/s^2$: what a sampler loses by beginning with pure noise.

    **Arguments:**

    - `dim`: d, numbers in an example.
    - `level`: s, the last noise level.
    - `sigma_data`: standard deviation of the data.
    """
    ratio = (sigma_data / level) ** 2
    return dim * (ratio - math.log1p(ratio)) / 2.0


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


def _normal(x, level):
    square = jnp.sum((x / level) ** 2)
    return -0.5 * square - x.size * (math.log(level) + 0.5 * math.log(2.0 * np.pi))


def _standard_error(values, trace):
    if isinstance(trace, ExactTrace):
        return jnp.zeros_like(values[0])
    if trace.num_replicates == 1:
        return jnp.full_like(values[0], jnp.nan)
    return jnp.std(values, ddof=1) / math.sqrt(trace.num_replicates)
