r"""Equations that multiply by a weight, as $y_{gt} = W_g a_{gt}$."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Product(NamedTuple):
    """A product of a weight with inputs.

    **Fields:**

    - `index`: of the weight's entries as matrices, `(groups, out, in)`.
    - `inputs`: `(groups, uses, in)`.
    - `place`: turns an array `(groups, uses, out)` into the layout of the result.
    """

    index: np.ndarray
    inputs: Any
    place: Callable[[Any], Any]


def matrix_product(
    eqn: Any, values: Sequence[Any], index: np.ndarray, side: int
) -> Product:
    """Return a `dot_general`; its batch axes are the groups.

    **Arguments:**

    - `eqn`: the equation.
    - `values`: both operands.
    - `index`: of the entries of the weight.
    - `side`: which of the operands is the weight.
    """
    contracted, batch = eqn.params["dimension_numbers"]
    other = values[1 - side]
    matrix, (groups, outs) = _axes_apart(index, batch[side], contracted[side])
    inputs, (_, uses) = _axes_apart(other, batch[1 - side], contracted[1 - side])
    matrix = matrix.reshape(math.prod(groups), math.prod(outs), -1)
    inputs = inputs.reshape(math.prod(groups), math.prod(uses), matrix.shape[2])

    def place(array):
        array = array.reshape((*groups, *uses, *outs))
        if side == 1:
            return array
        ours = [*range(len(groups) + len(uses), array.ndim)]
        theirs = [*range(len(groups), len(groups) + len(uses))]
        return array.transpose(*range(len(groups)), *ours, *theirs)

    return Product(matrix, inputs, place)


def convolution(
    eqn: Any, values: Sequence[Any], index: np.ndarray, side: int
) -> Product | None:
    """Return a convolution, whose uses are its places, and `None` where the weight is
    not its kernel.
    """
    groups = eqn.params["feature_group_count"]
    if side != 1 or eqn.params["batch_group_count"] != 1:
        return None
    numbers = eqn.params["dimension_numbers"]
    kernel = index.transpose(numbers.rhs_spec)
    outs, _, *sizes = kernel.shape
    patches = jax.lax.conv_general_dilated_patches(
        jnp.transpose(values[0], numbers.lhs_spec),
        sizes,
        eqn.params["window_strides"],
        eqn.params["padding"],
        lhs_dilation=eqn.params["lhs_dilation"],
        rhs_dilation=eqn.params["rhs_dilation"],
    )
    rows, _, *places = patches.shape
    patches = patches.reshape(rows, groups, -1, math.prod(places))
    inputs = jnp.transpose(patches, (1, 0, 3, 2))
    inputs = inputs.reshape(groups, rows * math.prod(places), -1)

    def place(array):
        array = array.reshape(groups, rows, math.prod(places), outs // groups)
        array = array.transpose(1, 0, 3, 2).reshape(rows, outs, *places)
        return array.transpose(*np.argsort(numbers.out_spec).tolist())

    return Product(kernel.reshape(groups, outs // groups, -1), inputs, place)


def _axes_apart(array, batch, contracted):
    """Batch axes first and contracted ones last; sizes of batch and free axes."""
    free = [a for a in range(array.ndim) if a not in (*batch, *contracted)]
    turned = array.transpose(*batch, *free, *contracted)
    sizes = [[array.shape[axis] for axis in axes] for axes in (batch, free)]
    return turned, sizes
