r"""Coordinates in which outputs that are probabilities, rates or scales are unbounded.

A model that ends in a softmax, an exponential function or a softplus has outputs that
a straight line leaves: linearised, its probabilities run from -0.9 to 1.9. They are
linearised as logits or logarithms instead, $g^{-1}(f) + J (w - \hat w)$, and mapped
back by the link g. A softmax, a sigmoid or an exponential function is so undone
exactly; for other functions the link is that of the distribution's constraint.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree
from numpyro.distributions import biject_to, constraints

from ..._jaxpr.depends import AFFINE, levels
from ...tree._single import single
from .arguments import arguments, elementwise, is_real
from .likelihood import Likelihood

PROBE = 0.3


class Group(eqx.Module):
    """Outputs that are an affine function of one argument of the distribution.

    **Fields:**

    - `place`: index of that argument among the constrained ones.
    - `columns`: indices of the outputs in the flat vector of all.
    - `constraint`: the argument's.
    - `inverse`, `offset`: the outputs are `inverse @ (argument - offset)`.
    """

    place: int = eqx.field(static=True)
    columns: tuple[int, ...] = eqx.field(static=True)
    constraint: Any
    inverse: Float[np.ndarray | Array, "outputs arguments"]
    offset: Float[np.ndarray | Array, " arguments"]


class OutputLink(eqx.Module):
    """The unconstrained coordinates of a likelihood's outputs.

    **Fields:**

    - `likelihood`: of the outputs themselves.
    - `groups`: constrained outputs.
    - `size`: how many numbers one example's output has.
    - `unravel`: from that vector to an output.
    """

    likelihood: Likelihood
    groups: tuple[Group, ...]
    size: int = eqx.field(static=True)
    unravel: Callable[[Array], PyTree] = eqx.field(static=True)

    @property
    def columns(self) -> list[int]:
        """Indices of all constrained outputs in the flat vector."""
        return [c for group in self.groups for c in group.columns]

    @property
    def others(self) -> np.ndarray:
        """Indices of the unconstrained outputs."""
        return np.setdiff1d(np.arange(self.size), self.columns)

    def inverse(self, output: PyTree) -> PyTree:
        """Return the unconstrained coordinates of one example's output."""
        real, rest = eqx.partition(output, eqx.is_inexact_array)
        values = [a.value for a in constrained(self.likelihood, output)]
        free = [unconstrain(g.constraint, values[g.place]) for g in self.groups]
        return ravel_pytree(real)[0][self.others], free, rest

    def forward(self, coordinates: PyTree) -> PyTree:
        """Return one example's output from its unconstrained coordinates."""
        others, free, rest = coordinates
        flat = jnp.zeros(self.size, others.dtype).at[self.others].set(others)
        for group, own in zip(self.groups, free, strict=True):
            value = jnp.ravel(constrain(group.constraint, own))
            inverse, offset = (
                jnp.asarray(a, value.dtype) for a in (group.inverse, group.offset)
            )
            outputs = inverse @ (value - offset)
            flat = flat.at[np.array(group.columns)].set(outputs.astype(flat.dtype))
        return eqx.combine(self.unravel(flat), rest)


class LinkedApply(eqx.Module):
    """Call of a model that returns unconstrained coordinates."""

    link: OutputLink
    apply: Callable[..., Any]

    def __call__(self, model, x, *, key):
        return self.link.inverse(self.apply(model, x, key=key))


class LinkedLikelihood(eqx.Module):
    """The likelihood of unconstrained coordinates."""

    link: OutputLink

    def __call__(self, coordinates):
        return self.link.likelihood(self.link.forward(coordinates))


def output_link(likelihood: Likelihood, output: PyTree) -> OutputLink | None:
    """Return the link of outputs that a distribution constrains; `None` if none is.

    An output is constrained where an argument that cannot be any real number, such as
    probabilities or a scale, is an affine function of it. Then no function in the
    likelihood enforces the constraint.

    **Arguments:**

    - `likelihood`: output -> distribution.
    - `output`: shapes and dtypes of one example's output.
    """
    with jax.ensure_compile_time_eval():
        real, rest = eqx.partition(jax.tree.map(_probe, output), eqx.is_inexact_array)
        flat, unravel = ravel_pytree(real)

    kinds: list[Any] = []

    def values(flat):
        found = constrained(likelihood, eqx.combine(unravel(flat), rest))
        kinds[:] = [argument.constraint for argument in found]
        return [argument.value for argument in found]

    affine = [level == AFFINE for level in levels(values, flat)]
    if not any(affine):
        return None
    with jax.ensure_compile_time_eval():
        # Traced: numpyro would raise an error for a probe that is no covariance.
        at_probe, matrices = jax.jit(lambda f: (values(f), jax.jacfwd(values)(f)))(flat)
    groups: list[Group] = []
    taken: set[int] = set()
    for place, constraint in enumerate(kinds):
        if not affine[place]:
            continue
        matrix = np.asarray(matrices[place], float).reshape(-1, flat.size)
        columns = np.flatnonzero(np.any(matrix != 0, 0))
        matrix = matrix[:, columns]
        inverse = _left_inverse(matrix)
        if inverse is None or taken & set(columns) or not _known(constraint):
            continue
        taken |= set(columns.tolist())
        value = np.ravel(np.asarray(at_probe[place], float))
        offset = value - matrix @ np.asarray(flat, float)[columns]
        columns = tuple(columns.tolist())
        groups.append(Group(place, columns, constraint, inverse, offset))
    if not groups:
        return None
    return OutputLink(likelihood, tuple(groups), flat.size, unravel)


def constrained(likelihood: Likelihood, output: PyTree) -> list[Any]:
    """Return the arguments that cannot be any real number."""
    return [a for a in arguments(likelihood(output)) if not is_real(a.constraint)]


def _probe(leaf):
    """Values that are valid probabilities, rates and scales at once."""
    whole = not jnp.issubdtype(leaf.dtype, jnp.inexact)
    last = leaf.shape[-1] if leaf.shape else 1
    value = 1 if whole else 1 / last if last > 1 else PROBE
    return jnp.full(leaf.shape, value, leaf.dtype)


def _left_inverse(matrix):
    """Left inverse of a matrix; `None` if there is none."""
    if matrix.shape == (len(matrix), len(matrix)) and not np.any(
        matrix - np.diag(np.diag(matrix))
    ):
        return np.diag(1.0 / np.diag(matrix))
    if np.linalg.matrix_rank(matrix) < matrix.shape[1]:
        return None
    return np.linalg.pinv(matrix)


def _known(constraint):
    try:
        biject_to(constraint)
    except NotImplementedError:
        return False
    return True


def unconstrain(constraint: Any, value: Array) -> Array:
    """Return the unconstrained coordinates of an argument, finite at its bounds."""
    value, kind = single(value), elementwise(constraint)
    if isinstance(kind, type(constraints.simplex)):
        return _log(value)
    if isinstance(kind, constraints.greater_than | constraints.greater_than_eq):
        return _log(value - kind.lower_bound)
    if isinstance(kind, constraints.interval):
        return _log(value - kind.lower_bound) - _log(kind.upper_bound - value)
    return biject_to(constraint).inv(value)


def constrain(constraint: Any, free: Array) -> Array:
    """Return the argument of unconstrained coordinates."""
    kind = elementwise(constraint)
    if isinstance(kind, type(constraints.simplex)):
        return jax.nn.softmax(free)
    lower = getattr(kind, "lower_bound", 0.0)
    if isinstance(kind, constraints.greater_than | constraints.greater_than_eq):
        return jnp.exp(free) + lower
    if isinstance(kind, constraints.interval):
        width = kind.upper_bound - lower
        return jax.nn.sigmoid(free) * width + lower
    return biject_to(constraint)(free)


def _log(value):
    """Logarithm that is finite at zero and NaN below it."""
    tiny = jnp.finfo(value.dtype).tiny
    return jnp.where(value < 0, jnp.nan, jnp.log(jnp.maximum(value, tiny)))
