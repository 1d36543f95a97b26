"""Check that linearised outputs are ones that the likelihood takes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

from ..._jaxpr.depends import AFFINE, CONSTANT, levels
from .._joint.arguments import Argument, arguments, is_real, violates
from .._joint.likelihood import AbstractLikelihood, Likelihood


def can_leave(likelihood: Likelihood, output: PyTree) -> bool:
    """Return whether some outputs might give arguments that are not allowed.

    **Arguments:**

    - `likelihood`: output -> distribution.
    - `output`: shapes and dtypes of one example's output.
    """
    if isinstance(likelihood, AbstractLikelihood) and likelihood.accepts_any_output:
        return False
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), output)
    real, rest = eqx.partition(zeros, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(real)
    kinds: list[bool] = []

    def values(flat):
        found = list(arguments(likelihood(eqx.combine(unravel(flat), rest))))
        kinds[:] = [is_real(argument.constraint) for argument in found]
        return [argument.value for argument in found]

    found = levels(values, flat)
    return any(
        level > CONSTANT and not (free and level == AFFINE)
        for level, free in zip(found, kinds, strict=True)
    )


def check_linearised(likelihood: Likelihood, outputs: PyTree) -> None:
    """Raise `ValueError` where linearised outputs leave what the likelihood takes.

    **Arguments:**

    - `likelihood`: output -> distribution.
    - `outputs`: rows, then draws.
    """
    shares = np.asarray(_shares(likelihood, outputs))
    if not shares.any():
        return
    first = jax.tree.map(lambda a: a[0, 0], outputs)
    worst = int(np.argmax(shares))
    names: list[Argument] = []

    def note(output):
        names.extend(arguments(likelihood(output)))

    # Traced, because numpyro raises an error for these values.
    jax.eval_shape(note, first)
    bad = names[worst]
    raise ValueError(
        f"the linearised outputs leave what the likelihood takes: {bad.name} of "
        f"{bad.owner} has to be {bad.constraint}, and in {shares[worst]:.1%} of rows "
        "and draws it is not. A function that keeps it there, such as softplus or "
        "softmax, is the last one of the model, and a straight line leaves it. Move "
        "that function from the model into the likelihood, as in lambda f: "
        "dist.Gamma(jnp.exp(f[0]), jnp.exp(f[1])); or predict(..., linearized=False), "
        "which draws weights"
    )


def checked_linearised(likelihood: Likelihood, outputs: PyTree) -> PyTree:
    """Return the outputs, with the check of `check_linearised` at run time."""
    return eqx.error_if(
        outputs,
        jnp.any(_shares(likelihood, outputs) > 0),
        "the linearised outputs leave what the likelihood takes. Move the model's last "
        "function, such as softplus or softmax, into the likelihood; or write "
        "predict(..., linearized=False), which draws weights",
    )


@eqx.filter_jit
def _shares(likelihood, outputs):
    def one(output):
        found = arguments(likelihood(output))
        return [violates(argument.constraint, argument.value) for argument in found]

    broken = jax.vmap(jax.vmap(one))(outputs)
    return jnp.stack([jnp.mean(flags, dtype=jnp.float32) for flags in broken])
