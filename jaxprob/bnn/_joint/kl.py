"""Divergence of random leaves from their prior."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from ..._random.keys import example_keys
from ..._types import PRNGKey
from ...tree._ravel import ravel
from .._weights.joined import group_small, join
from .._weights.random_leaves import Gaussian, is_random, sample_leaves
from .._weights.unconstrained import is_unconstrained
from .gaussian_prior import GaussianPrior
from .prior import Prior, density, with_priors


def kl(
    tree: PyTree,
    prior: Prior,
    *,
    temperature: float = 1.0,
    key: PRNGKey | None = None,
    num_samples: int = 1,
) -> Float[Array, ""]:
    r"""Return the divergence of all random leaves from their priors, in nats.

    $$\mathrm{KL}(q \| p) = \mathbb E_q[\log q(w) - \log p(w)]$$

    In closed form for Normal priors and for a `GaussianPrior`. For others the entropy
    of q is exact and the expectation of $\log p$ is a mean over draws.

    ```python
    loss = -log_likelihood + bnn.kl(model, bnn.IsotropicNormal(1.0))
    ```

    **Arguments:**

    - `tree`: a model with random leaves, such as Bayesian layers; other leaves do not
        contribute. Of a leaf in unconstrained coordinates it is the divergence there,
        which is that of the constrained leaf.
    - `prior`: one distribution, or one for each leaf.
    - `temperature`: $T$ of a tempered prior $p^{1/T}$; then the result is
        $\mathbb E_q[\log q - \log p / T]$, without the normaliser of $p^{1/T}$.
    - `key`: for priors without a closed form.
    - `num_samples`: draws for those.

    **Returns:** nats, summed over leaves and entries.

    **Raises:** `ValueError` when a leaf's prior has no closed form and there is no key.
    """
    if isinstance(prior, GaussianPrior):
        return _from_gaussian(tree, prior, temperature, key, num_samples)
    total = 0.0
    for index, (path, leaf, p) in enumerate(_with_priors(tree, prior, temperature)):
        entropy = leaf.entropy()
        try:
            # E_q[log p] = -KL - H, so that at T = 1 the entropy cancels.
            term = leaf.kl(p) / temperature + (1.0 / temperature - 1.0) * entropy
        except NotImplementedError:
            if key is None:
                raise ValueError(
                    f"the prior of {path}, {type(p).__name__}, has no closed-form "
                    "divergence from a Gaussian: give a key, and it is estimated from "
                    "draws"
                ) from None
            leaf_key = jax.random.fold_in(key, index)
            expected = _expected_log_prob(leaf, p, leaf_key, num_samples)
            term = -expected / temperature - entropy
        total = total + term
    return jnp.asarray(total)


def _with_priors(tree, prior, temperature):
    """Path, leaf and prior; small leaves under Normal priors as one, for speed."""
    random = jax.tree.map(
        lambda node: node if is_random(node) else None, tree, is_leaf=is_random
    )
    found = [
        (path, leaf.single(), p)
        for path, leaf, p in with_priors(prior, random, temperature=temperature)
    ]
    normal = [item for item in found if type(item[2]) is dist.Normal]
    others = [item for item in found if type(item[2]) is not dist.Normal]
    for group in group_small([leaf for _, leaf, _ in normal]):
        paths, leaves, priors = map(list, zip(*(normal[i] for i in group), strict=True))
        yield ", ".join(paths), Gaussian.joined(leaves), _join_normals(priors, leaves)
    yield from others


def _join_normals(priors, leaves):
    if len(priors) == 1:
        return priors[0]

    def joined(name):
        return join(
            [
                jnp.broadcast_to(jnp.asarray(getattr(p, name), leaf.dtype), leaf.shape)
                for p, leaf in zip(priors, leaves, strict=True)
            ]
        )

    return dist.Normal(joined("loc"), joined("scale"))


def _from_gaussian(tree, prior, temperature, key, num_samples):
    """The divergence of independent leaves from a Gaussian over all of them."""

    def chosen(node):
        held = node.coordinates if is_unconstrained(node) else node
        return node if is_random(held) else None

    random = jax.tree.map(
        chosen, tree, is_leaf=lambda n: is_random(n) or is_unconstrained(n)
    )
    nodes = jax.tree.leaves(random, is_leaf=is_random)
    leaves = [node.single() for node in nodes if is_random(node)]
    if not leaves:
        return jnp.zeros(())
    prior.check_leaves(path for path, _, _ in with_priors(prior, random))
    entropy = sum((leaf.entropy() for leaf in leaves), start=jnp.zeros(()))
    if temperature == 1.0 or not prior.has_edges:
        mean = ravel([leaf.mean for leaf in leaves])[0]
        variance = ravel([leaf.scale**2 for leaf in leaves])[0]
        expected = prior.expected_log_prob(mean, variance)
        return -expected / temperature - entropy
    if key is None:
        raise ValueError(
            f"temperature={temperature} with a leaf whose prior has an edge has no "
            "closed-form divergence: give a key, and it is estimated from draws"
        )

    def one(key):
        return prior.log_prob(sample_leaves(random, key=key), temperature=temperature)

    expected = jnp.mean(jax.vmap(one)(example_keys(key, num_samples)))
    return -expected / temperature - entropy


def _expected_log_prob(
    leaf: Gaussian, p: dist.Distribution, key: PRNGKey, num_samples: int
) -> Float[Array, ""]:
    def one(key):
        return density(p, leaf.sample(key=key))

    return jnp.mean(jax.vmap(one)(example_keys(key, num_samples)))
