"""Class probabilities of Gaussians over logits, by the likelihood of the classes."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._joint.class_logits import logit_family
from .._joint.likelihood import Likelihood
from .logit_gaussian import probit, softmax_bridge


def class_probs(
    likelihood: Likelihood,
    output: jax.ShapeDtypeStruct,
    mean: Float[Array, "rows out"],
    covariance: Float[Array, "rows out out"],
    link: Literal["probit", "bridge"],
) -> Float[Array, "rows *shape"]:
    """Return class probabilities for each row, in the shape of its output.

    **Arguments:**

    - `likelihood`: its parameters are the logits of classes. The classes are the last
        axis of an output; other axes are several labels of a row.
    - `output`: shape of the output in one row.
    - `mean`, `covariance`: of the outputs of each row, flattened.
    - `link`: as in `LaplacePosterior.class_probs`.
    """
    if link not in ("probit", "bridge"):
        raise ValueError(f"link={link!r}: it is 'probit' or 'bridge'")
    family = logit_family(likelihood, output)
    if family is None:
        raise ValueError(
            "class_probs is for outputs that are the logits of classes, such as those "
            "of CategoricalLikelihood and BernoulliLikelihood, and the likelihood of "
            f"this posterior is {type(likelihood).__name__}. For any other write "
            "bnn.predict(...).probs"
        )
    if family.is_binary and link == "bridge":
        raise ValueError("link='bridge' is for several classes: write link='probit'")
    if family.is_binary:
        probs = jax.vmap(functools.partial(probit, binary=True))(mean, covariance)
        return probs.reshape(-1, *output.shape)
    mean, covariance = _by_label(mean, covariance, num_classes=output.shape[-1])
    if link == "bridge":
        alpha = jax.vmap(jax.vmap(softmax_bridge))(mean, covariance)
        probs = alpha / jnp.sum(alpha, -1, keepdims=True)
    else:
        probs = jax.vmap(jax.vmap(probit))(mean, covariance)
    return probs.reshape(-1, *output.shape)


def _by_label(mean, covariance, num_classes):
    """Logits with axes (rows, labels, classes), and the covariances of each label."""
    labels = mean.shape[-1] // num_classes
    blocks = covariance.reshape(-1, labels, num_classes, labels, num_classes)
    same_label = jnp.moveaxis(jnp.diagonal(blocks, axis1=1, axis2=3), -1, 1)
    return mean.reshape(-1, labels, num_classes), same_label
