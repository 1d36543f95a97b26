"""Table of a posterior: parameters by path, and derived quantities."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from ... import tree
from ..._random.keys import check_key, example_keys
from ..._types import Model, PRNGKey
from .._posterior.draws import DrawsPosterior
from .._posterior.mixing import ess, rhat
from .._posterior.posterior import AbstractPosterior

Functions = Mapping[str, Callable[[Model], PyTree]]
MAX_LINES = 40
"""Lines that the text of a table shows."""

AT_ONCE = 64
"""Size of the batches in which derived quantities are computed."""


class Summary(eqx.Module):
    """Result of `summarise`: a row for each number, and its columns as arrays.

    `print` shows it as a table, `summary["rate"]` is the row of a name as a dictionary.

    **Fields:**

    - `names`: of the rows: a path, or the name of a function, with the index of the
        entry where there are several.
    - `mean`, `sd`: of each row.
    - `probs`: levels of the quantiles.
    - `quantiles`: one row for each name, one column for each level.
    - `rhat`: rank-normalised split R-hat; NaN for draws that are not of chains.
    - `ess_bulk`, `ess_tail`: effective sample sizes of the bulk and of the tails.
    - `num_draws`: of all chains together.
    """

    names: tuple[str, ...]
    mean: Float[np.ndarray, " rows"]
    sd: Float[np.ndarray, " rows"]
    probs: tuple[float, ...]
    quantiles: Float[np.ndarray, "rows probs"]
    rhat: Float[np.ndarray, " rows"]
    ess_bulk: Float[np.ndarray, " rows"]
    ess_tail: Float[np.ndarray, " rows"]
    num_draws: int

    @property
    def columns(self) -> dict[str, Float[np.ndarray, " rows"]]:
        """All columns by name; that of a quantile is such as `"5%"`."""
        levels = {
            f"{100 * p:g}%": self.quantiles[:, i] for i, p in enumerate(self.probs)
        }
        return {
            "mean": self.mean,
            "sd": self.sd,
            **levels,
            "rhat": self.rhat,
            "ess_bulk": self.ess_bulk,
            "ess_tail": self.ess_tail,
        }

    def __getitem__(self, name: str) -> dict[str, float]:
        if name not in self.names:
            known = ", ".join(self.names[:10])
            raise KeyError(f"{name!r} is no row of this table; its rows are {known}")
        row = self.names.index(name)
        return {column: float(values[row]) for column, values in self.columns.items()}

    def __repr__(self) -> str:
        shown = self.names[:MAX_LINES]
        width = max(map(len, shown))
        columns = self.columns
        head = "  ".join(f"{name:>9}" for name in columns)
        lines = [f"{'':{width}}  {head}   of {self.num_draws} draws"]
        for row, name in enumerate(shown):
            cells = "  ".join(_cell(k, float(v[row])) for k, v in columns.items())
            lines.append(f"{name:{width}}  {cells}")
        if len(self.names) > len(shown):
            lines.append(f"... and {len(self.names) - len(shown)} more rows")
        return "\n".join(lines)


def summarise(
    posterior: AbstractPosterior,
    functions: Functions | None = None,
    *,
    probs: Sequence[float] = (0.05, 0.5, 0.95),
    num_samples: int = 1000,
    key: PRNGKey | None = None,
) -> Summary:
    """Return mean, standard deviation, quantiles and diagnostics by name.

    ```python
    def half_life(model):
        return jnp.log(2.0) / jnp.exp(model.layers[0].bias[0])

    print(summarise(posterior, {"half-life": half_life}))
    ```

    R-hat has to be below 1.01, and both effective sample sizes above 100 for each chain
    (Vehtari et al., 2021, https://arxiv.org/abs/1903.08008). Derived quantities are
    computed in each draw, so that their quantiles include every correlation.

    **Arguments:**

    - `posterior`: of chains, with all draws; or any other, which is sampled.
    - `functions`: derived quantities: `function(model)` is an array, or a tree of
        arrays.
    - `probs`: levels of the quantiles.
    - `num_samples`, `key`: draws from a posterior that is not one of chains. R-hat is
        NaN there.

    **Raises:** `ValueError` for a posterior without draws and no key, or for a level
    outside of (0, 1); `TypeError` for functions without names.
    """
    functions = _checked(functions)
    if not probs or not all(0 < p < 1 for p in probs):
        raise ValueError(f"probs={tuple(probs)}: levels in (0, 1), such as 0.05, 0.5")
    is_chains = isinstance(posterior, DrawsPosterior)
    if is_chains and posterior.shape[1] < 4:
        raise ValueError(
            f"the posterior has {posterior.shape[1]} draws of each chain, and R-hat "
            "compares the halves of a chain: raise num_draws to at least 4"
        )
    values = {
        name: np.asarray(array, np.float64)
        for name, array in _values(posterior, functions, num_samples, key).items()
        if jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool
    }
    shape = posterior.shape if is_chains else (1, len(next(iter(values.values()))))
    names = [
        label for name, a in values.items() for label in _labels(name, a.shape[1:])
    ]
    table = np.concatenate([a.reshape(*shape, -1) for a in values.values()], axis=-1)
    # What is the same in all draws has no effective sample size.
    varies = np.ptp(table, axis=(0, 1)) > 0

    def diagnostic(function):
        out = np.full(len(names), np.nan)
        if is_chains and varies.any():
            out[varies] = function(table[..., varies])
        return out

    return Summary(
        tuple(names),
        table.mean((0, 1)),
        table.std((0, 1), ddof=1),
        tuple(map(float, probs)),
        np.quantile(table, probs, axis=(0, 1)).T,
        diagnostic(rhat),
        diagnostic(lambda v: ess(v, "bulk")),
        diagnostic(lambda v: ess(v, "tail")),
        shape[0] * shape[1],
    )


def _values(posterior, functions, num_samples, key):
    """Arrays by name with one leading axis of draws: leaves, then functions."""

    def quantities(model):
        model = eqx.nn.inference_mode(model)
        outs = [function(model) for function in functions.values()]
        return jax.tree.map(jnp.asarray, outs)

    if isinstance(posterior, DrawsPosterior):
        leaves = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), posterior.draws)
        index = jnp.arange(posterior.num_atoms)
        outs = eqx.filter_jit(
            lambda p: jax.lax.map(
                lambda i: quantities(p.atom(i)), index, batch_size=AT_ONCE
            )
        )(posterior)
    elif key is None:
        raise ValueError(
            f"a {type(posterior).__name__} is not one of chains and is sampled: give "
            "key=jax.random.key(0)"
        )
    else:
        check_key(key)

        def one(key):
            model = posterior.sample(key=key)
            return eqx.filter(model, eqx.is_inexact_array), quantities(model)

        leaves, outs = eqx.filter_jit(
            lambda keys: jax.lax.map(one, keys, batch_size=AT_ONCE)
        )(example_keys(key, num_samples))
    derived = {
        f"{name}.{path}" if path else name: array
        for name, out in zip(functions, outs, strict=True)
        for path, array in tree.paths(out).items()
    }
    return tree.paths(leaves) | derived


def _labels(name, shape):
    if not shape:
        return [name]
    return [f"{name}[{', '.join(map(str, i))}]" for i in np.ndindex(*shape)]


def _checked(functions: Any) -> Functions:
    functions = {} if functions is None else functions
    if not isinstance(functions, Mapping) or not all(map(callable, functions.values())):
        raise TypeError(
            f"functions is a {type(functions).__name__}: give them by name, such as "
            '{"period": lambda model: 2 * jnp.pi / model.frequency}'
        )
    return functions


def _cell(column: str, value: float) -> str:
    if column.startswith("ess"):
        return f"{value:9.0f}"
    return f"{value:9.3f}" if column == "rhat" else f"{value:9.4g}"
