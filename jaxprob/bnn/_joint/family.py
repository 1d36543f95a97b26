"""Facts about a kind of distribution that numpyro does not know."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array

OfDistribution: TypeAlias = Callable[[Any], Array]
"""A function of a distribution."""


@dataclasses.dataclass(frozen=True)
class Family:
    r"""Facts about a kind of distribution over y that numpyro does not know.

    A numpyro distribution knows its density, draws, moments, distribution function and
    support. The methods here ask for a little more. Each fact may be `None`: then the
    generic way is used, or the question has no answer. `register_family` registers the
    facts of a distribution class.

    **Arguments:**

    - `information_root`: `root(p, at, moves)` is $\varphi(\theta; \theta_0)$, linear in
        the arguments $\theta$ of the distribution `p`, such that $\partial_\theta
        \varphi^\top \partial_\theta \varphi$ is the Fisher information. Its shape is
        that of the batch with one axis more. `at` is the same distribution held
        constant ($\theta_0$), and `moves` holds for each argument whether it depends on
        the output; the root may be `None` for some of them. The generic way is the
        Hessian of the log density at y, which may have negative eigenvalues.
    - `gaussian_mean`: the mean of a density that is Gaussian in y. Anchored ensembles
        perturb y itself there, and weigh the rows in the generic way.
    - `class_log_probs`: for class labels, the log-probabilities of all classes along a
        last axis. Without it y is not a label: `predictive.probs` raises.
    - `class_probs`: their probabilities; the exponentials of `class_log_probs` by
        default. For a binary family it is the probability of 1 alone, without the axis.
    - `class_logits`: the argument that is normalised by a softmax or a sigmoid.
    - `cdf`: `cdf(p, y)`, the distribution function, where numpyro has none.
    - `resultant`: for angles, the mean of $(\cos y, \sin y)$ along a last axis. Means
        and variances of a predictive are then circular.
    - `is_binary`: the label is 0 or 1, and `class_log_probs` has two entries.
    """

    information_root: Callable[[Any, Any, Any], Array | None] | None = None
    gaussian_mean: OfDistribution | None = None
    class_log_probs: OfDistribution | None = None
    class_probs: OfDistribution | None = None
    class_logits: OfDistribution | None = None
    cdf: Callable[[Any, Array], Array] | None = None
    resultant: OfDistribution | None = None
    is_binary: bool = False

    @property
    def is_classification(self) -> bool:
        """Return whether y is a class label."""
        return self.class_log_probs is not None

    def log_probs(self, p: Any) -> Array:
        """Return the log-probabilities of all classes along a last axis."""
        assert self.class_log_probs is not None
        return self.class_log_probs(p)

    def probs(self, p: Any) -> Array:
        """Return class probabilities, or the probability of 1 for a binary family."""
        if self.class_probs is not None:
            return self.class_probs(p)
        probs = jnp.exp(self.log_probs(p))
        return probs[..., 1] if self.is_binary else probs
