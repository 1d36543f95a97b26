"""States of an earlier run, carried over to a learner whose settings may be new."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import PyTree

from .._checks import path_name
from .._types import State


def carry_over(state: State, fresh: State, *, reset: str | Sequence[str] = ()) -> State:
    """Return the arrays of a state in the structure of a fresh one.

    Settings that are no arrays are those of `fresh`.

    **Arguments:**

    - `state`: from an earlier run.
    - `fresh`: what the learner's `init` returns now.
    - `reset`: paths of parts that begin anew, such as `"opt_state"`.

    **Raises:** `ValueError` that names the leaves in which the two differ, or the
    hyper-parameters that have two values.
    """
    names = (reset,) if isinstance(reset, str) else tuple(reset)
    kept, wanted = arrays_by_path(state), arrays_by_path(fresh)
    for name in names:
        if not any(_is_under(path, name) for path in (*wanted, *kept)):
            parts = ", ".join(sorted({path.split(".")[0] for path in kept}))
            raise ValueError(
                f"reset={name!r} is no part of the learner's state: it has {parts}, "
                "and parts of these, such as 'opt_state.0'"
            )

    def carried(paths):
        return [p for p in paths if not any(_is_under(p, name) for name in names)]

    _check_leaves(carried(kept), carried(wanted), kept, wanted)
    _check_constants(carried(constants(fresh)), kept, wanted)
    chosen = set(carried(wanted))

    def one(path, leaf):
        name = path_name(path)
        return kept[name] if name in chosen and eqx.is_array(leaf) else leaf

    return jax.tree_util.tree_map_with_path(one, fresh)


def arrays_by_path(state: PyTree) -> dict[str, Any]:
    """Return the arrays of a tree by their path, such as `opt_state.0.count`."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {path_name(path): leaf for path, leaf in leaves if eqx.is_array(leaf)}


def constants(state: PyTree) -> list[str]:
    """Return paths of the constants that `optax.inject_hyperparams` has in its state.

    Training never changes them. Scheduled hyper-parameters are computed at each step.
    """

    def is_injected(node):
        return isinstance(node, optax.InjectStatefulHyperparamsState)

    found = []
    nodes = jax.tree_util.tree_leaves_with_path(state, is_leaf=is_injected)
    for path, node in nodes:
        if is_injected(node):
            fixed = set(node.hyperparams) - set(node.hyperparams_states)
            found += [f"{path_name(path)}.hyperparams.{name}" for name in sorted(fixed)]
            inner = constants(node.inner_state)
            found += [f"{path_name(path)}.inner_state.{name}" for name in inner]
    return found


def _check_leaves(given, expected, kept, wanted):
    problems = [f"the state lacks {name}" for name in expected if name not in kept]
    problems += [f"the learner has no {name}" for name in given if name not in wanted]
    for name in expected:
        if name not in kept:
            continue
        old, new = kept[name], wanted[name]
        if old.shape != new.shape or old.dtype != new.dtype:
            problems.append(
                f"{name} is {old.dtype}{list(old.shape)} in the state, and the learner "
                f"needs {new.dtype}{list(new.shape)}"
            )
    if not problems:
        return
    shown = "; ".join(problems[:4]) + ("; ..." if len(problems) > 4 else "")
    raise ValueError(
        f"the state is of another model or optimiser: {shown}. Give the learner and "
        "the model that the state was made with; or begin a part anew by its name, "
        "such as fit(..., state=state, step=step, reset='opt_state')"
    )


def _check_constants(paths, kept, wanted):
    for path in paths:
        old, new = np.asarray(kept[path]), np.asarray(wanted[path])
        if not np.array_equal(old, new):
            # Either may be meant: a new setting, or a state that was edited.
            raise ValueError(
                f"{path} is {old.tolist()} in the state, and {new.tolist()} in the "
                "optimiser: give the optimiser the value of the state, or take that of "
                f"the optimiser, reset={path!r}"
            )


def _is_under(path, name):
    return path == name or path.startswith(f"{name}.")
