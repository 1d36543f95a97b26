"""The predictive distribution as a program."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jaxtyping import PyTree

from ..bnn import AbstractPosterior, Likelihood, Predictive, predict
from ._program import Program, exported


def moments(predictive: Predictive) -> dict[str, PyTree]:
    """Return mean and standard deviation."""
    return {"mean": predictive.mean, "std": predictive.std}


def export_predictive(
    posterior: AbstractPosterior,
    likelihood: Likelihood | dict[str, Any],
    x: PyTree,
    *,
    statistics: Callable[[Predictive], PyTree] = moments,
    num_samples: int | None = None,
    linearized: bool | None = None,
    platforms: Sequence[str] = ("cpu",),
) -> Program:
    """Return `predict` and its statistics as a program of `(x, key=key)`.

    The draws are those of `predict` with the same key, so its numbers are the same up
    to rounding.

    ```python
    program = export_predictive(posterior, likelihood, x)
    outputs = program(x, key=key)
    medians = export_predictive(
        posterior, likelihood, x, statistics=lambda p: {"median": p.quantile(0.5)}
    )
    ```

    **Arguments:**

    - `posterior`, `likelihood`, `num_samples`, `linearized`: as in `predict`.
    - `x`: rows as an example of shapes and dtypes; the program takes any number.
    - `statistics`: what the program returns of a `Predictive`, a tree of arrays with a
        leading axis of rows. For classes `lambda p: p.probs`.
    - `platforms`: of `"cpu"`, `"cuda"` and `"tpu"`, those on which the program runs.

    **Raises:** those of `predict`; `ValueError` for an unknown platform, or a
    model that calls Python.
    """

    def function(key: jax.Array, x: PyTree) -> PyTree:
        def of_row(row):
            one = jax.tree.map(lambda leaf: leaf[None], row)
            predictive = predict(
                posterior,
                likelihood,
                one,
                key=key,
                num_samples=num_samples,
                linearized=linearized,
            )
            return jax.tree.map(lambda leaf: leaf[0], statistics(predictive))

        # A row at a time has a shape that is known; the models do not depend on it.
        return jax.vmap(of_row)(x)

    return exported(function, (x,), platforms)
