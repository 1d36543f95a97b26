"""Monte Carlo dropout: dropout layers whose masks are posterior draws."""

from collections.abc import Iterable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._random.keys import check_key, leaf_keys
from ..._training.wrapper import Withheld
from ..._types import Model, PRNGKey, State
from .._inference.capabilities import AbstractConditional, AbstractTrainedModels
from .._inference.inference import AbstractInference
from .._inference.wrapper import AbstractPostHoc
from .._joint.likelihood import Likelihood
from .._posterior.posterior import AbstractPosterior


class FixedDropout(eqx.Module):
    """Dropout with a fixed mask, which is a function of the key of the layer.

    **Arguments:**

    - `p`: the fraction that is dropped.
    - `key`: of the mask.
    """

    p: float | Array
    key: PRNGKey

    def __call__(
        self,
        x: Array,
        *,
        key: PRNGKey | None = None,
        inference: bool | None = None,
        deterministic: bool | None = None,
    ) -> Array:
        """Return `x` with the mask of this draw; the arguments are those of Equinox."""
        keep = 1.0 - self.p
        mask = jax.random.bernoulli(self.key, keep, x.shape)
        return jnp.where(mask, x / keep, jnp.zeros((), x.dtype))


class DropoutPosterior(AbstractPosterior):
    """Distribution of the masks of dropout layers, in models of another posterior.

    One draw has one mask in each layer, the same for all inputs: it is one network, a
    function. (A layer that is used several times uses its mask again.)

    **Arguments:**

    - `posterior`: over models with `eqx.nn.Dropout` layers, such as `PointPosterior`
        for the masks of one model.
    """

    posterior: AbstractPosterior

    def sample(self, *, key: PRNGKey) -> Model:
        check_key(key)
        return _masked(self.posterior.sample(key=_model_key(key)), key)

    def linearisation_point(self, *, key: PRNGKey) -> tuple[Model, Model]:
        """Return a draw and where to linearise for it, under the same masks."""
        draw, centre = self.posterior.linearisation_point(key=_model_key(key))
        return _masked(draw, key), _masked(centre, key)

    @property
    def linearized(self) -> bool:
        return self.posterior.linearized

    @property
    def output_likelihood(self) -> Likelihood | None:
        return self.posterior.output_likelihood

    def factorised(self) -> "DropoutPosterior":
        return DropoutPosterior(self.posterior.factorised())

    def mean(self) -> Model:
        """Return the mean with dropout off: every weight times its mean mask."""
        return eqx.nn.inference_mode(self.posterior.mean())


class MCDropout(AbstractPostHoc):
    r"""Training and prediction with dropout: each mask is one sampled network.

    The approximate posterior of a weight is two spikes, at zero and at
    $w / (1 - p)$. It costs nothing, and its uncertainty depends on p alone: for a
    linear model the predictive variance is $\frac{p}{1 - p} \sum_j w_j^2 x_j^2$ for any
    number of data. Prefer `DeepEnsemble` or `Laplace` where they are affordable.

    Reference: *Dropout as a Bayesian approximation*, Gal and Ghahramani, 2016,
    https://arxiv.org/abs/1506.02142.

    ```python
    method = MCDropout(MAP(log_joint, optax.adam(1e-3)))
    ```

    **Arguments:**

    - `method`: trains the model, such as `MAP`. The masks are those of each model of
        its posterior, e.g. of all members of a `DeepEnsemble`.
    """

    forwards: ClassVar = {
        AbstractTrainedModels: Withheld("MCDropout ends in masks of its models"),
        AbstractConditional: Withheld("masks are not leaves that a block could hold"),
    }
    method: AbstractInference

    def init(self, model: Model, *, key: PRNGKey) -> State:
        layers = jax.tree.leaves(model, is_leaf=_is_dropout)
        if not any(map(_is_dropout, layers)):
            raise ValueError(
                "MCDropout needs a model with dropout layers, and this one has no "
                "eqx.nn.Dropout: without one every sampled network would be the same"
            )
        return self.method.init(model, key=key)

    def posterior(
        self,
        state: State,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> DropoutPosterior:
        return DropoutPosterior(self.method.posterior(state, batches, key=key))


def _model_key(key):
    """The key of the model. Those of its masks are `fold_in(key, position)`."""
    return jax.random.fold_in(key, 2**31 - 1)


def _masked(model, key):
    keys = leaf_keys(key, model, is_leaf=_is_dropout)
    return jax.tree.map(
        lambda node, key: FixedDropout(node.p, key) if _is_dropout(node) else node,
        model,
        keys,
        is_leaf=_is_dropout,
    )


def _is_dropout(node):
    return isinstance(node, eqx.nn.Dropout)
