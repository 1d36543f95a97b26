"""Conformance of a likelihood: a normalised density that its checks agree with."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._types import PRNGKey
from ..bnn import Likelihood
from ._contract import require

_DRAWS = 4000
_ERRORS = 5.0


def check_likelihood(likelihood: Likelihood, output: PyTree, *, key: PRNGKey) -> None:
    r"""Check a likelihood at one output of a model.

    ```python
    check_likelihood(CategoricalLikelihood(), jnp.array([0.3, -1.0, 2.0]), key=key)
    ```

    1. It returns a numpyro distribution, under `jit` and `vmap` too.
    2. Its draws have a finite log-probability.
    3. The gradient of the log-probability in the output is finite, and its mean over
       draws is zero within five standard errors, as of any normalised density.
    4. Mean and variance of the distribution, where it has them, are those of its draws
       within five standard errors.

    **Arguments:**

    - `likelihood`: output -> distribution.
    - `output`: what the model returns for one example.
    - `key`: of the draws.

    **Raises:** `ContractError` that names the broken clause.
    """
    import numpyro.distributions as dist

    p = likelihood(output)
    require(
        isinstance(p, dist.Distribution),
        likelihood,
        f"it returned a {type(p).__name__}, and a numpyro distribution is needed",
    )

    @jax.jit
    def at(output, keys):
        p: Any = likelihood(output)
        draws = jax.vmap(p.sample)(keys)

        def log_prob(output, y):
            q: Any = likelihood(output)
            return jnp.sum(q.log_prob(y))

        slopes = jax.vmap(jax.grad(log_prob), (None, 0))(output, draws)
        return draws, jax.vmap(log_prob, (None, 0))(output, draws), slopes

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        draws, values, slopes = at(output, jax.random.split(key, _DRAWS))
    require(
        np.isfinite(values).all(),
        likelihood,
        f"{int((~np.isfinite(values)).sum())} of {_DRAWS} draws have a log-probability "
        "that is not finite",
    )
    for leaf in jax.tree.leaves(slopes):
        _check_score(likelihood, np.asarray(leaf, np.float64).reshape(_DRAWS, -1))
    for name in ("mean", "variance"):
        _check_moment(likelihood, p, name, np.asarray(draws, np.float64))


def _check_score(likelihood, slopes):
    require(
        np.isfinite(slopes).all(),
        likelihood,
        "the gradient of the log-probability in the output is not finite",
    )
    error = slopes.std(0) / np.sqrt(_DRAWS)
    scale = np.abs(slopes).max(initial=1.0)
    far = np.abs(slopes.mean(0)) > _ERRORS * error + 1e-4 * scale
    require(
        not far.any(),
        likelihood,
        "the mean over draws of the gradient of the log-probability in the output is "
        f"{slopes.mean(0)}, with standard errors {error}: it is zero for a density "
        "that is normalised and whose draws are its own",
    )


def _check_moment(likelihood, p, name, draws):
    try:
        expected = np.asarray(getattr(p, name), np.float64)
    except NotImplementedError:
        return
    if not np.isfinite(expected).all() or expected.shape != draws.shape[1:]:
        return
    # In float64: variances of squares need the digits.
    values = draws if name == "mean" else (draws - draws.mean(0)) ** 2
    error = values.std(0) / np.sqrt(_DRAWS)
    far = np.abs(values.mean(0) - expected) > _ERRORS * error + 1e-4 * np.abs(expected)
    require(
        not far.any(),
        likelihood,
        f"the {name} of the distribution is {expected}, and that of {_DRAWS} draws is "
        f"{values.mean(0)} with standard error {error}",
    )
