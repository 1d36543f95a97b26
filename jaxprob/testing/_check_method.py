"""Conformance of an inference method to what the engine and `predict` rely on."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from .._training.batch import Batch, num_rows
from .._types import Model, PRNGKey
from ..bnn import AbstractInference, AbstractPosterior, predict
from ._contract import changed, finite, require, signature

_STEPS = 3


def check_method(
    method: AbstractInference,
    model: Model,
    data: PyTree,
    *,
    key: PRNGKey,
    num_steps: int = _STEPS,
) -> None:
    """Check that a method keeps the contract of `bnn.AbstractInference`.

    An author runs it on his class, in a test. It trains a few steps, so a small model
    and few rows are enough:

    ```python
    check_method(method, model, (x, y), key=key)
    ```

    1. `init` leaves the model as it is.
    2. `update` is pure and keeps structure, shapes and dtypes of the state, so that it
       is compiled once; all that it changes is an array; it does not change its
       arguments.
    3. `info` holds a finite `"loss"`, and every entry is one number.
    4. Padded rows of a `Batch` do not count: their values change nothing.
    5. `evaluate` returns a finite `"loss"` and changes nothing.
    6. `model(state)` has structure, shapes and dtypes of the model.
    7. `posterior(state, [data])` is an `AbstractPosterior` whose draws are models of
       that structure, finite, equal for equal keys; `predict` works with it.

    **Arguments:**

    - `method`: a small instance. A sampler gets all rows of `data` in each update.
    - `model`, `data`: as in `jaxprob.fit`.
    - `key`: of everything random.
    - `num_steps`: updates before the posterior; enough for a sampler to keep a draw.

    **Raises:** `ContractError` that names the broken clause.
    """
    init_key, step_key, posterior_key, draw_key = jax.random.split(key, 4)
    before = jax.tree.map(_copy, model)
    state = method.init(model, key=init_key)
    require(
        not changed(before, model),
        method,
        f"init changed the model at {', '.join(changed(before, model))}",
    )
    state = _check_updates(method, state, data, step_key, num_steps)
    _check_padding(method, state, data, step_key)
    _check_evaluate(method, state, data, step_key)
    found = method.model(state)
    require(
        signature(found) == signature(model),
        method,
        "model(state) has to have structure, shapes and dtypes of the model that init "
        f"was given; it has {signature(found)[1]} and the model {signature(model)[1]}",
    )
    posterior = method.posterior(state, [data], key=posterior_key)
    _check_posterior(method, posterior, model, data, draw_key)


def _copy(leaf):
    return leaf.copy() if eqx.is_array(leaf) else leaf


def _check_updates(method, state, data, key, num_steps):
    arrays, static = eqx.partition(state, eqx.is_array)
    traces = []

    @jax.jit
    def update(arrays, data, key):
        traces.append(1)
        state, info = method.update(eqx.combine(arrays, static), data, key=key)
        new, rest = eqx.partition(state, eqx.is_array)
        require(
            jax.tree.structure(rest) == jax.tree.structure(static)
            and not changed(rest, static),
            method,
            "update changed leaves of the state that are no arrays: "
            f"{', '.join(_others(rest, static))}. Make them arrays in init",
        )
        return new, info

    for step in range(num_steps):
        kept = jax.tree.map(_copy, arrays)
        new, info = update(arrays, data, jax.random.fold_in(key, step))
        again, _ = update(arrays, data, jax.random.fold_in(key, step))
        require(
            signature(new) == signature(arrays),
            method,
            "update has to return a state of the same structure, shapes and dtypes; "
            f"it was {signature(arrays)[1]} and is {signature(new)[1]}",
        )
        different = changed(new, again)
        require(
            not different,
            method,
            "update is not pure: the same state, batch and key gave other values of "
            f"{', '.join(different)}",
        )
        require(not changed(arrays, kept), method, "update changed its argument")
        _check_info(method, info, "update")
        arrays = new
    # The second trace is that of weak types, which the first state may have.
    require(
        len(traces) <= 2,
        method,
        f"update was traced {len(traces)} times for {num_steps} steps: the state that "
        "it returns is not one that it takes",
    )
    return eqx.combine(arrays, static)


def _others(rest, static):
    if jax.tree.structure(rest) != jax.tree.structure(static):
        return ["its structure"]
    return changed(rest, static)


def _check_info(method, info, name):
    require(
        "loss" in info, method, f"{name} has to return {{'loss': ...}}; it has {info}"
    )
    for entry, value in info.items():
        require(
            np.ndim(value) == 0,
            method,
            f"{name} returns {entry!r} of shape {np.shape(value)}, not one number",
        )
    require(
        bool(np.isfinite(info["loss"])), method, f"{name} has the loss {info['loss']}"
    )


def _check_padding(method, state, data, key):
    rows = num_rows(data)
    mask = np.arange(rows + 2) < rows

    def padded(copies):
        def pad(leaf):
            leaf = np.asarray(leaf)
            return np.concatenate([leaf, leaf[copies]])

        return Batch(jax.tree.map(pad, data), mask)

    first, _ = method.update(state, padded([0, 0]), key=key)
    second, _ = method.update(state, padded([rows - 1, rows // 2]), key=key)
    different = changed(first, second)
    require(
        not different,
        method,
        "rows that a Batch masks changed the state at "
        f"{', '.join(different[:5])}: weigh the rows by the mask (jaxprob.unpack), "
        "as LogJoint does",
    )


def _check_evaluate(method, state, data, key):
    kept = jax.tree.map(_copy, state)
    _check_info(method, method.evaluate(state, data, key=key), "evaluate")
    require(not changed(kept, state), method, "evaluate changed the state")


def _check_posterior(method, posterior, model, data, key):
    require(
        isinstance(posterior, AbstractPosterior),
        method,
        f"posterior is a {type(posterior).__name__}: an AbstractPosterior is needed",
    )
    draw, again = posterior.sample(key=key), posterior.sample(key=key)
    for name, found in (("sample", draw), ("mean", posterior.mean())):
        require(
            signature(found) == signature(model),
            posterior,
            f"{name} has to return a model of the same structure, shapes and dtypes; "
            f"it has {signature(found)[1]} and the model {signature(model)[1]}",
        )
        require(finite(found), posterior, f"{name} is not finite")
    require(
        not changed(draw, again), posterior, "sample differs for one and the same key"
    )
    inputs: Any = data[0]
    outputs = predict(
        posterior, method.log_joint.likelihood, inputs, key=key, num_samples=2
    )
    require(finite(outputs), posterior, "predict is not finite")
