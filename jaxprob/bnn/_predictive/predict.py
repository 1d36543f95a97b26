"""From a posterior over models to a distribution over y."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from ..._checks import check_tree_values
from ..._random.keys import check_key
from ..._training.batch import num_rows
from ..._types import PRNGKey
from .._joint.joint_likelihood import as_likelihood
from .._joint.likelihood import Likelihood
from .._joint.log_joint import LogJoint
from .._posterior.posterior import AbstractPosterior
from .._weights.apply import call_model
from .._weights.scale import is_traced
from .draw_outputs import DrawOutputs
from .outputs import KeptOutputs, RecomputedOutputs
from .predictive import Predictive
from .row_batches import map_batches
from .static import Static

KEEP_BYTES = 2**24
BATCH_BYTES = 2**20


def predict(
    posterior: AbstractPosterior,
    likelihood: Likelihood | dict[str, Any],
    x: PyTree,
    *,
    key: PRNGKey,
    num_samples: int | None = None,
    batch_size: int = 1024,
    model_batch_size: int = 8,
    linearized: bool | None = None,
    apply: Callable[..., Any] = call_model,
) -> Predictive:
    r"""Return the posterior predictive, a mixture over posterior samples.

    $$p(y \mid x, \mathcal D) = \mathbb E_{w}[p(y \mid f_w(x))]$$

    ```python
    predictive = predict(posterior, likelihood, x_test, key=key, num_samples=200)
    lower, upper = predictive.interval(0.9)
    nll = -predictive.log_prob(y_test).mean()
    ```

    Rows are computed in batches and models a few at a time, so memory grows with
    `batch_size` and hardly with `num_samples`. Outputs of up to 16 MB in all are kept;
    beyond that each statistic computes them again, with the same numbers.

    **Arguments:**

    - `posterior`: of any inference method.
    - `likelihood`: that of training. With a dict of them the result is asked by name,
        `predictive["price"]`.
    - `x`: rows to predict.
    - `key`: sample s is drawn with `fold_in(key, s)`, whatever the batch sizes are.
    - `num_samples`: S. By default 100; a posterior of finitely many models (a point,
        an ensemble, a chain) by default counts each of them once, which is exact.
    - `batch_size`: rows at a time, or fewer where their outputs exceed a megabyte.
    - `model_batch_size`: models at a time. Use 1 for convolutions on a CPU, where those
        of several models side by side take several times as long.
    - `linearized`: whether $f_w(x)$ is $f_{\bar w}(x) + J (w - \bar w)$, the network
        linearised at the posterior's mean, instead of the network itself. In a mixture
        $\bar w$ is the mean of the component that w is from. The default is the
        posterior's own: true for `Laplace`.
    - `apply`: as in `LogJoint`. Models are called in inference mode.

    **Returns:** a `Predictive`.

    **Raises:** `TypeError` or `ValueError` naming the argument.
    """
    if not isinstance(posterior, AbstractPosterior):
        raise TypeError(
            f"posterior is a {type(posterior).__name__}: predict takes what "
            "method.posterior(state) gives, and of one model PointPosterior(model)"
        )
    if isinstance(likelihood, LogJoint):
        raise TypeError("likelihood is a LogJoint: give log_joint.likelihood")
    likelihood = as_likelihood(likelihood)
    check_key(key)
    x = _checked_rows(x)
    sizes = {
        "num_samples": num_samples,
        "batch_size": batch_size,
        "model_batch_size": model_batch_size,
    }
    for name, value in sizes.items():
        whole = isinstance(value, int | np.integer)
        if value is not None and not (whole and value >= 1):
            raise ValueError(f"{name}={value}: a whole number, at least 1")
    rows = num_rows(x)
    draw = DrawOutputs(
        posterior,
        likelihood,
        x,
        key=key,
        num_samples=num_samples,
        model_batch_size=model_batch_size,
        linearized=posterior.linearized if linearized is None else linearized,
        apply=apply,
    )
    # Statistics take several times the memory of a batch's outputs: with many models
    # there are fewer rows in it, so that memory does not grow with their number.
    batch_size = min(batch_size, rows, max(1, BATCH_BYTES // max(draw.row_bytes, 1)))
    if draw.row_bytes * rows <= KEEP_BYTES:
        outputs = KeptOutputs(map_batches(draw, x, batch_size))
    else:
        outputs = RecomputedOutputs(x, Static.of(draw))
    return Predictive(outputs, likelihood, batch_size=batch_size)


def _checked_rows(x):
    """The rows as arrays, such as those of a table of pandas or a tensor of torch."""
    x = jax.tree.map(
        lambda leaf: (
            np.asarray(leaf)
            if hasattr(leaf, "__array__") and not eqx.is_array(leaf)
            else leaf
        ),
        x,
    )
    for leaf in jax.tree.leaves(x):
        if not hasattr(leaf, "shape"):
            raise TypeError(
                f"x holds a {type(leaf).__name__}: give arrays with one row for each "
                "prediction, such as np.asarray(x, np.float32)"
            )
    if num_rows(x) == 0:
        raise ValueError("x has no rows to predict")
    if not any(is_traced(leaf) for leaf in jax.tree.leaves(x)):
        check_tree_values("x", x)
    return x
