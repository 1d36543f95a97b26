"""Many updates of a method on data that lie in memory, in one program."""

import equinox as eqx
import jax
from jaxtyping import PyTree

from ..._random.keys import step_key
from ..._training.batch import num_rows
from ..._types import PRNGKey, State
from .inference import AbstractInference


@eqx.filter_jit
def run_steps(
    method: AbstractInference,
    state: State,
    data: PyTree,
    *,
    key: PRNGKey,
    num: int,
    batch_size: int | None = None,
) -> State:
    """Return the state after `num` updates.

    The method is an argument of the program: one with other numbers in its prior or its
    likelihood is not compiled again.

    **Arguments:**

    - `method`, `state`: as for `method.update`.
    - `data`: `(x, y)`.
    - `key`: step k has the key `fold_in(key, k)`.
    - `num`: updates.
    - `batch_size`: rows of a minibatch, drawn with replacement; all by default.
    """
    arrays, static = eqx.partition(state, eqx.is_array)

    def body(step, arrays):
        rows_key, move_key = jax.random.split(step_key(key, step))
        batch = data
        if batch_size is not None:
            rows = jax.random.randint(rows_key, (batch_size,), 0, num_rows(data))
            batch = jax.tree.map(lambda a: a[rows], data)
        state, _ = method.update(eqx.combine(arrays, static), batch, key=move_key)
        return eqx.filter(state, eqx.is_array)

    return eqx.combine(jax.lax.fori_loop(0, num, body, arrays), static)
