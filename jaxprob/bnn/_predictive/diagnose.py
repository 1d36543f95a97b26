"""Convergence diagnostics of Markov chains, in weights and in functions."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ... import tree
from .._posterior.draws import DrawsPosterior
from .._posterior.mixing import ess, rhat
from .._weights.apply import call_model
from .predict import predict


class Diagnosis(eqx.Module):
    """Result of `diagnose`; `print` shows it as a table.

    **Fields:**

    - `weights`: largest R-hat and smallest effective sample size of each leaf.
    - `function`: the same of the outputs at the given inputs.
    - `num_draws`: of all chains together.
    """

    weights: dict[str, tuple[float, float]]
    function: tuple[float, float]
    num_draws: int

    def __str__(self) -> str:
        rows = [*self.weights.items(), ("the function", self.function)]
        width = max(len(name) for name, _ in rows)
        lines = [f"{'':{width}}  {'R-hat':>8}  {'ESS':>8}  of {self.num_draws}"]
        lines += [f"{name:{width}}  {r:8.3f}  {n:8.0f}" for name, (r, n) in rows]
        return "\n".join(lines)


def diagnose(
    posterior: DrawsPosterior,
    x: PyTree,
    *,
    apply: Callable[..., Any] = call_model,
) -> Diagnosis:
    """Return R-hat and effective sample sizes of weights and of outputs.

    Hidden units can be exchanged, so chains that agree on the function may differ in
    every weight. A large R-hat of the weights alone means that symmetries were not
    explored, on which no prediction depends. The R-hat of the function has to be below
    1.01, at inputs inside and outside of the data.

    References: *What are Bayesian neural network posteriors really like?*, Izmailov et
    al., 2021, section 4, https://arxiv.org/abs/2104.14421.

    ```python
    print(diagnose(posterior, x_test[:50]))
    ```

    **Arguments:**

    - `posterior`: of one or more chains.
    - `x`: inputs at which outputs are compared.
    - `apply`: as in `LogJoint`.

    **Raises:** `ValueError` with fewer than 4 draws of each chain, or if no output
    differs between draws. Outputs that do not differ are left out.
    """
    if posterior.shape[1] < 4:
        raise ValueError(
            f"the posterior has {posterior.shape[1]} draws of each chain, and R-hat "
            "compares the halves of a chain: raise num_draws to at least 4, and to "
            "some hundreds for a reliable diagnosis"
        )

    def worst(values):
        values = values.reshape(*posterior.shape, -1)
        # A constant, such as a known noise scale, has no effective sample size.
        values = values[..., np.ptp(values, axis=(0, 1)) > 0]
        if not values.size:
            return np.nan, np.nan
        return float(np.max(rhat(values))), float(np.min(ess(values)))

    weights = {
        path: worst(np.asarray(leaf))
        for path, leaf in tree.paths(posterior.draws).items()
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    }
    predictive = predict(posterior, _unused, x, key=jax.random.key(0), apply=apply)
    outputs = [
        np.moveaxis(np.asarray(leaf), 1, 0).reshape(*posterior.shape, -1)
        for leaf in jax.tree.leaves(predictive.outputs)
    ]
    function = worst(np.concatenate(outputs, axis=-1))
    if np.isnan(function[1]):
        raise ValueError(
            "every output is the same in all draws: at these x the function does not "
            "depend on the random leaves"
        )
    return Diagnosis(weights, function, posterior.num_atoms)


def _unused(output: Any) -> Any:
    raise NotImplementedError("diagnose uses outputs only")
