"""The user's loss: its call, and checks of its parameters and results."""

import abc
import inspect
import numbers
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._types import Info, Loss, Model, PRNGKey

_CONCRETE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
_FORM = "loss(model, batch, *, key) -> (scalar, metrics)"


class AbstractCheckedLoss(eqx.Module):
    """Base class of a loss that checks data sets before anything is trained."""

    @abc.abstractmethod
    def __call__(self, model: Model, batch: PyTree, *, key: PRNGKey) -> Any:
        """Return the loss of a batch, as `GradientDescent` takes it."""

    @abc.abstractmethod
    def check(self, model: Model, data: PyTree) -> None:
        """Check a whole data set.

        **Raises:** `ValueError` or `TypeError` that names the row.
        """


def check_by_loss(loss: Loss, model: Model, data: PyTree) -> None:
    """Check a data set by a loss, if that is an `AbstractCheckedLoss`."""
    if isinstance(loss, AbstractCheckedLoss):
        loss.check(model, data)


def counts_of(loss: Any) -> list[str]:
    """Return which of `"step"` and `"epoch"` are parameters of a loss."""
    try:
        parameters = inspect.signature(loss).parameters
    except (TypeError, ValueError):  # builtins have no signature
        return []
    return [name for name in ("step", "epoch") if name in parameters]


def check_loss(name: str, loss: Any) -> None:
    """Check that a loss can be called as `GradientDescent` calls it.

    **Raises:** `TypeError` that names the argument and the signature to write.
    """
    if not callable(loss):
        raise TypeError(
            f"{name} is a {type(loss).__name__}, which cannot be called: write "
            f"GradientDescent(loss, optimizer) with {_FORM}"
        )
    try:
        signature = inspect.signature(loss)
    except (TypeError, ValueError):
        return
    extra = dict.fromkeys(counts_of(loss))
    try:
        signature.bind(None, None, key=None, **extra)
    except TypeError as error:
        raise TypeError(
            f"{name} has the signature {getattr(loss, '__name__', 'loss')}{signature} "
            f"and is called as loss(model, batch, key=key) ({error}): write {_FORM}. "
            "A loss that needs the number of updates made so far, or that of the "
            "epoch, adds step or epoch: loss(model, batch, *, key, step, epoch)"
        ) from None


def loss_output(
    loss: Loss,
    model: Model,
    batch: PyTree,
    *,
    key: PRNGKey,
    **counts: Any,
) -> Any:
    """Call a loss, with `step` and `epoch` if it has these parameters.

    **Raises:** `TypeError` for a loss that makes a Python value of an array.
    """
    extra = {name: counts[name] for name in counts_of(loss)}
    try:
        return loss(model, batch, key=key, **extra)
    except _CONCRETE as error:
        raise TypeError(
            "the loss makes a Python value of an array, which has no value while the "
            "step is compiled (float(), int(), .item(), an `if`, a NumPy function): "
            "use functions of jax.numpy, such as jnp.where, and return arrays as "
            f"metrics. JAX says: {str(error).splitlines()[0]}"
        ) from error


def call_loss(
    loss: Loss,
    model: Model,
    batch: PyTree,
    *,
    key: PRNGKey,
    step: Int[Array, ""],
    epoch: Int[Array, ""] | None = None,
) -> tuple[Float[Array, ""], Info, PyTree | None]:
    """Call a loss and check its value and its metrics.

    **Returns:** the value, the metrics as arrays, and the new running statistics or
    `None`.

    **Raises:** `TypeError` or `ValueError` for a result of another form, which names
    the metric.
    """
    out = loss_output(loss, model, batch, key=key, step=step, epoch=epoch)
    if not isinstance(out, tuple) or len(out) != 2:
        what = f"{len(out)} values" if isinstance(out, tuple) else _kind(out)
        raise TypeError(
            f"the loss returned {what}: return (scalar, metrics), such as (value, {{}})"
        )
    value, aux = out
    if not _is_number(value):
        raise TypeError(
            f"the loss returned {_kind(value)} as its value: return one real number, "
            "such as the mean over the batch"
        )
    value = jnp.asarray(value)
    if value.shape:
        raise ValueError(
            f"the loss has shape {value.shape}: return one number, such as its mean "
            "over the batch. jaxprob.mean_loss takes the loss of one example"
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(
            f"the loss has dtype {value.dtype}: a gradient needs a real floating-point "
            "number"
        )
    metrics, statistics = aux if isinstance(aux, tuple) else (aux, None)
    return value, checked_metrics(metrics), statistics


def checked_metrics(metrics: Any) -> Info:
    """The metrics of a loss as arrays of shape `()`.

    **Raises:** `TypeError` or `ValueError` that names the metric: for a reserved name,
    two names that loggers would show as one, and a value that is not one real number.
    """
    if not isinstance(metrics, Mapping):
        raise TypeError(
            f"the loss returned {_kind(metrics)} as its metrics: return (scalar, "
            "metrics) with a dictionary of numbers by name, which may be empty"
        )
    if "loss" in metrics:
        raise ValueError(
            "a metric is named 'loss', which is the name of the loss itself: name it "
            "otherwise, such as 'my_loss'"
        )
    _check_names({"loss", *metrics})
    return {name: _checked_metric(name, value) for name, value in metrics.items()}


def checked_info(info: Any) -> dict[str, Array]:
    """Return the metrics of a learner's `update` or `evaluate` as arrays.

    A metric has one number, or one for each member.

    **Raises:** `TypeError` that names the metric.
    """
    if not isinstance(info, Mapping):
        raise TypeError(
            f"the learner's info is {_kind(info)}: give a dictionary of numbers by "
            "name, with 'loss' among them"
        )
    _check_names(set(info))
    for name, value in info.items():
        if not _is_number(value):
            raise TypeError(
                f"the learner's info[{name!r}] is {_kind(value)}: a metric is a real "
                "number, or one for each member"
            )
    return {name: jnp.asarray(value) for name, value in info.items()}


def _check_names(names):
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"the name of a metric is {name!r}: it must be a string")
        if name == "step":
            raise ValueError(
                "a metric is named 'step', which is the name of the number of the "
                "step: name it otherwise, such as 'my_step'"
            )
        for affix, other in (
            ("'_step' after", name.removesuffix("_step")),
            ("'val_' before", name.removeprefix("val_")),
        ):
            if other != name and other in names:
                raise ValueError(
                    f"the metrics {other!r} and {name!r} collide: logs write {affix} "
                    "the name of the first. Name the second otherwise"
                )


def _checked_metric(name, value):
    if not _is_number(value):
        raise TypeError(
            f"metrics[{name!r}] is {_kind(value)}: a metric is one real number, the "
            "mean over the batch"
        )
    value = jnp.asarray(value)
    if value.shape:
        raise ValueError(
            f"metrics[{name!r}] has shape {value.shape}: a metric is one number. Give "
            f"its mean, or one metric for each entry, such as '{name}_0'"
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        value = value.astype(jnp.result_type(float))  # of counts and hits: a mean
    return value


def _is_number(value):
    if isinstance(value, numbers.Real | np.bool_):
        return True
    is_array = isinstance(value, jax.Array | np.ndarray | np.generic)
    return is_array and (
        jnp.issubdtype(value.dtype, jnp.floating)
        or jnp.issubdtype(value.dtype, jnp.integer)
        or value.dtype == bool
    )


def _kind(value):
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return f"an array of dtype {value.dtype} and shape {value.shape}"
    return f"a {type(value).__name__}"
