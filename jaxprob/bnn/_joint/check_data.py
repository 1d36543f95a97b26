"""Check of a data set against a likelihood, before anything is traced."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ..._checks import check_arrays, check_labels, check_tree_values
from ..._training.batch import num_rows
from ..._training.non_finite import not_finite
from ..._types import Model
from .._weights.apply import call_model
from .._weights.random_leaves import mean_leaves
from .._weights.running_statistics import Stateful
from .._weights.unconstrained import constrained
from .families import base, family_of
from .joint_distribution import check_names
from .joint_likelihood import JointLikelihood, PartLikelihood
from .likelihood import AbstractLikelihood, Likelihood
from .row import check_weights
from .target import check_target, is_masked, observe


def check_data(
    x: Any,
    y: Any,
    weight: Any = None,
    *,
    likelihood: Likelihood,
    model: Model | None = None,
    apply: Callable[..., Any] = call_model,
) -> None:
    """Check a data set against a likelihood before anything is trained.

    With a model, the distribution of the first row determines which shape, dtype and
    values y may have, for every likelihood.

    ```python
    check_data(x, y, likelihood=CategoricalLikelihood(), model=model)
    ```

    **Arguments:**

    - `x`, `y`, `weight`: the data set.
    - `likelihood`: that of the model.
    - `model`: the model to be trained; without one fewer checks are possible.
    - `apply`: as in `LogJoint`.

    **Raises:** `ValueError` or `TypeError` for different lengths, no rows, NaN or
    infinite values, integers where real numbers are needed and the reverse, a
    label outside the classes, or shapes that would broadcast; the message names the
    argument, the row and the remedy. `ValueError` for a model whose first output is not
    finite; the message names the leaf.
    """
    check_tree_values("x", x)
    check_tree_values("y", y)
    RowCheck(likelihood, model, apply)(x, y, weight)


class RowCheck:
    """Check of rows against a likelihood: of a whole data set, or batch after batch.

    The model is called once, with the first row.

    **Arguments:** as in `check_data`.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        model: Model | None = None,
        apply: Callable[..., Any] = call_model,
    ):
        self._likelihood = likelihood
        self._model = model
        self._apply = apply
        self._mean: Model = None
        self._first: Any = None  # the distribution of the first row
        self._target: Any = None  # shape and dtype that it has been compared with
        self._parts: dict[str, RowCheck] = {}
        if isinstance(likelihood, JointLikelihood):
            self._parts = {
                name: RowCheck(PartLikelihood(likelihood, name), model, apply)
                for name in likelihood.names
            }

    def __call__(self, x: Any, y: Any, weight: Any = None) -> None:
        """Check rows.

        **Raises:** as `check_data`.
        """
        if weight is not None:
            check_weights(weight, num_rows(x))
        if not self._parts:
            return self._check(x, y)
        check_names(y, tuple(self._parts), "y")
        for name, check in self._parts.items():
            try:
                check(x, y[name])
            except (TypeError, ValueError) as error:
                error.add_note(f"This is about the target {name!r}.")
                raise

    def _check(self, x, y):
        y, observed = self._observed(x, y)
        (y,) = check_arrays(y=y)
        rows = num_rows(x)
        if rows != len(y):
            raise ValueError(
                f"x has {rows} rows and y has {len(y)}: they have to agree"
            )
        if observed is not None and not observed.any():
            return
        for leaf in jax.tree.leaves(x):
            if np.asarray(leaf).dtype.kind in "OSU":
                raise TypeError(
                    f"x is {np.asarray(leaf).dtype}: an array of numbers is needed, so "
                    "encode strings as integers for an embedding, or one-hot"
                )
        likelihood: Any = self._likelihood
        if isinstance(likelihood, PartLikelihood):
            likelihood = likelihood.part
        if isinstance(likelihood, AbstractLikelihood):
            likelihood.check_targets(y)
        if self._model is None:
            return
        if self._first is None:
            self._first = self._distribution(x)
        if self._target != (y.shape[1:], y.dtype):
            check_target(self._first, jnp.asarray(y[0]))
            self._target = y.shape[1:], y.dtype
        family = family_of(self._first)
        if family.is_classification and not family.is_binary:
            check_labels("y", y, family.probs(base(self._first)).shape[-1])
        self._check_support(x, y, observed)

    def _observed(self, x, y):
        """Targets with an observed value in place of each missing one, and the mask."""
        if not is_masked(y):
            return y, None
        values, observed = check_arrays(y=y[0], observed=y[1])
        if self._model is not None:
            if self._first is None:
                self._first = self._distribution(x)
            observe(self._first, (values[0], observed[0]))  # its shape and dtype
        flat = observed.reshape(-1)
        if observed.shape != values.shape[: observed.ndim] or not flat.any():
            return values, observed
        each = values.reshape(flat.shape + values.shape[observed.ndim :])
        fill = each[np.argmax(flat)]
        keep = observed.reshape(observed.shape + (1,) * (values.ndim - observed.ndim))
        return np.where(keep, values, fill), observed

    def _distribution(self, x):
        """The distribution of the first row, after the checks of the model's call."""
        first = jax.tree.map(lambda a: jnp.asarray(a[0]), x)
        self._mean = mean = eqx.nn.inference_mode(constrained(mean_leaves(self._model)))
        apply = self._apply
        try:
            _check_numbers(x, first, lambda x: apply(mean, x, key=jax.random.key(0)))
            output = _call(apply, mean, first)
        except Exception as error:
            shapes = ", ".join(str(np.shape(leaf)) for leaf in jax.tree.leaves(first))
            note = (
                f"The model was called with one row of x, of shape {shapes}, because "
                "it has to take one example. For one feature a row write x[:, None]."
            )
            if not isinstance(self._model, Stateful) and _keeps_state(self._model):
                note = (
                    "The model has state, as BatchNorm does, which has to be part of "
                    "it: give bnn.Stateful(*eqx.nn.make_with_state(Net)(...))."
                )
            error.add_note(note)
            raise
        _check_output(mean, output)
        return self._likelihood(output)

    def _check_support(self, x, y, observed):
        support = self._first.support

        def distribution(x):
            out = self._apply(self._mean, x, key=jax.random.key(0))
            return self._likelihood(out)

        if any(map(eqx.is_array, jax.tree.leaves(support))):
            # The output may set bounds for each row, such as a number of trials.
            data = jax.tree.map(jnp.asarray, (x, y))
            allowed = eqx.filter_jit(_allowed)(distribution, data)
        elif support is dist.constraints.real:
            return  # the values are finite
        else:
            allowed = support(y)
        if observed is not None:
            allowed = allowed | ~observed
        inside = np.asarray(allowed).reshape(len(y), -1).all(axis=1)
        if not inside.all():
            row = int(np.flatnonzero(~inside)[0])
            p = distribution(jax.tree.map(lambda a: jnp.asarray(a[row]), x))
            raise ValueError(
                f"y row {row} is {y[row]}, outside the support of {type(p).__name__}: "
                f"{p.support}. Correct the row, or use another likelihood."
            )


@eqx.filter_jit
def _call(apply, model, x):
    return apply(model, x, key=jax.random.key(0))


def _allowed(distribution, data):
    """Flags of the rows whose y is in the support of their distribution."""

    def one(row):
        x, y = row
        return distribution(x).support(y)

    return jax.lax.map(one, data, batch_size=256)


def _keeps_state(model):
    def is_kept(node):
        return isinstance(node, eqx.nn.StateIndex)

    return any(map(is_kept, jax.tree.leaves(model, is_leaf=is_kept)))


def _check_output(model, output):
    """Reject a model whose first output is not finite, and name its leaf."""
    if not not_finite(output):
        return
    leaves = not_finite(model)
    why = f"its leaf {leaves[0]} is not finite" if leaves else "its leaves are finite"
    raise ValueError(
        f"before any training the model's output for the first row is {output}; {why}. "
        "Check its initial weights and the scale of x."
    )


def _check_numbers(x, first, call):
    """Reject integers that the model multiplies by floating-point weights.

    Strict promotion distinguishes them: indices of an embedding pass, products fail.
    """
    leaves = jax.tree.leaves(x)
    whole = [a for a in leaves if not jnp.issubdtype(a.dtype, jnp.inexact)]
    if not whole:
        return
    try:
        with jax.numpy_dtype_promotion("strict"):
            jax.eval_shape(call, first)
    except jax.dtypes.TypePromotionError:
        raise TypeError(
            f"x is {whole[0].dtype} and the model multiplies it by floating-point "
            "weights: write x.astype(np.float32)"
        ) from None
