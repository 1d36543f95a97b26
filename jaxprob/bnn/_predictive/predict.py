"""From a posterior over models to a distribution over y."""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..._checks import check_tree_values
from ..._random.keys import check_key
from ..._training.batch import num_rows
from ..._types import PRNGKey
from .._joint.likelihood import Likelihood, check_likelihood
from .._joint.log_joint import LogJoint
from .._joint.output_link import LinkedApply, output_link
from .._posterior.linearized import backwards, forwards, lacks_forward_rule
from .._posterior.posterior import AbstractPosterior
from .._weights.apply import call_model
from .._weights.scale import is_traced
from .check_linearised import can_leave, check_linearised, checked_linearised
from .predictive import Predictive, pad

NUM_SAMPLES = 100
KEEP_BYTES = 2**24
CHUNK_BYTES = 2**20


def predict(
    posterior: AbstractPosterior,
    likelihood: Likelihood,
    x: PyTree,
    *,
    key: PRNGKey,
    num_samples: int | None = None,
    chunk_size: int = 1024,
    sample_batch: int = 8,
    linearized: bool | None = None,
    apply: Callable[..., Any] = call_model,
) -> Predictive:
    r"""The posterior predictive $p(y \mid x, \mathcal D) = \mathbb E_{w}[p(y \mid
    f_w(x))]$ as a mixture over posterior samples.

    ```python
    predictive = predict(posterior, likelihood, x_test, key=key, num_samples=200)
    lower, upper = predictive.interval(0.9)
    nll = -predictive.log_prob(y_test).mean()
    ```

    Rows are worked through in chunks, models a few at a time, so memory grows with
    `chunk_size` and hardly with `num_samples`. Outputs of up to 16 MB in all are kept;
    beyond that each statistic computes them again, with the same numbers.

    **Arguments:**

    - `posterior`: of any inference method.
    - `likelihood`: that of training.
    - `x`: rows to predict.
    - `key`: sample s is drawn with `fold_in(key, s)`, whatever the chunks are.
    - `num_samples`: S. By default 100; a posterior of finitely many models (a point,
        an ensemble, a chain) by default counts each of them once, which is exact.
    - `chunk_size`: rows at a time, or fewer where their outputs exceed a megabyte.
    - `sample_batch`: models at a time. Convolutions on a CPU want 1: those of several
        models side by side take several times as long there.
    - `linearized`: whether $f_w(x)$ is $f_{\bar w}(x) + J (w - \bar w)$, the network
        linearised at the posterior's mean, instead of the network itself. In a mixture
        it is the mean of the component that w is from. By default what the posterior
        asks for: `Laplace` does.
    - `apply`: as in `LogJoint`. Models are called in inference mode.

    **Returns:** a `Predictive`.
    """
    settings = {
        "key": key,
        "num_samples": num_samples,
        "chunk_size": chunk_size,
        "sample_batch": sample_batch,
        "linearized": linearized,
        "apply": apply,
    }
    if not isinstance(posterior, AbstractPosterior):
        raise TypeError(
            f"posterior is a {type(posterior).__name__}: predict takes what "
            "method.posterior(state) gives, and of one model PointPosterior(model)"
        )
    if isinstance(likelihood, LogJoint):
        raise TypeError("likelihood is a LogJoint: give log_joint.likelihood")
    check_likelihood(likelihood)
    check_key(key)
    x = jax.tree.map(_as_array, x)
    for leaf in jax.tree.leaves(x):
        if not hasattr(leaf, "shape"):
            raise TypeError(
                f"x holds a {type(leaf).__name__}: give arrays with one row for each "
                "prediction, such as np.asarray(x, np.float32)"
            )
    rows = num_rows(x)
    if rows == 0:
        raise ValueError("x has no rows to predict")
    for name, value in (
        ("num_samples", num_samples),
        ("chunk_size", chunk_size),
        ("sample_batch", sample_batch),
    ):
        whole = isinstance(value, int | np.integer)
        if value is not None and not (whole and value >= 1):
            raise ValueError(f"{name}={value}: a whole number, at least 1")
    if not any(is_traced(leaf) for leaf in jax.tree.leaves(x)):
        check_tree_values("x", x)
    if linearized is None:
        linearized = posterior.linearized
    posterior = posterior.factorised()
    exact = posterior.num_atoms is not None and num_samples is None
    num = posterior.num_atoms if exact else (num_samples or NUM_SAMPLES)
    assert num is not None
    shapes = _output_shapes(posterior, apply, x, key, linearized)
    link, leaves = None, False
    if linearized:
        link = output_link(likelihood, shapes)
        leaves = can_leave(likelihood, shapes)
    row_bytes = num * sum(
        math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(shapes)
    )
    # Statistics take several times the outputs of a chunk: with many models it is
    # fewer rows, so that memory does not grow with their number.
    chunk_size = min(chunk_size, rows, max(1, CHUNK_BYTES // max(row_bytes, 1)))
    # Equal blocks, so that one program serves all: 100 by 8 is 13 blocks of 8.
    block = math.ceil(num / math.ceil(num / sample_batch))

    def chunks() -> Iterator[tuple[PyTree, int]]:
        for start in range(0, rows, chunk_size):
            cut = slice(start, start + chunk_size)
            part = jax.tree.map(lambda a, cut=cut: jnp.asarray(a[cut]), x)
            count = num_rows(part)
            part = jax.tree.map(lambda a: pad(a, chunk_size), part)
            blocks = [
                _outputs(
                    posterior,
                    apply,
                    part,
                    key,
                    np.uint32(first),
                    block,
                    exact,
                    linearized,
                    link,
                )
                for first in range(0, num, block)
            ]
            joined = jax.tree.map(lambda *a: jnp.concatenate(a, 1)[:, :num], *blocks)
            if leaves and not any(map(is_traced, jax.tree.leaves(joined))):
                check_linearised(likelihood, joined)
            yield joined, count

    if row_bytes * rows <= KEEP_BYTES:
        kept: list[tuple[PyTree, int]] = []

        def source():
            if any(map(is_traced, jax.tree.leaves((posterior, x, key)))):
                return chunks()
            if not kept:
                # A statistic that is first asked for inside jit keeps numbers too.
                # Outside of jit the same context would fire `eqx.error_if` in models
                # that hold it, such as a diffrax solve, with nothing wrong.
                inside_jit = is_traced(jnp.zeros(()))
                numbers = jax.ensure_compile_time_eval if inside_jit else nullcontext
                with numbers():
                    kept.extend(chunks())
            return iter(kept)

    else:
        source = chunks

    def is_unrolled():
        """Whether a chunk would be a part of a program and not a call of one."""
        known = not any(map(is_traced, jax.tree.leaves((posterior, x, key))))
        keeps = known and row_bytes * rows <= KEEP_BYTES
        return is_traced(jnp.zeros(())) and not keeps

    def loop(function: Callable[..., PyTree], others: PyTree) -> PyTree:
        """`function(outputs, others)` over chunks of rows, models inside."""

        def one(chunk):
            part, others = chunk
            outputs = _loop_outputs(
                posterior, apply, part, key, num, block, exact, linearized, link
            )
            if leaves:
                outputs = checked_linearised(likelihood, outputs)
            return function(outputs, others)

        tiles = jax.tree.map(lambda a: _tiled(a, chunk_size), (x, others))
        out = jax.lax.map(one, tiles)
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:rows], out)

    def at(rows):
        return predict(posterior, likelihood, rows, **settings)

    return Predictive(
        source,
        likelihood,
        num_rows=rows,
        num_samples=num,
        chunk_size=chunk_size,
        at=at,
        loop=loop,
        is_unrolled=is_unrolled,
    )


@eqx.filter_jit
def _outputs(posterior, apply, x, key, first, block, exact, linearized, link):
    """Outputs of `block` models from number `first` on: rows, then samples."""
    index = first + jnp.arange(block, dtype=jnp.uint32)

    # A straight line would leave the outputs that the likelihood's arguments allow.
    call = apply if link is None else LinkedApply(link, apply)

    def one(s):
        out = _output(posterior, call, x, key, s, exact, linearized)
        return out if link is None else jax.vmap(link.forward)(out)

    return jax.vmap(one, out_axes=1)(index)


def _loop_outputs(posterior, apply, x, key, num, block, exact, linearized, link):
    """Outputs of all models as one loop, which is compiled as fast as one block.

    Inside a program of the caller's each call would be compiled by itself.
    """
    starts = jnp.arange(0, num, block, dtype=jnp.uint32)

    def one(first):
        return _outputs(posterior, apply, x, key, first, block, exact, linearized, link)

    def joined(a):
        a = jnp.moveaxis(a, 0, 1)
        return a.reshape(a.shape[0], -1, *a.shape[3:])[:, :num]

    return jax.tree.map(joined, jax.lax.map(one, starts))


def _tiled(array, size):
    """Rows in chunks of a size along a new leading axis, the last one padded."""
    array = jnp.asarray(array)
    tiles = -(-array.shape[0] // size)
    array = pad(array, tiles * size)
    return array.reshape(tiles, size, *array.shape[1:])


def _output(posterior, apply, x, key, s, exact, linearized):
    model_key, call_key = jax.random.split(jax.random.fold_in(key, s))
    if exact:
        model = posterior.atom(s)
        mean = posterior.mean() if linearized else None
    elif linearized:
        model, mean = posterior.linearisation_point(key=model_key)
    else:
        model, mean = posterior.sample(key=model_key), None
    model = eqx.nn.inference_mode(model)

    def direct(row):
        return apply(model, row, key=call_key)

    if not linearized:
        return jax.vmap(direct)(x)
    mean = eqx.nn.inference_mode(mean)

    def linearized_by(rule):
        return lambda row: rule(lambda m: apply(m, row, key=call_key), mean, model)

    try:
        return jax.vmap(linearized_by(forwards))(x)
    except TypeError as error:
        if not lacks_forward_rule(error):
            raise
    # Row by row: only one Jacobian at a time is in memory.
    return jax.lax.map(linearized_by(backwards), x)


def _as_array(leaf):
    """What is no array and can be made one, such as a table of pandas or torch."""
    return (
        np.asarray(leaf)
        if hasattr(leaf, "__array__") and not eqx.is_array(leaf)
        else leaf
    )


def _output_shapes(posterior, apply, x, key, linearized):
    """Shapes and dtypes of one row's outputs."""
    row = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), x)
    first = jnp.zeros((), jnp.uint32)
    try:
        shapes = eqx.filter_eval_shape(
            _output, posterior, apply, row, key, first, False, linearized
        )
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise
        given = ", ".join(str(a.shape) for a in jax.tree.leaves(x))
        one = ", ".join(str(a.shape[1:]) for a in jax.tree.leaves(x))
        raise type(error)(
            f"x has shape {given}, and the model cannot be called with one row of it, "
            f"of shape {one}. Give x with a leading axis of rows, each an input of the "
            f"model; one input alone is x[None]. The model says: {error}"
        ) from error
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), shapes)
