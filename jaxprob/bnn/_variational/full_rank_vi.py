"""Variational inference by a Gaussian with all correlations."""

from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Any

import optax
from jaxtyping import Array, Float, PyTree

from ..._training.ema import EMA
from ..._types import PRNGKey, Where
from .._joint.log_joint import LogJoint
from .._posterior.correlated import FullRankPosterior
from .gaussian_vi import AbstractGaussianVI


class FullRankVI(AbstractGaussianVI):
    r"""Variational inference with all correlations, $q = \mathcal N(\mu, L L^\top)$.

    Where the posterior is Gaussian, q is the posterior and the bound is the evidence.
    For P weights L holds P squared numbers, so it is for up to about a thousand
    weights. For more take `LowRankVI`, or `MeanFieldVI` without correlations.

    References: *Automatic differentiation variational inference*, Kucukelbir, Tran,
    Ranganath, Gelman and Blei, 2017, https://arxiv.org/abs/1603.00788; *Sticking the
    landing*, Roeder, Wu and Duvenaud, 2017, https://arxiv.org/abs/1703.09194.

    ```python
    method = FullRankVI(log_joint, optax.adam(1e-2))
    state, _ = jaxprob.fit(method, model, (x, y), key=key, num_epochs=500)
    covariance = method.posterior(state).covariance()
    ```

    **Arguments:**

    - `log_joint`: likelihood, prior and N.
    - `optimizer`: any optax transformation, without weight decay.
    - `random`, `point`, `num_samples`, `scale`, `ema`: as in `MeanFieldVI`.
    - `stick_the_landing`: replaces the closed-form divergence by its estimate from the
        draw with q held fixed: the gradient then has no noise where q is exact, and
        training with a constant step ends there. On by default, since q can be.
    """

    log_joint: LogJoint
    optimizer: optax.GradientTransformation
    _: KW_ONLY
    random: Where | None = None
    point: Where = True
    ema: EMA | None = None
    num_samples: int = 1
    scale: float | Callable[[str, Array], Any] = 0.1
    stick_the_landing: bool = True

    def initial(
        self, params: PyTree, rest: PyTree, scale: Float[Array, " dim"], *, key: PRNGKey
    ) -> FullRankPosterior:
        return FullRankPosterior.of(params, rest, scale)
