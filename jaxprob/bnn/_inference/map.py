"""Maximum a posteriori: the one model of highest posterior density."""

from collections.abc import Iterable
from dataclasses import KW_ONLY

import equinox as eqx
import optax
from jaxtyping import Array, Float, PyTree

from ..._training.ema import EMA
from ..._training.gradient_descent import GradientDescent, TrainState
from ..._types import Info, Model, PRNGKey, Where
from .._joint.check_prior import check_prior
from .._joint.log_joint import LogJoint
from .._posterior.point import PointPosterior
from .._weights.unconstrained import constrained
from .capabilities import AbstractTrainedModels
from .descent import AbstractDescent
from .inference import Roles


class MAP(AbstractDescent, AbstractTrainedModels):
    r"""The maximum of the log joint, $\hat w = \arg\max_w \log p(\mathcal D, w)$.

    The loss is $-\frac 1 N \log p_T(\mathcal D, w)$, in nats per row of data. The
    result is one model without any uncertainty of its weights: the start of
    `DeepEnsemble`, `Laplace` and `SWAG`, and the baseline for everything else.

    A leaf whose prior has an edge moves in unconstrained coordinates $u$,
    $w = T(u)$, and the mode is that of the density of u, $\log p(\mathcal D, T(u)) +
    \log |T'(u)|$. It exists where the density of w grows towards its edge, as that of
    a scale often does, and it is the point around which `Laplace` is Gaussian. The mode
    of the density of w lies elsewhere: of a Gamma(a, b) the first is a / b, the second
    (a - 1) / b.

    ```python
    method = MAP(log_joint, optax.adam(1e-3))
    state, history = jaxprob.fit(method, model, (x, y), key=key, num_epochs=50)
    model = method.model(state)
    ```

    **Arguments:**

    - `log_joint`: likelihood, prior and N.
    - `optimizer`: any optax transformation. Weight decay there is a second prior.
    - `random`: leaves that have the prior (see `jaxprob.tree`); by default all but
        those of normalisation layers and of `LearnedNoise`.
    - `point`: of the others, those that are optimised without a prior. What is in
        neither is frozen.
    - `ema`: averages the trained leaves; `model` and `posterior` then use the average.
    """

    log_joint: LogJoint
    optimizer: optax.GradientTransformation
    _: KW_ONLY
    random: Where | None = None
    point: Where = True
    ema: EMA | None = None

    def init(self, model: Model, *, key: PRNGKey | None = None) -> TrainState:
        roles = Roles.of(model, self.random, self.point)
        model = self.unconstrained(model)
        check_prior(self.log_joint.prior, eqx.filter(model, roles.random))
        return self._descent(model).init(model)

    def models(self, state: TrainState) -> tuple[Model, ...]:
        return (constrained(self._trained(state)),)

    def posterior(
        self,
        state: TrainState,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> PointPosterior:
        return PointPosterior(*self.models(state))

    def _descent(self, model: Model) -> GradientDescent:
        roles = Roles.of(model, self.random, self.point)

        def loss(model, batch, *, key) -> tuple[Float[Array, ""], tuple[Info, PyTree]]:
            joint = self.log_joint
            log_likelihood, statistics = joint.with_statistics(model, batch, key=key)
            log_prior = joint.log_prior(eqx.filter(model, roles.random))
            log_density = (log_likelihood + log_prior) / joint.temperature
            info = {
                "nll": -log_likelihood / joint.num_data,
                "log_prior": log_prior,
                "log_joint": log_density,
            }
            return -log_density / joint.num_data, (info, statistics)

        return GradientDescent(loss, self.optimizer, self.ema, roles.trained)
