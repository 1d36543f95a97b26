"""Models with weights from the prior."""

import equinox as eqx
import jax
import jax.numpy as jnp

from ... import tree as trees
from ..._checks import path_name
from ..._random.keys import leaf_keys
from ..._types import Model, PRNGKey, Where
from .._weights.random_leaves import mean_leaves
from .gaussian_prior import GaussianPrior
from .prior import Prior, lenient_promotion, prior_at


def sample_prior(
    model: Model, prior: Prior, *, key: PRNGKey, where: Where = True
) -> Model:
    """Return the model with weights drawn from the prior.

    ```python
    prior_model = sample_prior(model, FanInNormal(), key=key)
    ```

    **Arguments:**

    - `model`: has the structure and all leaves that are not drawn. Arrays replace its
        random leaves, such as those of `BayesianLinear`.
    - `prior`: one distribution, or one for each leaf.
    - `key`: of the draw.
    - `where`: the leaves to draw (see `jaxprob.tree`).
    """
    params, rest = trees.partition(mean_leaves(model), where)
    if isinstance(prior, GaussianPrior):
        return eqx.combine(_drawn_together(prior, params, key), rest)
    keys = leaf_keys(key, params)

    def draw(path, leaf, key):
        name = path_name(path)
        p = prior_at(prior, name, leaf)
        p = p.expand(leaf.shape[: leaf.ndim - p.event_dim])
        with lenient_promotion():
            return jnp.asarray(p.sample(key), leaf.dtype)

    return eqx.combine(jax.tree_util.tree_map_with_path(draw, params, keys), rest)


def _drawn_together(prior, params, key):
    prior.check_leaves(trees.paths(params))
    drawn = prior.draw(key=key)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(drawn[path_name(path)], leaf.dtype), params
    )
