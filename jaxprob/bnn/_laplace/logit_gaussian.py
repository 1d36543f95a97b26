"""Class probabilities of a Gaussian over logits, without samples."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def probit(
    mean: Float[Array, " out"],
    covariance: Float[Array, "out out"],
    *,
    binary: bool = False,
) -> Float[Array, " out"]:
    r"""Approximate $\mathbb E[\mathrm{softmax}(f)]$ for Gaussian f, after MacKay.

    $$p_k \propto \Big( \sum_l \exp \frac{\mu_l - \mu_k}{\sqrt{1 + \pi v_{kl} / 8}}
      \Big)^{-1}, \qquad v_{kl} = \Sigma_{kk} + \Sigma_{ll} - 2 \Sigma_{kl}$$

    Only differences of logits enter, so that uncertainty common to all of them changes
    nothing, as in the softmax. For two classes, and for one logit, it is
    MacKay's formula, with an error of at most 0.016. For more classes the error grows
    with the variances; draws (`predict`) are exact as their number grows.

    References: *The evidence framework applied to classification networks*, MacKay,
    1992; *Mean-field approximation to Gaussian-softmax integral with application to
    uncertainty estimation*, Lu, Ie and Sha, 2020, https://arxiv.org/abs/2006.07584.

    **Arguments:**

    - `mean`: $\mu$, one logit each.
    - `covariance`: $\Sigma$.
    - `binary`: whether each logit is a separate two-class problem.
    """
    variance = jnp.diag(covariance)
    if binary:
        return jax.nn.sigmoid(mean / jnp.sqrt(1.0 + jnp.pi / 8.0 * variance))
    # Where logits move together their difference is rounding, of either sign.
    spread = variance[:, None] + variance[None, :] - 2.0 * covariance
    scale = jnp.sqrt(1.0 + jnp.pi / 8.0 * jnp.maximum(spread, 0.0))
    ratios = (mean[None, :] - mean[:, None]) / scale
    return jax.nn.softmax(-jax.nn.logsumexp(ratios, axis=1))


def softmax_bridge(
    mean: Float[Array, " classes"], covariance: Float[Array, "classes classes"]
) -> Float[Array, " classes"]:
    r"""Return the Dirichlet whose Laplace approximation over logits is a Gaussian.

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
    # Zero where the Gaussian lies in the plane already, and needs no projection.
    tiny = jnp.finfo(mean.dtype).eps * jnp.trace(covariance)
    inverse = jnp.where(total > tiny, 1.0 / jnp.where(total > tiny, total, 1.0), 0.0)
    mean = mean - rows * jnp.sum(mean) * inverse
    variance = jnp.diag(covariance) - rows**2 * inverse
    # A row without uncertainty has variance zero, and where logits move together their
    # difference is rounding of either sign: the concentrations are very large then.
    eps = jnp.finfo(mean.dtype).eps
    variance = jnp.maximum(variance, eps * jnp.diag(covariance) + eps**2)
    # e^mu_k sum_l e^-mu_l as one exponential: neither factor overflows by itself.
    spread = jnp.exp(mean + jax.nn.logsumexp(-mean))
    return (1.0 - 2.0 / num + spread / num**2) / variance
