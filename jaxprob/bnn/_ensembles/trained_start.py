"""Detection of trained models, by the data."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..._types import Model
from .._joint.log_joint import LogJoint
from .._joint.row import Row
from .._weights.random_leaves import mean_leaves
from .._weights.scale import is_traced
from .shuffled import shuffled

_SHUFFLES, _ROWS = 512, 64
_TIES = 2  # a shuffle of few weights may leave them in order
_LARGE = 10**5  # weights: larger models are judged by fewer shuffles and rows
_LARGE_SHUFFLES, _LARGE_ROWS = 64, 16


def looks_trained(
    joint: LogJoint, model: Model, trained: PyTree[bool], data: Row
) -> bool:
    """Return whether a model explains data better than shuffles of its weights do.

    An initialised model is one of its shuffles: it is among the three best of 512 in .6
    % of cases (a large model is the best of 64 in 1.5 %), and it predicts the targets
    of other rows about as well as those of the same rows. Training moves weights out of
    the bounds of Equinox's initialisation, so nothing is computed where all weights lie
    within them.

    **Arguments:**

    - `joint`: its likelihood compares the models.
    - `model`: of which is asked.
    - `trained`: the leaves that a method moves.
    - `data`: rows, of which the first rows are used.
    """
    leaves = jax.tree.leaves(eqx.filter(mean_leaves(model), trained))
    if any(map(is_traced, leaves)) or _as_initialised(leaves):
        return False
    make = shuffled(model, trained)
    large = sum(leaf.size for leaf in leaves) > _LARGE
    num, rows = (_LARGE_SHUFFLES, _LARGE_ROWS) if large else (_SHUFFLES, _ROWS)
    x, y, _ = jax.tree.map(lambda a: jnp.asarray(a[:rows]), data)

    @jax.jit
    def scores(keys):
        def score(model, y):
            drawn = eqx.nn.inference_mode(mean_leaves(model))
            return joint.log_likelihood(drawn, (x, y), key=jax.random.key(0))

        others = jax.lax.map(
            lambda key: score(make(key), y), keys, batch_size=1 if large else 16
        )
        turned = jax.tree.map(lambda a: jnp.roll(a, 1, 0), y)
        return score(model, y), score(model, turned), others

    keys = jax.random.split(jax.random.key(0), num)
    own, turned, others = map(np.asarray, scores(keys))
    if not np.isfinite(own):
        return False
    # 5 nats over the rows that were used: odds of 150 to 1.
    unit = joint.num_data / len(jax.tree.leaves(y)[0])
    as_good = np.sum(others >= own)
    few = as_good <= (0 if large else _TIES)
    return bool(few and own - turned > 5.0 * unit)


def _as_initialised(leaves):
    """Test that each matrix or kernel lies within one over the root of its fan-in."""
    weights = [leaf for leaf in leaves if leaf.ndim > 1]
    bounds = [1.0 / math.sqrt(math.prod(leaf.shape[1:])) for leaf in weights]
    return bool(weights) and all(
        float(jnp.max(jnp.abs(leaf))) <= bound * 1.001
        for leaf, bound in zip(weights, bounds, strict=True)
    )
