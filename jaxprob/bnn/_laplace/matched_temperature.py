"""The temperature at which a likelihood that is not quite one has the right width."""

import dataclasses
from collections.abc import Iterable

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._inference.training_batches import as_iterable
from .curvature import AbstractCurvature, DiagonalCurvature, FullCurvature
from .laplace import Laplace
from .low_rank import reiterable


def matched_temperature(
    method: Laplace, state: PyTree, batches: Iterable[PyTree]
) -> Float[Array, ""]:
    r"""Return the T whose posterior variances are those of the mode between data sets.

    $$T = \frac{\mathrm{tr}\,\Lambda^{-1} J}{\mathrm{tr}\,\Lambda^{-1} G}, \qquad
      J = \sum_i g_i g_i^\top,$$

    with the gradient $g_i$ of the log-likelihood of row i, the curvature G of all rows
    and $\Lambda = G + \mathrm{diag}(\tau)$. Of the true model J = G on average, and T
    is 1. Where a likelihood adds up terms that are not independent, as a denoising loss
    or a pseudo-likelihood does, or its noise has another variance than the data, the
    mode varies between data sets by $\Lambda^{-1} J \Lambda^{-1}$, and a posterior by
    $T \Lambda^{-1}$. The two agree on average over the directions that the data
    determine.

    References: *Bayesian composite marginal likelihoods*, Pauli, Racugno and Ventura,
    2011, Statistica Sinica 21; *Maximum likelihood estimation of misspecified models*,
    White, 1982.

    ```python
    method = Laplace(MAP(log_joint, optax.adam(1e-3)))
    state, history = jaxprob.fit(method, model, (x, y), key=key, num_steps=10)
    temperature = matched_temperature(method, state, [(x, y)])
    ```

    **Arguments:**

    - `method`: with `structure="full"` or `"diagonal"`, of a joint with
        `temperature=1`, and any `where`, such as the last layer.
    - `state`: of its training, near the mode.
    - `batches`: the training set, as in `method.posterior`. Rows are independent of
        each other, whatever is inside of one.

    **Returns:** the number by which log-likelihoods are to be divided: a `temperature`
    of `diffusion.DenoisingRows`, or of a `LogJoint`, which divides the log prior too.

    **Raises:** `ValueError` for another structure, or a joint that is tempered.
    """
    if method.structure not in ("full", "diagonal"):
        raise ValueError(
            f"structure={method.structure!r}: matrices of gradients are compared, "
            "which needs Laplace(..., structure='full'), with `where` for the last "
            "layer of a large network, or 'diagonal'"
        )
    if method.log_joint.temperature != 1.0:
        raise ValueError(
            f"temperature={method.log_joint.temperature}: match the temperature of a "
            "LogJoint that has temperature=1, which the result then replaces"
        )
    batches = reiterable(as_iterable(batches))
    expected = dataclasses.replace(method, kind="ggn").posterior(state, batches)
    observed = dataclasses.replace(method, kind="fisher").posterior(state, batches)
    tau = expected.tau()
    return _trace(expected.curvature, tau, observed.curvature) / _trace(
        expected.curvature, tau, expected.curvature
    )


def _trace(curvature: AbstractCurvature, tau, other: AbstractCurvature):
    r"""Return the trace of $\Lambda^{-1}$ times another matrix."""
    if isinstance(curvature, DiagonalCurvature):
        assert isinstance(other, DiagonalCurvature)
        return jnp.sum(other.diagonal / (curvature.diagonal + tau))
    assert isinstance(curvature, FullCurvature)
    assert isinstance(other, FullCurvature)
    return jnp.trace(jnp.linalg.solve(curvature.matrix + jnp.diag(tau), other.matrix))
