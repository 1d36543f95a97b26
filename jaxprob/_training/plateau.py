"""A learning rate that falls when a metric, such as that of validations, stands still.

`optax.contrib.reduce_on_plateau` reads the loss of each training batch. What a
validation measures is known once in an epoch, outside the compiled step: the loop that
validates changes the state by `observe`.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree


class PlateauState(eqx.Module):
    """State of `reduce_on_plateau`, with its settings.

    **Fields:**

    - `rate_scale`: factor of all updates.
    - `best_value`: the best value so far; of its negative if larger is better.
    - `plateau_count`: values since then, or since the last reduction.
    - `cooldown_count`: values that are still disregarded.
    - the others: the arguments.
    """

    rate_scale: Float[Array, "*members"]
    best_value: Float[Array, "*members"]
    plateau_count: Int[Array, "*members"]
    cooldown_count: Int[Array, "*members"]
    monitor: str = eqx.field(static=True)
    mode: str = eqx.field(static=True)
    factor: float = eqx.field(static=True)
    patience: int = eqx.field(static=True)
    rtol: float = eqx.field(static=True)
    atol: float = eqx.field(static=True)
    cooldown: int = eqx.field(static=True)
    min_scale: float = eqx.field(static=True)

    def observe(self, value: float) -> "PlateauState":
        """Return the state after one more value of the metric."""
        value = value if self.mode == "min" else -value
        best = self.best_value
        seen = jnp.asarray(value, best.dtype)
        margin = jnp.where(jnp.isfinite(best), self.rtol * jnp.abs(best), 0.0)
        improved = seen < best - margin - self.atol
        count = jnp.where(improved, 0, self.plateau_count + 1)
        cooling = self.cooldown_count > 0
        count = jnp.where(cooling, 0, count)
        reduced = count == self.patience
        lower = jnp.maximum(self.rate_scale * self.factor, self.min_scale)
        waiting = jnp.where(reduced, self.cooldown, 0)
        waiting = jnp.where(cooling, self.cooldown_count - 1, waiting)
        return eqx.tree_at(
            lambda s: (
                s.rate_scale,
                s.best_value,
                s.plateau_count,
                s.cooldown_count,
            ),
            self,
            (
                jnp.where(reduced, lower, self.rate_scale),
                jnp.where(improved, seen, best),
                jnp.where(reduced, 0, count).astype(jnp.int32),
                waiting.astype(jnp.int32),
            ),
        )


def reduce_on_plateau(
    monitor: str = "val_loss",
    *,
    mode: Literal["min", "max"] = "min",
    factor: float = 0.1,
    patience: int = 10,
    rtol: float = 1e-4,
    atol: float = 0.0,
    cooldown: int = 0,
    min_scale: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Return a transformation whose scale falls when a metric stands still.

    ```python
    optimizer = optax.chain(
        optax.adam(1e-3), jaxprob.reduce_on_plateau("val_loss", factor=0.5, patience=3)
    )
    ```

    `jaxprob.fit` reads the metric in each entry of its history, and a Trainer after
    each validation, or at the end of an epoch for the mean of a training metric. The
    rule is that of `optax.contrib.reduce_on_plateau`, which reads the loss of each
    training batch instead; the relative tolerance is of the absolute value, so that a
    negative log-likelihood may fall below zero.

    **Arguments:**

    - `monitor`: name of the metric: `"val_loss"`, `"train_loss"`, or any other that is
        logged with validations, such as `"val_accuracy"`.
    - `mode`: `"min"` if smaller values are better, `"max"` if larger ones are.
    - `factor`: of the scale, at each reduction.
    - `patience`: number of values without improvement after which it falls.
    - `rtol`, `atol`: a value has improved if it is below the best $b$ by more than
        rtol $|b|$ + atol.
    - `cooldown`: number of values that are disregarded after a reduction.
    - `min_scale`: smallest scale.

    **Raises:** `ValueError` from `fit` or a Trainer if there is no such metric.
    """
    if mode not in ("min", "max"):
        raise ValueError(f"mode={mode!r}: 'min' if smaller is better, or 'max'")
    if not 0.0 < factor < 1.0:
        raise ValueError(f"factor={factor}: between 0 and 1, such as 0.5")
    if patience < 1 or cooldown < 0:
        raise ValueError(
            f"patience={patience}, cooldown={cooldown}: numbers of values of the "
            "metric, patience at least 1"
        )

    def init(params):
        return PlateauState(
            rate_scale=jnp.ones((), jnp.float32),
            best_value=jnp.full((), math.inf, jnp.float32),
            plateau_count=jnp.zeros((), jnp.int32),
            cooldown_count=jnp.zeros((), jnp.int32),
            monitor=monitor,
            mode=mode,
            factor=factor,
            patience=patience,
            rtol=rtol,
            atol=atol,
            cooldown=cooldown,
            min_scale=min_scale,
        )

    def update(updates, state, params=None, **extra):
        scale = state.rate_scale
        return jax.tree.map(lambda u: scale.astype(u.dtype) * u, updates), state

    # To optax a state is a tuple or an array; any pytree works.
    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore


def monitors(state: PyTree) -> list[str]:
    """Return the names of the metrics that a state waits for."""
    nodes = jax.tree.leaves(state, is_leaf=_is_plateau)
    return sorted({node.monitor for node in nodes if _is_plateau(node)})


def observe(state: PyTree, metrics: Mapping[str, Any]) -> PyTree:
    """Return a learner's state after metrics were measured.

    **Arguments:**

    - `metrics`: by name. A monitor that is not among them does not change.
    """

    def one(node):
        if not _is_plateau(node) or node.monitor not in metrics:
            return node
        return node.observe(float(metrics[node.monitor]))

    return jax.tree.map(one, state, is_leaf=_is_plateau)


def check_monitors(names: list[str], known: Any) -> None:
    """Check that metrics have been measured.

    **Raises:** `ValueError` that lists the metrics there are.
    """
    for name in names:
        if name not in known:
            raise ValueError(
                f"jaxprob.reduce_on_plateau({name!r}): there is no metric {name!r}. "
                f"Give validation data, or one of {', '.join(sorted(known))}"
            )


def _is_plateau(node):
    return isinstance(node, PlateauState)
