"""Variational inference by a Gaussian with a few correlated directions."""

from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Any

import jax
import optax
from jaxtyping import Array, Float, PyTree

from ..._training.ema import EMA
from ..._types import PRNGKey, Where
from .._joint.log_joint import LogJoint
from .._posterior.correlated import LowRankPosterior
from .._weights.scale import inverse_softplus
from .gaussian_vi import AbstractGaussianVI


class LowRankVI(AbstractGaussianVI):
    r"""Variational inference with a few correlated directions.

    $$q(w) = \mathcal N(\mu, D (I + U^\top U) D), \qquad D = \mathrm{diag}(\sigma)$$

    U has `rank` rows. Memory and time grow with rank times P, so it can be used for
    large models. Rank 0 would be `MeanFieldVI`; rank P is `FullRankVI`, exact where the
    posterior is Gaussian.

    References: *Gaussian variational approximation with a factor covariance
    structure*, Ong, Nott and Smith, 2018, https://arxiv.org/abs/1701.03208; *SLANG*,
    Mishkin, Kunstner, Nielsen, Schmidt and Khan, 2018, https://arxiv.org/abs/1811.04504.

    ```python
    method = LowRankVI(log_joint, optax.adam(1e-2), rank=10)
    ```

    **Arguments:**

    - `log_joint`: likelihood, prior and N.
    - `optimizer`: any optax transformation, without weight decay.
    - `rank`: rows of U.
    - `random`, `point`, `num_samples`, `scale`, `ema`: as in `MeanFieldVI`. U starts at
        random, at a tenth of `scale`: at zero its gradient would vanish.
    - `stick_the_landing`: as in `FullRankVI`. Off by default: a Gaussian of low rank is
        seldom exact.
    """

    log_joint: LogJoint
    optimizer: optax.GradientTransformation
    _: KW_ONLY
    random: Where | None = None
    point: Where = True
    ema: EMA | None = None
    num_samples: int = 1
    scale: float | Callable[[str, Array], Any] = 0.1
    stick_the_landing: bool = False
    rank: int = 10

    def __check_init__(self):
        if self.rank < 1:
            raise ValueError(
                f"rank={self.rank}: it is at least 1; MeanFieldVI has no correlations"
            )

    def initial(
        self, params: PyTree, rest: PyTree, scale: Float[Array, " dim"], *, key: PRNGKey
    ) -> LowRankPosterior:
        noise = jax.random.normal(key, (self.rank, scale.size), scale.dtype)
        factor = 0.1 * noise / self.rank**0.5
        return LowRankPosterior(params, rest, inverse_softplus(scale), factor)
