"""The density of a diffusion model at one example."""

from collections.abc import Callable

import diffrax as dfx
import equinox as eqx
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .._denoiser.denoiser import AbstractDenoiser, check_denoiser
from .._sampler.grid import level_range
from .._schedule.argument_checks import as_example
from .._schedule.constants import free_schedules, hold_schedules
from .._types import Cond, Numbers
from ..nn import check_given
from .density_flow import Decoded, DensityFlow, LogProb
from .trace import AbstractTrace, checked_trace


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
    estimate_error: bool = False,
    max_steps: int = 4096,
) -> LogProb:
    r"""Return the log-density of one example under the model.

    Along the probability flow $dy/du = h(y, u)$ the density changes by the divergence,

    $$\log p(y_{begin}) = \log p(y_{end}) + \int \nabla \cdot h\,du .$$

    It is the density of the data with noise of level `level_min`. To be that of the
    data, the level must be well below their finest structure.

    At the last noise level s the distribution is taken to be Gaussian, $N(m, s^2 I +
    C)$, with the mean and the leading covariance of the denoiser's answers for this
    condition. `prior_mismatch` estimates the error of that.

    Reference: *Score-Based Generative Modeling through Stochastic Differential
    Equations*, Song et al., 2021, section 4.3; *Neural Ordinary Differential
    Equations*, Chen et al., 2018.

    ```python
    out = log_prob(denoiser, x)
    out = log_prob(denoiser, image, trace=Hutchinson(8), key=key)
    out = map_examples(log_prob, denoiser, images, trace=Hutchinson(8), key=key)
    ```

    **Arguments:**

    - `denoiser`: the model.
    - `x`: one example; integers and half precision become float32.
    - `cond`: its condition.
    - `trace`: estimator of the divergence; exact by default. Use `Hutchinson` or
        `HutchPP` for images.
    - `key`: of the probes. They depend on x too, so that examples with one key, as
        under a `vmap` over x alone, have independent errors.
    - `solver`, `rtol`, `atol`, `max_steps`: diffrax's; `Tsit5` by default.
    - `level_min`, `level_max`: noise levels to begin and end at, in units of the data's
        standard deviation.
    - `prior`: log-density of $x_t/\alpha_t$ at the last noise level, in the data's
        units; by default the Gaussian above.
    - `estimate_error`: solve again at ten times the tolerances for `solver_error`; it
        adds about two thirds to the cost.

    Derivatives with respect to x are exact. Those with respect to the denoiser leave
    out the prior's dependence on the covariance of the data, of order $C/s^2$.
    """
    check_denoiser(denoiser)
    check_given(denoiser, cond)
    x, trace = as_example("x", x), checked_trace("log_prob", trace, key)
    flow = DensityFlow(
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


def decode_with_log_prob(
    denoiser: AbstractDenoiser,
    latent: Numbers,
    *,
    cond: Cond = None,
    trace: AbstractTrace | None = None,
    key: PRNGKey | None = None,
    solver: dfx.AbstractSolver | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    level_min: float = 0.002,
    level_max: float | None = None,
    max_steps: int = 4096,
) -> Decoded:
    r"""Return a sample and its log-density, by one solve of the probability flow.

    The sample is the flow's end at `level_min`, where `log_prob` begins, so that its
    density is the one of `log_prob`. `sample` and `decode` return the denoiser's answer
    there instead, which is without the noise of that level.

    ```python
    latents = jax.random.normal(key, (16, 2))
    out = map_examples(decode_with_log_prob, denoiser, latents)
    samples, nats = out.x, out.value
    ```

    **Arguments:**

    - `latent`: standard normal noise, of the shape of an example.
    - the others: as in `log_prob`. Random probes depend on the latent.
    """
    check_denoiser(denoiser)
    check_given(denoiser, cond)
    latent = as_example("latent", latent)
    trace = checked_trace("decode_with_log_prob", trace, key)
    levels = level_range(denoiser.schedule, level_min, level_max)
    solver = dfx.Tsit5() if solver is None else solver
    flow = DensityFlow(trace, solver, rtol, atol, levels, None, False, max_steps)
    return _decoded(flow, hold_schedules(denoiser), latent, cond, key)


@eqx.filter_jit
def _decoded(flow, held, latent, cond, key):
    return flow.decode(free_schedules(held), latent, cond, key)
