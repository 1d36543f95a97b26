"""Random leaves: distributions in a model's tree in the places of arrays."""

from collections.abc import Callable
from typing import Any, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from ..._checks import path_name
from ..._random.keys import example_keys
from ..._random.standard_normal import philox, standard_normal
from ..._types import Model, PRNGKey
from ...tree._single import single
from .joined import group_small, join, split
from .scale import inverse_softplus

# Below about -90 the softplus of a float32 is exactly zero, and log(0) is no entropy.
MIN_SCALE = 1e-12


class Gaussian(eqx.Module):
    r"""An array whose entries are independent Gaussians.

    $$w_i \sim \mathcal N(\mu_i, \sigma_i^2), \qquad \sigma_i = \log(1 + e^{\rho_i})$$

    It takes the place of a weight in any model. `sample_leaves` draws every such leaf
    of a tree and returns the model as it was built, with arrays in their places.

    Reference: *Weight uncertainty in neural networks*, Blundell, Cornebise, Kavukcuoglu
    and Wierstra, 2015, https://arxiv.org/abs/1505.05424.

    ```python
    leaf = Gaussian.of(jnp.zeros((3, 2)), scale=0.1)
    model = eqx.tree_at(lambda m: m.weight, model, leaf)
    ```

    **Arguments:**

    - `mean`: $\mu$.
    - `rho`: $\rho$, any real numbers; `Gaussian.of` takes the scale $\sigma$ instead.
    """

    mean: Float[Array, "*shape"]
    rho: Float[Array, "*shape"]

    def __init__(self, mean: Float[Array, "*shape"], rho: Float[Array, "*shape"]):
        for name, array in (("mean", mean), ("rho", rho)):
            if not jnp.issubdtype(array.dtype, jnp.floating):
                raise TypeError(
                    f"{name} is {array.dtype}, which has no gradient and would never "
                    "be trained: give a floating-point array. jnp.full(shape, -3) is "
                    "an integer array, jnp.full(shape, -3.0) is not"
                )
        if mean.shape != rho.shape:
            raise ValueError(
                f"mean has shape {mean.shape} and rho {rho.shape}: they have to agree"
            )
        self.mean = mean
        self.rho = rho

    @classmethod
    def of(
        cls,
        mean: Float[Array, "*shape"],
        scale: float | Float[Array, ""] | Float[Array, "*shape"],
    ) -> "Gaussian":
        """Return the Gaussian with this mean and standard deviation."""
        scale = jnp.broadcast_to(jnp.asarray(scale, mean.dtype), mean.shape)
        return cls(mean, inverse_softplus(scale))

    @classmethod
    def joined(cls, leaves: "list[Gaussian]") -> "Gaussian":
        """Return several of one dtype as one vector; a single one unchanged."""
        return cls(join([g.mean for g in leaves]), join([g.rho for g in leaves]))

    @property
    def scale(self) -> Float[Array, "*shape"]:
        """The standard deviation."""
        return jnp.maximum(jax.nn.softplus(self.rho), MIN_SCALE)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mean.shape

    @property
    def ndim(self) -> int:
        return self.mean.ndim

    @property
    def dtype(self):
        return self.mean.dtype

    def sample(self, *, key: PRNGKey) -> Float[Array, "*shape"]:
        """Return one draw, differentiable in `mean` and `rho`."""
        return self.mean + self.scale * standard_normal(key, self.shape, self.dtype)

    def log_prob(self, value: Float[Array, "*shape"]) -> Float[Array, ""]:
        """Return the log-density of an array, summed over its entries, in nats."""
        return jnp.sum(self._normal().log_prob(single(value)))

    def entropy(self) -> Float[Array, ""]:
        """Return the entropy in nats, summed over the entries."""
        return jnp.sum(self._normal().entropy())

    def kl(self, prior: dist.Distribution) -> Float[Array, ""]:
        r"""Return $\mathrm{KL}(q \| p)$ in nats, **summed** over the entries.

        A mean instead of the sum would give each leaf another temperature.

        **Arguments:**

        - `prior`: a Normal, or another distribution with a closed-form divergence.

        **Raises:** `NotImplementedError` when there is no closed form.
        """
        posterior = self._normal()
        if prior.event_dim:
            posterior = posterior.to_event(prior.event_dim)
        return jnp.sum(dist.kl_divergence(posterior, prior))

    def single(self) -> "Gaussian":
        """Return it in single precision at least: half loses sums over many weights."""
        return Gaussian(single(self.mean), single(self.rho))

    def _normal(self):
        leaf = self.single()
        return dist.Normal(leaf.mean, leaf.scale)


def is_random(node: Any) -> TypeGuard[Gaussian]:
    """Return whether a node of a tree is a random leaf."""
    return isinstance(node, Gaussian)


def sample_leaves(tree: PyTree, *, key: PRNGKey) -> Model:
    """Return the model with every random leaf drawn, on which the user's code runs.

    The noise of all leaves is independent. Small leaves are drawn by one call.

    **Arguments:**

    - `tree`: a model with random leaves; all others stay as they are.
    - `key`: of this draw.
    """

    def draw(leaves):
        keys = example_keys(philox(key), len(leaves))
        return [leaf.sample(key=k) for leaf, k in zip(leaves, keys, strict=True)]

    return map_random(draw, tree)


def map_random(
    function: Callable[[list[Gaussian]], list[Array]], tree: PyTree
) -> PyTree:
    """Return the tree with an array of the same shape for each random leaf.

    **Arguments:**

    - `function`: maps the random leaves, the small ones joined to one vector, to an
        array for each.
    - `tree`: a model with random leaves; all others stay as they are.
    """
    nodes, structure = jax.tree.flatten(tree, is_leaf=is_random)
    places = [i for i, node in enumerate(nodes) if is_random(node)]
    groups = [[places[i] for i in g] for g in group_small(nodes[i] for i in places)]
    leaves = [Gaussian.joined([nodes[i] for i in group]) for group in groups]
    for group, whole in zip(groups, function(leaves), strict=True):
        arrays = split(whole, [nodes[i].shape for i in group])
        for i, array in zip(group, arrays, strict=True):
            nodes[i] = array
    return jax.tree.unflatten(structure, nodes)


def mean_leaves(tree: PyTree) -> Model:
    """Return the model with the mean of every random leaf in its place."""
    return jax.tree.map(
        lambda node: node.mean if is_random(node) else node, tree, is_leaf=is_random
    )


def random_leaves(tree: PyTree) -> dict[str, Gaussian]:
    """Return all random leaves by their path: `{"layers.0.weight": Gaussian, ...}`."""
    nodes = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_random)
    return {path_name(path): node for path, node in nodes if is_random(node)}
