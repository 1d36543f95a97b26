"""Report of a posterior: have the chains mixed, and what did the data say?"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .. import tree
from .._random.keys import check_key, example_keys
from .._types import PRNGKey
from ..bnn import (
    AbstractPosterior,
    DrawsPosterior,
    Likelihood,
    NormalLikelihood,
    diagnose,
    predict,
    summarise,
)
from ._parts import Picture, Section, Table, Text
from ._pictures import density_pair, traces
from ._report import Report

NUM_DRAWS = 500
MOST_LEAVES = 12
LARGE_RHAT = 1.01


def posterior_report(
    posterior: AbstractPosterior,
    *,
    x: PyTree | None = None,
    prior: AbstractPosterior | None = None,
    likelihood: Likelihood | None = None,
    functions: Mapping[str, Callable[[Any], PyTree]] | None = None,
    title: str = "Posterior",
    key: PRNGKey | None = None,
) -> Report:
    """Return a page on a posterior: diagnostics, and the prior beside it.

    ```python
    prior = bnn.PriorModels(model, log_joint.prior)
    report = posterior_report(posterior, x=x_test[:50], prior=prior)
    report.save("posterior.html")
    ```

    **Arguments:**

    - `posterior`: of any method; R-hat is for chains, `bnn.DrawsPosterior`.
    - `x`: inputs at which outputs are compared, between chains and with the prior.
    - `prior`: `bnn.PriorModels` of the same model.
    - `likelihood`: output -> distribution, to compare predictions of prior and
        posterior with their noise; by default the first output is compared.
    - `functions`: derived quantities by name, as in `bnn.summarise`.
    - `title`: of the page.
    - `key`: of the draws, `jax.random.key(0)` by default.
    """
    key = jax.random.key(0) if key is None else key
    check_key(key)
    sections = [_summary(posterior, functions, key)]
    if isinstance(posterior, DrawsPosterior):
        if x is not None and posterior.shape[1] >= 4:
            sections.append(_mixing(posterior, x))
        if posterior.sample_stats:
            sections.append(_statistics(posterior))
    if prior is not None:
        sections.append(_beside_prior(posterior, prior, x, likelihood, key))
    return Report(title, sections)


def _summary(posterior, functions, key) -> Section:
    rows: list[tuple[Any, ...]] = [("kind", type(posterior).__name__)]
    if isinstance(posterior, DrawsPosterior):
        chains, draws = posterior.shape
        rows += [("chains", chains), ("draws of each", draws)]
    elif posterior.num_atoms is not None:
        rows.append(("models", posterior.num_atoms))
    blocks: list[Any] = [Table(("", ""), rows)]
    few = isinstance(posterior, DrawsPosterior) and posterior.shape[1] < 4
    if functions and not few:
        found = summarise(posterior, functions, key=key)
        columns = found.columns
        chosen = [
            i for i, name in enumerate(found.names) if name.startswith(tuple(functions))
        ]
        blocks.append(
            Table(
                ("quantity", *columns),
                [(found.names[i], *(float(c[i]) for c in columns.values()))
                 for i in chosen],
                "Computed in each draw, so that quantiles include every correlation.",
            )
        )  # fmt: skip
    return Section("Posterior", blocks)


def _mixing(posterior: DrawsPosterior, x: PyTree) -> Section:
    found = diagnose(posterior, x)
    largest, least = found.function
    mixed = largest <= LARGE_RHAT
    rows = [("the function", largest, least)]
    worst = sorted(found.weights.items(), key=lambda item: -_finite(item[1][0]))
    rows += [(name, *values) for name, values in worst[:MOST_LEAVES]]
    return Section(
        "Do the chains agree?",
        [
            Text(
                "The chains agree on the function: its largest R-hat is "
                f"{largest:.3f}, and 1.01 or less is needed."
                if mixed
                else "The chains do not agree on the function: its largest R-hat is "
                f"{largest:.3f}, and 1.01 or less is needed. Raise the number of "
                "warm-up transitions and of draws; chains that were started in "
                "different modes and stay there are an ensemble, not one posterior."
            ),
            Table(
                ("", "largest R-hat", "smallest ESS"),
                rows,
                f"Of {found.num_draws} draws. Hidden units can be exchanged, so chains "
                "may differ in every weight and agree on the function, which is what "
                "predictions depend on.",
            ),
        ],
    )


def _finite(value: float) -> float:
    return value if np.isfinite(value) else -1.0


def _statistics(posterior: DrawsPosterior) -> Section:
    stats = {k: np.asarray(v, np.float64) for k, v in posterior.sample_stats.items()}
    rows = [(name, v.mean(), v.min(), v.max()) for name, v in stats.items()]
    blocks: list[Any] = [Table(("statistic", "mean", "least", "most"), rows)]
    if "divergent" in stats and stats["divergent"].any():
        count = int(stats["divergent"].sum())
        blocks.insert(
            0,
            Text(
                f"{count} transitions diverged: the step is too long somewhere in the "
                "posterior, and draws from there are missing. Raise target_acceptance."
            ),
        )
    if "log_density" in stats:
        blocks.append(
            Picture(
                traces(stats["log_density"], label="log density, nats"),
                "Log density of each chain. A trend is a warm-up that was too short.",
            )
        )
    return Section("Statistics of the chains", blocks)


def _beside_prior(posterior, prior, x, likelihood, key) -> Section:
    prior_key, own_key, draw_key = jax.random.split(key, 3)
    rows = []
    sides = {"prior": _spread(prior, prior_key), "own": _spread(posterior, own_key)}
    for name in list(sides["prior"])[:MOST_LEAVES]:
        if name in sides["own"]:
            before, after = sides["prior"][name], sides["own"][name]
            rows.append((name, before, after, 1.0 - min(after / before, 1.0)))
    blocks: list[Any] = [
        Table(
            ("leaf", "sd in the prior", "in the posterior", "contraction"),
            rows,
            "Mean over the entries of a leaf. A contraction near 0 means that the data "
            "said nothing about these weights, one near 1 that they fixed them.",
        )
    ]
    if x is not None:
        before, after = (
            _outputs(p, likelihood, x, draw_key) for p in (prior, posterior)
        )
        label = "first output" if likelihood is None else "first target"
        blocks += [
            Picture(
                density_pair({"prior": before[:, i], "posterior": after[:, i]},
                             label=f"{label} in row {i}"),
                "What the model believed before and after the data.",
            )
            for i in range(min(2, before.shape[1]))
        ]  # fmt: skip
    return Section("The prior beside the posterior", blocks)


def _spread(posterior: AbstractPosterior, key: PRNGKey) -> dict[str, float]:
    draws = jax.vmap(lambda k: _numbers(posterior.sample(key=k)))(
        example_keys(key, NUM_DRAWS)
    )
    return {
        name: float(np.asarray(leaf, np.float64).std(axis=0).mean())
        for name, leaf in tree.paths(draws).items()
    }


def _numbers(model: Any) -> PyTree:
    return jax.tree.map(
        lambda leaf: (
            leaf
            if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)
            else None
        ),
        model,
    )


def _outputs(posterior, likelihood, x, key) -> np.ndarray:
    """Draws of the first output, or of the first target, in the first rows."""
    rows = jax.tree.map(lambda a: np.asarray(a)[:2], x)
    # Without a likelihood only the outputs are read, and any will do.
    kind = likelihood or posterior.output_likelihood or NormalLikelihood(1.0)
    predictive = predict(posterior, kind, rows, key=key, num_samples=NUM_DRAWS)
    if likelihood is None:
        leaf = jax.tree.leaves(predictive.outputs)[0]
        return np.asarray(leaf, np.float64).reshape(*leaf.shape[:2], -1)[..., 0].T
    draws = jax.vmap(lambda k: predictive.sample(key=k))(example_keys(key, NUM_DRAWS))
    leaf = np.asarray(jax.tree.leaves(draws)[0], np.float64)
    return leaf.reshape(*leaf.shape[:2], -1)[..., 0]
