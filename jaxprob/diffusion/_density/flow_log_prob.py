"""The density of the flow of a velocity field at one example."""

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp

from ..._types import PRNGKey
from ...tree._inference_mode import inference_mode
from .._denoiser.units import along_leading
from .._sampler.flow_sampler import solve_in_time
from .._schedule.argument_checks import as_example, check_kind
from .._types import Cond, Numbers
from .._velocity.source import AbstractSource, NormalSource
from .._velocity.velocity_field import AbstractVelocityField, check_field
from ..nn import check_given
from .density_flow import LogProb, bits_hash, standard_error
from .trace import AbstractTrace, checked_trace


def flow_log_prob(
    field: AbstractVelocityField,
    x: Numbers,
    source: AbstractSource | None = None,
    *,
    cond: Cond = None,
    trace: AbstractTrace | None = None,
    key: PRNGKey | None = None,
    solver: dfx.AbstractSolver | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    estimate_error: bool = False,
    max_steps: int = 4096,
) -> LogProb:
    r"""Return the log-density of one example under the flow from a source.

    The flow $dx/dt = v(x, t)$ through the example is solved back to the source,

    $$\log p(x_1) = \log p_{source}(x_0) - \int_0^1 \nabla \cdot v(x_t, t)\,dt .$$

    Unlike the density of a denoiser it has no last noise level: with the exact field it
    is that of the data, up to the solver's error.

    Reference: *FFJORD*, Grathwohl et al., 2019; *Flow Matching for Generative
    Modeling*, Lipman et al., 2023, appendix C.

    ```python
    out = flow_log_prob(field, x)
    out = map_examples(flow_log_prob, field, rows, trace=Hutchinson(8), key=key)
    ```

    **Arguments:**

    - `field`: the model.
    - `x`: one example; integers and half precision become float32.
    - `source`: that of the loss, with a density; `NormalSource()` by default.
    - the others: as in `log_prob`.

    **Returns:** a `LogProb`, whose `latent` is the example of the source that the flow
    pairs with x. `prior_mismatch` is 0.

    **Raises:** `TypeError` for a source without a density, `ValueError` for a random
    trace without a key.
    """
    check_field(field)
    check_given(field, cond)
    source = NormalSource() if source is None else source
    check_kind("source", source, AbstractSource, "give that of the loss")
    trace = checked_trace("flow_log_prob", trace, key)
    solver = dfx.Tsit5() if solver is None else solver
    flow = FieldDensity(source, trace, solver, rtol, atol, estimate_error, max_steps)
    return _compiled(flow, field, as_example("x", x), cond, key)


@eqx.filter_jit
def _compiled(flow, field, x, cond, key):
    return flow(field, x, cond, key)


class FieldDensity(eqx.Module):
    """Settings of a density, those of `flow_log_prob`."""

    source: AbstractSource
    trace: AbstractTrace
    solver: dfx.AbstractSolver
    rtol: float = eqx.field(static=True)
    atol: float = eqx.field(static=True)
    estimate_error: bool = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def __call__(self, field, x, cond, key):
        if key is not None:
            key = jax.random.fold_in(key, bits_hash(x))
        values, end, count, failed = self._solve(field, x, cond, key, 1.0)
        value = jnp.where(failed, jnp.nan, jnp.mean(values))
        solver_error = jnp.full_like(value, jnp.nan)
        if self.estimate_error:
            rough, _, more, _ = self._solve(field, x, cond, key, 10.0)
            solver_error, count = jnp.abs(jnp.mean(rough) - value), count + more
        error = standard_error(values, self.trace)
        zero = jnp.zeros_like(value)
        return LogProb(value, error, solver_error, zero, count, end, failed)

    def _solve(self, field, x, cond, key, scale):
        """Return replicates of the log-density, and the end of the flow."""
        field, unit = inference_mode(field), along_leading(field.scale(), x)

        def right_hand_side(t, state):
            # In units of the scale, which leave the divergence as it is.
            def velocity(flat):
                y = unit * flat.reshape(x.shape)
                return (field.velocity(y, t, cond) / unit).ravel()

            value, product = jax.linearize(velocity, state[0].ravel())
            trace = self.trace(product, x.size, x.dtype, key=key)
            return value.reshape(x.shape), trace

        zeros = jnp.zeros((self.trace.num_replicates,), x.dtype)
        (ends, integrals), count, failed = solve_in_time(
            right_hand_side,
            (x / unit, zeros),
            (1.0, 0.0),
            self.solver,
            adaptive=True,
            rtol=scale * self.rtol,
            atol=scale * self.atol,
            max_steps=self.max_steps,
        )
        end = unit * ends[-1]
        # The integral from 1 to 0 is minus that from 0 to 1.
        return self.source.log_prob(end) + integrals[-1], end, count, failed
