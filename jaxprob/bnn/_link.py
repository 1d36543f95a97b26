"""From a Gaussian over logits to class probabilities, without sampling."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def probit(
    mean: Float[Array, " out"],
    covariance: Float[Array, "out out"],
    *,
    binary: bool = False,
) -> Float[Array, " out"]:
    r"""MacKay's approximation of $\mathbb E[\mathrm{softmax}(f)]$ for Gaussian f.

    $$p = \mathrm{softmax}(\mu / \sqrt{1 + \pi v / 8}), \qquad v = \mathrm{diag}
      \Sigma$$

    For one logit the softmax is a logistic function, and the error at most 0.016. For
    several it uses variances alone; where they are large and differ, take the bridge or
    draws.

    Reference: *The evidence framework applied to classification networks*, MacKay,
    1992.

    **Arguments:**

    - `mean`: $\mu$, one logit each.
    - `covariance`: $\Sigma$.
    - `binary`: each logit is a two-class problem of its own.
    """
    scaled = mean / jnp.sqrt(1.0 + jnp.pi / 8.0 * jnp.diag(covariance))
    return jax.nn.sigmoid(scaled) if binary else jax.nn.softmax(scaled)


def softmax_bridge(
    mean: Float[Array, " classes"], covariance: Float[Array, "classes classes"]
) -> Float[Array, " classes"]:
    r"""The Dirichlet distribution whose Laplace approximation over logits this is.

    $$\alpha_k = \frac{1}{\Sigma_{kk}} \Big( 1 - \frac 2 K + \frac{e^{\mu_k}}{K^2}
      \sum_l e^{-\mu_l} \Big)$$

    after projecting the Gaussian onto logits that sum to zero, which the softmax does
    not see. The mean probabilities are $\alpha / \sum \alpha$. It suits three or more
    classes; far from Gaussian posteriors of large variance pull it to the uniform.

    Reference: *Fast predictive uncertainty for classification with Bayesian deep
    networks*, Hobbhahn, Kristiadi and Hennig, 2022, https://arxiv.org/abs/2003.01227.

    **Arguments:**

    - `mean`: $\mu$, one logit each.
    - `covariance`: $\Sigma$.

    **Returns:** the concentrations $\alpha$, all positive.
    """
    num = len(mean)
    rows = jnp.sum(covariance, axis=1)
    total = jnp.sum(rows)
    # Zero when the Gaussian lies in the plane already: then there is nothing to do.
    tiny = jnp.finfo(mean.dtype).eps * jnp.trace(covariance)
    inverse = jnp.where(total > tiny, 1.0 / jnp.where(total > tiny, total, 1.0), 0.0)
    mean = mean - rows * jnp.sum(mean) * inverse
    variance = jnp.diag(covariance) - rows**2 * inverse
    # A row without uncertainty has none, and of logits that move together the
    # difference is rounding, of either sign: then the concentrations are very large.
    eps = jnp.finfo(mean.dtype).eps
    variance = jnp.maximum(variance, eps * jnp.diag(covariance) + eps**2)
    # e^mu_k sum_l e^-mu_l as one exponential: neither factor overflows by itself.
    spread = jnp.exp(mean + jax.nn.logsumexp(-mean))
    return (1.0 - 2.0 / num + spread / num**2) / variance
