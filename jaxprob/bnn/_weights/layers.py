"""Layers that draw their own weights in each call, for any Equinox code."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..._types import PRNGKey
from .random_leaves import Gaussian, is_random, map_random, mean_leaves, sample_leaves
from .randomise import randomise


class AbstractBayesianLayer(eqx.Module):
    """Base class of Equinox's affine layers with random leaves for arrays.

    A draw from a posterior has plain arrays in the places of the random leaves. Then
    the layer is the ordinary one and needs no key.
    """

    layer: eqx.AbstractVar[Any]

    @property
    def weight(self) -> Gaussian | Array:
        return self.layer.weight

    @property
    def bias(self) -> Gaussian | Array | None:
        return self.layer.bias

    def __call__(self, x: Array, *, key: PRNGKey | None = None) -> Array:
        """Return the output for one example.

        **Arguments:**

        - `x`: as for the Equinox layer.
        - `key`: of this draw; the same key draws the same weights.
        """
        if not any(map(is_random, (self.weight, self.bias))):
            return self.layer(x)
        if key is None:
            name = type(self).__name__
            raise ValueError(
                f"{name} draws its weights in each call and needs a key: "
                f"layer(x, key=key). Inside eqx.nn.Sequential pass the key to that. "
                "To compute with fixed weights call it on a draw, "
                "bnn.sample_leaves(model, key=key), or on bnn.mean_leaves(model)."
            )
        return self._draw(x, key)

    def _draw(self, x, key):
        return sample_leaves(self.layer, key=key)(x)


class BayesianLinear(AbstractBayesianLayer):
    r"""A linear layer with Gaussian weights, $y = W x + b$.

    Two estimators have the same distribution of the output for one example:

    - `"weight"` draws W and b. A batch under one key shares them.
    - `"local"` draws y itself, $y_i \sim \mathcal N(\sum_j \mu_{ij} x_j + \mu_i,\;
      \sum_j \sigma_{ij}^2 x_j^2 + \sigma_i^2)$. The gradient has less noise, and each
      example needs another key. It is valid only where the layer is used once for an
      example: a recurrent use would have other weights in each step.

    References: *Weight uncertainty in neural networks*, Blundell et al., 2015;
    *Variational dropout and the local reparameterization trick*, Kingma, Salimans and
    Welling, 2015, https://arxiv.org/abs/1506.02557.

    ```python
    layer = BayesianLinear(3, 8, key=key)
    y = jax.vmap(lambda x: layer(x, key=key))(batch)      # one draw of W for all rows
    loss = loss + bnn.kl(layer, bnn.IsotropicNormal(1.0))
    ```

    **Arguments:**

    - `in_features`, `out_features`, `use_bias`, `dtype`: as for `eqx.nn.Linear`.
    - `key`: for the initial means.
    - `scale`: initial standard deviations, as in `bayesianize`.
    - `estimator`: `"weight"` or `"local"`.
    """

    layer: eqx.nn.Linear
    estimator: Literal["weight", "local"] = eqx.field(static=True)

    def __init__(
        self,
        in_features: int | Literal["scalar"],
        out_features: int | Literal["scalar"],
        use_bias: bool = True,
        dtype: Any = None,
        *,
        key: PRNGKey,
        scale: float = 0.1,
        estimator: Literal["weight", "local"] = "weight",
    ):
        if estimator not in ("weight", "local"):
            raise ValueError(f"estimator={estimator!r}: give 'weight' or 'local'")
        layer = eqx.nn.Linear(in_features, out_features, use_bias, dtype, key=key)
        self.layer = randomise(layer, scale=scale)
        self.estimator = estimator

    @classmethod
    def of(
        cls,
        linear: eqx.nn.Linear,
        *,
        scale: float = 0.1,
        estimator: Literal["weight", "local"] = "weight",
    ) -> "BayesianLinear":
        """Return a Bayesian layer whose means are the weights of a linear one.

        `jaxprob.tree.swap(model, eqx.nn.Linear, BayesianLinear.of)` converts all.
        """
        like = cls(1, 1, key=jax.random.key(0), estimator=estimator)
        return _with_layer(like, linear, scale)

    def _draw(self, x, key):
        if self.estimator == "weight":
            return sample_leaves(self.layer, key=key)(x)
        mean = mean_leaves(self.layer)(x)
        variance = variance_leaves(self.layer)(x**2)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        # At x = 0 without a bias the variance is 0, where sqrt has no gradient.
        tiny = jnp.finfo(variance.dtype).tiny
        return mean + jnp.sqrt(jnp.maximum(variance, tiny)) * noise


class BayesianConv1d(AbstractBayesianLayer):
    """A convolution over one axis with Gaussian weights, drawn in each call.

    There is no local reparameterisation: outputs at two places share their weights,
    and independent draws of the outputs would lose that correlation.

    **Arguments:** as for `eqx.nn.Conv1d`, and `scale` as in `bayesianize`.
    """

    layer: eqx.nn.Conv1d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int],
        *,
        key: PRNGKey,
        scale: float = 0.1,
        **kwargs: Any,
    ):
        conv = eqx.nn.Conv1d(in_channels, out_channels, kernel_size, key=key, **kwargs)
        self.layer = randomise(conv, scale=scale)

    @classmethod
    def of(cls, conv: eqx.nn.Conv1d, *, scale: float = 0.1) -> "BayesianConv1d":
        """Return a Bayesian layer whose means are the weights of a convolution."""
        return _with_layer(cls(1, 1, 1, key=jax.random.key(0)), conv, scale)


class BayesianConv2d(AbstractBayesianLayer):
    """A convolution over two axes with Gaussian weights, drawn in each call.

    **Arguments:** as for `eqx.nn.Conv2d`, and `scale` as in `bayesianize`.
    """

    layer: eqx.nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        key: PRNGKey,
        scale: float = 0.1,
        **kwargs: Any,
    ):
        conv = eqx.nn.Conv2d(in_channels, out_channels, kernel_size, key=key, **kwargs)
        self.layer = randomise(conv, scale=scale)

    @classmethod
    def of(cls, conv: eqx.nn.Conv2d, *, scale: float = 0.1) -> "BayesianConv2d":
        """Return a Bayesian layer whose means are the weights of a convolution."""
        return _with_layer(cls(1, 1, 1, key=jax.random.key(0)), conv, scale)


def _with_layer(like, layer, scale):
    return eqx.tree_at(lambda b: b.layer, like, randomise(layer, scale=scale))


def variance_leaves(tree):
    """Return layers that map squared inputs to the variances of the outputs."""
    # An array that is not random has no variance.
    known = jax.tree.map(
        lambda node: jnp.zeros_like(node) if eqx.is_inexact_array(node) else node,
        tree,
        is_leaf=is_random,
    )
    return map_random(lambda leaves: [leaf.scale**2 for leaf in leaves], known)
