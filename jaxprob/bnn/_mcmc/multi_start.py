"""A warm start of chains: several optimisations, of which the best are continued."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from ..._jaxpr.host_errors import checks_give_nan
from ..._types import PRNGKey

LEAST_TOLERANCE = 10.0


class MultiStart(eqx.Module):
    r"""A start of chains at the best of several modes of the log density.

    From each of `num_starts` draws from the prior, Adam climbs the log density, in
    units of the spread of the draws. Chain i starts at the i-th best end. Ends that lie
    more than $\max(10, d)$ nats below the best are left out, since draws of a posterior
    with $d$ random numbers lie about $d/2$ below its mode; if fewer ends than chains
    remain, several chains start at the same one.

    Use it for parametric models such as an ODE, whose posterior has local modes in
    which a chain from the prior would stay. `initial="map"` has these defaults. Chains
    that start at one mode cannot show that there is another: compare a second run with
    another key.

    ```python
    method = NUTS(log_joint, initial=MultiStart(num_starts=100))
    ```

    **Arguments:**

    - `num_starts`: draws from the prior; 8 for each chain by default.
    - `num_steps`: steps of Adam, all starts side by side.
    - `learning_rate`: the first, in prior standard deviations; it falls to zero.
    """

    num_starts: int | None = None
    num_steps: int = 300
    learning_rate: float = 0.1

    def __check_init__(self):
        if self.num_starts is not None and self.num_starts < 1:
            raise ValueError(f"num_starts={self.num_starts}: at least 1")
        if self.num_steps < 1:
            raise ValueError(f"num_steps={self.num_steps}: at least 1")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate={self.learning_rate}: it is positive")


def at_modes(
    search: MultiStart, method: PyTree, model: PyTree, data: PyTree, *, key: PRNGKey
) -> Float[Array, "chains dim"]:
    """Return the positions at which the chains of a method start.

    **Arguments:**

    - `search`: its settings.
    - `method`: an `AbstractChains`.
    - `model`, `data`: as in `run_chains`.
    - `key`: of the draws from the prior.

    **Raises:** `ValueError` if no start has a finite log density.
    """
    num = search.num_starts or 8 * method.num_chains
    many = dataclasses.replace(method, initial="prior", num_chains=num)

    @eqx.filter_jit
    def run(model, key):
        state = many.init(model, key=key)

        def density(vector):
            return many.log_density(state.model, vector, data)

        return _climb(search, checks_give_nan(density), state.position)

    ends, values = jax.tree.map(np.asarray, run(model, key))
    order = np.argsort(-values)
    best = values[order[0]]
    if not np.isfinite(best):
        raise ValueError(
            f"none of {num} draws from the prior has a finite log density: narrow the "
            "prior, look at the model there, or start at initial='model'"
        )
    tolerance = max(LEAST_TOLERANCE, ends.shape[1])
    good = order[values[order] >= best - tolerance]
    return jnp.asarray(ends[good[np.arange(method.num_chains) % len(good)]])


def _climb(search, density, starts):
    """Ends of Adam's paths, and the log densities there: -inf where there is none."""
    slopes = jax.vmap(jax.value_and_grad(density))
    spread = jnp.std(starts, axis=0, keepdims=True)
    # A point prior, or one start alone, has no spread.
    unit = jnp.where(spread > 0, spread, jnp.ones_like(spread))
    rates = optax.cosine_decay_schedule(search.learning_rate, search.num_steps)
    optimizer = optax.scale_by_adam(b1=0.9, b2=0.99)

    def evaluate(position):
        values, grads = slopes(position)
        fine = jnp.isfinite(values) & jnp.all(jnp.isfinite(grads), axis=1)
        values = jnp.where(fine, values, -jnp.inf)
        return values, jnp.where(fine[:, None], grads, 0.0)

    def best_of(best, position, values):
        better = values > best[1]
        where = jnp.where(better[:, None], position, best[0])
        return where, jnp.where(better, values, best[1])

    def step(index, carry):
        position, moments, best = carry
        values, grads = evaluate(position)
        best = best_of(best, position, values)
        with jax.numpy_dtype_promotion("standard"):
            moves, moments = optimizer.update(grads * unit, moments)
            rate = jnp.asarray(rates(index), position.dtype)
        return position + rate * jnp.asarray(moves) * unit, moments, best

    nowhere = starts, jnp.full(len(starts), -jnp.inf, starts.dtype)
    carry = starts, optimizer.init(starts), nowhere
    position, _, best = jax.lax.fori_loop(0, search.num_steps, step, carry)
    return best_of(best, position, evaluate(position)[0])
