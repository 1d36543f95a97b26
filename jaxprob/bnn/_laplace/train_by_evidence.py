"""Training of the weights, and of prior and noise by the evidence, in turn."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..._training.loader import ArrayLoader
from ..._training.non_finite import not_finite
from ..._types import Model, PRNGKey
from .._inference.run_steps import run_steps
from .laplace import Laplace
from .noise_by_output import has_scale_by_output, noise_by_output
from .posterior import LaplacePosterior
from .tune_prior import tune_prior


def train_by_evidence(
    method: Laplace,
    model: Model,
    data: PyTree,
    *,
    key: PRNGKey,
    num_rounds: int = 10,
    num_steps: int = 200,
    noise: bool = False,
    batch_size: int | None = None,
) -> tuple[LaplacePosterior, list[float]]:
    r"""Train the weights, and the prior (and noise) by the evidence, in turn.

    $$\hat w \leftarrow \arg\max_w \log p(\mathcal D, w \mid \tau, s), \qquad (\tau, s)
      \leftarrow \arg\max_{\tau, s} \log p(\mathcal D \mid \tau, s; \hat w)$$

    `tune_prior` alone keeps the mode that the first prior gave. Here the weights are
    trained further under the prior that was found, until both agree; for a model that
    is linear in its weights that is the maximum of the exact evidence. No rows have to
    be held out.

    References: *Bayesian interpolation*, MacKay, 1992; *Scalable marginal likelihood
    estimation for model selection in deep learning*, Immer, Bauer, Fortuin, Rätsch and
    Khan, 2021, https://arxiv.org/abs/2104.04975.

    ```python
    log_joint = LogJoint(NormalLikelihood(1.0), per_layer(model), num_data=len(x))
    method = Laplace(MAP(log_joint, optax.adam(1e-2)), structure="kronecker")
    posterior, history = train_by_evidence(
        method, model, (x, y), key=key, noise=True
    )
    predictive = predict(posterior, posterior.likelihood, x_test, key=key)
    ```

    **Arguments:**

    - `method`: its prior has positive scales as leaves, as for `tune_prior`.
    - `model`, `data`: as in `jaxprob.fit`; the data are `(x, y)`.
    - `key`: everything random in the run.
    - `num_rounds`: how often the prior is tuned.
    - `num_steps`: updates of the weights in each round.
    - `noise`: whether the scale of a `NormalLikelihood` is tuned too; one for each
        output by a step of MacKay's fixed point in each round.
    - `batch_size`: rows of a minibatch, which is drawn with replacement, and of a batch
        of the pass for the evidence; all rows by default.

    **Returns:** the posterior under the last prior and noise; and the log evidence
    after each round, in nats.

    **Raises:** `FloatingPointError` when a weight is not finite, with leaf and round;
    and as `tune_prior` and `method.check` do.
    """
    for name, value in (("num_rounds", num_rounds), ("num_steps", num_steps)):
        if value < 1:
            raise ValueError(f"{name}={value}: at least one")
    method.check_training(model, data)
    init_key, run_key = jax.random.split(key)
    # With batches of the same size the memory of the pass does not grow with the rows.
    batches = [data] if batch_size is None else ArrayLoader(data, batch_size=batch_size)
    data = jax.tree.map(jnp.asarray, data)
    state = method.init(model, key=init_key)
    history: list[float] = []
    for index in range(num_rounds):
        state = run_steps(
            method,
            state,
            data,
            key=jax.random.fold_in(run_key, index),
            num=num_steps,
            batch_size=batch_size,
        )
        broken = not_finite(method.model(state))
        if broken:
            raise FloatingPointError(
                f"{broken[0]} is not finite after the training of round {index}: lower "
                "the learning rate, or look at the scale of the data"
            )
        posterior = method.posterior(state, batches)
        by_output = noise and has_scale_by_output(posterior.likelihood)
        if by_output:
            apply = method.log_joint.apply
            scale = noise_by_output(posterior, batches, apply)
            method = eqx.tree_at(
                lambda m: m.method.log_joint.likelihood.scale, method, scale
            )
            posterior = method.posterior(state, batches)
        posterior = tune_prior(posterior, noise=noise and not by_output)
        history.append(float(posterior.log_evidence()))
        method = eqx.tree_at(
            lambda m: (m.method.log_joint.prior, m.method.log_joint.likelihood),
            method,
            (posterior.prior, posterior.likelihood),
        )
    return posterior, history
