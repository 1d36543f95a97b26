"""Divergence of random leaves from their prior."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from ..._random.keys import example_keys
from ..._types import PRNGKey
from .._weights.joined import group_small, join
from .._weights.random_leaves import Gaussian, is_random
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

    In closed form for Normal priors. For others the entropy of q is exact and the
    expectation of $\log p$ is a mean over draws.

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


def _expected_log_prob(
    leaf: Gaussian, p: dist.Distribution, key: PRNGKey, num_samples: int
) -> Float[Array, ""]:
    def one(key):
        return density(p, leaf.sample(key=key))

    return jnp.mean(jax.vmap(one)(example_keys(key, num_samples)))
