"""Low-rank adapters: few random leaves beside the frozen weights of a large model."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ... import tree
from ..._random.keys import check_key
from ..._types import Model, PRNGKey, Where


class LowRankUpdate(eqx.Module):
    r"""The change $\frac{\alpha}{r} U D$ of a weight matrix, of rank r.

    Its two arrays are the random leaves of an adapted model: `random=LowRankUpdate`
    chooses them in every method.

    **Arguments:**

    - `down`: D, drawn as a linear layer's weights are.
    - `up`: U, zero before training, so that the change is zero.
    - `scale`: $\alpha / r$.
    """

    down: Float[Array, "rank inputs"]
    up: Float[Array, "outputs rank"]
    scale: float = eqx.field(static=True)

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """Return the change of the layer's output for one input."""
        return self.scale * (self.up @ (self.down @ x))

    def matrix(self) -> Float[Array, "outputs inputs"]:
        """The change of the weight matrix."""
        return self.scale * (self.up @ self.down)


class LowRankAdapter(eqx.Module):
    r"""A linear layer with a low-rank change of its weights, $y = (W + \Delta) x + b$.

    **Arguments:**

    - `layer`: the layer as it was trained, W and b.
    - `update`: $\Delta$.
    """

    layer: eqx.nn.Linear
    update: LowRankUpdate

    def __call__(
        self, x: Float[Array, " inputs"], *, key: PRNGKey | None = None
    ) -> Float[Array, " outputs"]:
        """Return the output for one input; `key` is ignored, as by `eqx.nn.Linear`."""
        return self.layer(x) + self.update(x)

    @property
    def weight(self) -> Float[Array, "outputs inputs"]:
        r"""$W + \Delta$."""
        return self.layer.weight + self.update.matrix()

    @property
    def bias(self) -> Float[Array, " outputs"] | None:
        return self.layer.bias

    @property
    def in_features(self) -> int:
        return _size(self.layer.in_features)

    @property
    def out_features(self) -> int:
        return _size(self.layer.out_features)

    def merged(self) -> eqx.nn.Linear:
        """Return one linear layer with the weights of both."""
        return eqx.tree_at(lambda layer: layer.weight, self.layer, self.weight)


def lora(
    model: Model,
    where: Where = True,
    *,
    rank: int,
    alpha: float | None = None,
    key: PRNGKey,
) -> Model:
    r"""Give linear layers of a trained model a low-rank change of their weights.

    The outputs of the model are unchanged at first. A method with
    `random=bnn.LowRankUpdate, point=False` has a posterior over the changes alone, and
    everything else stays as it was trained.

    References: *LoRA: Low-rank adaptation of large language models*, Hu et al., 2022,
    https://arxiv.org/abs/2106.09685; for Laplace on them, *Bayesian low-rank adaptation
    for large language models*, Yang et al., 2024, https://arxiv.org/abs/2308.13111.

    ```python
    adapted = bnn.lora(model, "layers.*", rank=1, key=key)
    method = bnn.MAP(
        log_joint, optax.adam(1e-2), random=bnn.LowRankUpdate, point=False
    )
    method = bnn.Laplace(method, structure="kronecker")
    state, history = jaxprob.fit(method, adapted, (x, y), key=key, num_epochs=2)
    ```

    **Arguments:**

    - `model`: any Equinox model with `eqx.nn.Linear` layers, those inside of
        attention included.
    - `where`: which layers, by their weights (see `jaxprob.tree`); all by default.
    - `rank`: r.
    - `alpha`: the change is multiplied by $\alpha / r$; by default $\alpha = r$.
    - `key`: of the matrices D.

    **Raises:** `ValueError` where no linear layer is chosen, or for a rank that is no
    smaller than both sides of a weight matrix.
    """
    check_key(key)
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank={rank!r}: give a whole number of at least one")
    if alpha is not None and not 0.0 < alpha < math.inf:
        raise ValueError(f"alpha={alpha}: give a positive number")
    flags = tree.select(model, where)

    def is_chosen(layer, flag):
        return isinstance(layer, eqx.nn.Linear) and bool(flag.weight)

    nodes, structure = jax.tree.flatten(model, is_leaf=_is_layer)
    chosen = structure.flatten_up_to(flags)
    count = sum(map(is_chosen, nodes, chosen))
    if not count:
        raise ValueError(
            f"where={where!r} chooses the weight of no eqx.nn.Linear that has no "
            "adapter yet: name a linear layer, or leave `where` out for all of them"
        )
    keys = iter(jax.random.split(key, count))
    adapted = [
        _adapter(node, rank, alpha, next(keys)) if is_chosen(node, flag) else node
        for node, flag in zip(nodes, chosen, strict=True)
    ]
    return jax.tree.unflatten(structure, adapted)


def merge_lora(model: Model) -> Model:
    """Return the model with one linear layer for each adapter.

    It has the class and the sizes of the model before `lora`, and the outputs of the
    adapted model.
    """
    return jax.tree.map(
        lambda node: node.merged() if isinstance(node, LowRankAdapter) else node,
        model,
        is_leaf=lambda node: isinstance(node, LowRankAdapter),
    )


def _is_layer(node: Any) -> bool:
    # An adapter is no layer to adapt again: its own linear layer stays as it is.
    return isinstance(node, eqx.nn.Linear | LowRankAdapter)


def _adapter(layer, rank, alpha, key):
    weight = layer.weight
    if "scalar" in (layer.in_features, layer.out_features):
        raise ValueError(
            "a linear layer from or to a scalar has one row or column and no change of "
            "lower rank: leave it out of `where`"
        )
    outputs, inputs = weight.shape
    if rank >= max(outputs, inputs):
        raise ValueError(
            f"rank={rank} is no smaller than the sides of a weight of shape "
            f"{weight.shape}: make the layer itself random, or leave it out of `where`"
        )
    bound = inputs**-0.5
    down = jax.random.uniform(key, (rank, inputs), weight.dtype, -bound, bound)
    up = jnp.zeros((outputs, rank), weight.dtype)
    scale = 1.0 if alpha is None else alpha / rank
    return LowRankAdapter(layer, LowRankUpdate(down, up, scale))


def _size(features):
    return 1 if features == "scalar" else int(features)
