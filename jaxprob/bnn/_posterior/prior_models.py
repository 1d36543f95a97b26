"""The prior as a distribution over models."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ... import tree
from ..._checks import path_name
from ..._types import Model, PRNGKey, Where
from .._joint.prior import Prior, log_prior, prior_at
from .._joint.sample_prior import sample_prior
from .._weights.random_leaves import mean_leaves
from .posterior import AbstractPosterior


class PriorModels(AbstractPosterior):
    r"""Distribution of models with weights from the prior, for the prior predictive.

    $$p(y \mid x) = \int p(y \mid f_w(x))\, p(w)\, dw$$

    Inspect it before training, and change a prior with implausible draws.

    ```python
    prior = PriorModels(model, FanInNormal(2.0))
    predictive = predict(prior, likelihood, x, key=key, num_samples=1000)
    predictive.std, predictive.sample(key=key)
    ```

    **Arguments:**

    - `model`: has the structure and all leaves that are not drawn.
    - `prior`: one distribution, or one for each leaf.
    - `where`: the leaves to draw (see `jaxprob.tree`).
    """

    model: Model
    prior: Prior
    where: Where = True

    def sample(self, *, key: PRNGKey) -> Model:
        return sample_prior(self.model, self.prior, key=key, where=self.where)

    def mean(self) -> Model:
        params, rest = tree.partition(mean_leaves(self.model), self.where)

        def one(path, leaf):
            name = path_name(path)
            mean = prior_at(self.prior, name, leaf).mean
            return jnp.broadcast_to(jnp.asarray(mean, leaf.dtype), leaf.shape)

        return eqx.combine(jax.tree_util.tree_map_with_path(one, params), rest)

    def log_prob(self, model: Model) -> Float[Array, ""]:
        return log_prior(self.prior, tree.partition(model, self.where)[0])
