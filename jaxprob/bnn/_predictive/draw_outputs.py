"""Outputs of models drawn from a posterior."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num, PyTree

from ..._types import PRNGKey
from .._joint.likelihood import Likelihood
from .._joint.output_link import LinkedApply, OutputLink, output_link
from .._posterior.linearized import backwards, forwards, lacks_forward_rule
from .._posterior.posterior import AbstractPosterior
from .check_linearised import can_leave, check_linearised, checked_linearised
from .row_batches import inside_program

NUM_SAMPLES = 100


class DrawOutputs(eqx.Module):
    """The function that draws models and calls them on rows.

    **Fields:**

    - `posterior`: factorised.
    - `apply`, `linearized`: as in `predict`.
    - `key`: model s is drawn with `fold_in(key, s)`.
    - `num_samples`: number of models.
    - `model_batch_size`: models at a time.
    - `exact`: each model of a posterior of finitely many is used once.
    - `row_bytes`: of one row's outputs.
    - `link`: coordinates in which the outputs are linearised, if not in themselves.
    - `likelihood`: checks linearised outputs; `None` where they cannot be wrong.
    """

    posterior: AbstractPosterior
    apply: Callable[..., Any]
    key: PRNGKey
    num_samples: int = eqx.field(static=True)
    model_batch_size: int = eqx.field(static=True)
    exact: bool = eqx.field(static=True)
    linearized: bool = eqx.field(static=True)
    row_bytes: int = eqx.field(static=True)
    link: OutputLink | None
    likelihood: Likelihood | None

    def __init__(
        self,
        posterior: AbstractPosterior,
        likelihood: Likelihood,
        x: PyTree,
        *,
        key: PRNGKey,
        num_samples: int | None,
        model_batch_size: int,
        linearized: bool,
        apply: Callable[..., Any],
    ):
        self.posterior = posterior = posterior.factorised()
        self.apply = apply
        self.key = key
        self.linearized = linearized
        self.exact = posterior.num_atoms is not None and num_samples is None
        num = posterior.num_atoms if self.exact else (num_samples or NUM_SAMPLES)
        assert num is not None
        self.num_samples = num
        # Equal batches, so that one program serves all: 100 by 8 is 13 batches of 8.
        self.model_batch_size = math.ceil(num / math.ceil(num / model_batch_size))
        shapes = _output_shapes(posterior, apply, x, key, linearized)
        self.row_bytes = num * sum(
            math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(shapes)
        )
        self.link = output_link(likelihood, shapes) if linearized else None
        checks = linearized and can_leave(likelihood, shapes)
        self.likelihood = likelihood if checks else None

    def __call__(self, x: PyTree) -> PyTree[Num[Array, "rows samples ..."]]:
        """Return the outputs of all models for rows.

        **Raises:** `ValueError` where linearised outputs leave what the likelihood
        takes; inside a program an error at run time.
        """
        inside = inside_program((self.posterior, self.key, x))
        outputs = self._in_program(x) if inside else self._by_calls(x)
        if self.likelihood is None:
            return outputs
        if inside:
            return checked_linearised(self.likelihood, outputs)
        check_linearised(self.likelihood, outputs)
        return outputs

    def _by_calls(self, x):
        """One call of a compiled program for each batch of models."""
        blocks = [
            self._block(x, np.uint32(first))
            for first in range(0, self.num_samples, self.model_batch_size)
        ]
        num = self.num_samples
        return jax.tree.map(lambda *a: jnp.concatenate(a, 1)[:, :num], *blocks)

    def _in_program(self, x):
        """All batches of models as one loop, which is compiled as fast as one batch.

        Inside a program of the caller's each call would be compiled separately.
        """
        num, size = self.num_samples, self.model_batch_size
        starts = jnp.arange(0, num, size, dtype=jnp.uint32)

        def joined(a):
            a = jnp.moveaxis(a, 0, 1)
            return a.reshape(a.shape[0], -1, *a.shape[3:])[:, :num]

        return jax.tree.map(joined, jax.lax.map(lambda s: self._block(x, s), starts))

    def _block(self, x, first):
        return _outputs(
            self.posterior,
            self.apply,
            x,
            self.key,
            first,
            self.model_batch_size,
            self.exact,
            self.linearized,
            self.link,
        )


@eqx.filter_jit
def _outputs(posterior, apply, x, key, first, block, exact, linearized, link):
    """Outputs of `block` models from number `first` on: rows, then samples."""
    index = first + jnp.arange(block, dtype=jnp.uint32)

    # A linear function would leave the constraints of the likelihood's arguments.
    call = apply if link is None else LinkedApply(link, apply)

    def one(s):
        out = _output(posterior, call, x, key, s, exact, linearized)
        return out if link is None else jax.vmap(link.forward)(out)

    return jax.vmap(one, out_axes=1)(index)


def _output(posterior, apply, x, key, s, exact, linearized):
    model_key, call_key = jax.random.split(jax.random.fold_in(key, s))
    if exact and linearized:
        model, mean = posterior.atom_linearisation_point(s)
    elif exact:
        model, mean = posterior.atom(s), None
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
    # Row by row, so that only one Jacobian is in memory.
    return jax.lax.map(linearized_by(backwards), x)


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
