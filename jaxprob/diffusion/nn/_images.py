"""Images as rows of patches, and checks of images."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from ..._types import Model


def into_patches(
    layer: eqx.nn.Linear, x: Float[Array, "channels height width"], patch_size: int
) -> Float[Array, "patches hidden"]:
    """Return a matrix times the patches: a convolution whose stride is its width."""
    p = patch_size
    return linear(layer, rearrange(x, "c (h i) (w j) -> (h w) (c i j)", i=p, j=p))


def from_patches(
    layer: eqx.nn.Linear,
    rows: Float[Array, "patches hidden"],
    height: int,
    patch_size: int,
) -> Float[Array, "channels height width"]:
    """Return the image whose patches are a layer of the rows."""
    return as_image(linear(layer, rows), height, patch_size)


def as_image(
    rows: Float[Array, "patches pixels"], height: int, patch_size: int
) -> Float[Array, "channels height width"]:
    """Return the image whose patches are the rows."""
    p = patch_size
    form = "(h w) (c i j) -> c (h i) (w j)"
    return rearrange(rows, form, h=height // p, i=p, j=p)


def linear(
    layer: eqx.nn.Linear, rows: Float[Array, "rows in_size"]
) -> Float[Array, "rows out_size"]:
    """Return `jax.vmap(layer)(rows)` as one product of matrices.

    Under a further vmap, `rows @ W.T` stays one plain product with all rows of all
    examples; the vmapped `W @ row` becomes one with its axes in the wrong order.
    """
    rows = rows @ layer.weight.T
    return rows if layer.bias is None else rows + layer.bias[None]


def zeroed(layer: Model) -> Model:
    """Return the layer with zeros for weights: a branch that is zero at first."""
    return jax.tree.map(
        lambda leaf: jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else leaf, layer
    )


def as_image_shape(image_shape: Any) -> tuple[int, int, int]:
    """Return channels, height and width as a tuple, to compare with `x.shape`.

    **Raises:** `ValueError` for another number of them.
    """
    sizes = tuple(int(size) for size in image_shape)
    if len(sizes) != 3 or min(sizes) < 1:
        raise ValueError(
            f"image_shape={sizes}: give channels, height and width, e.g. (1, 28, 28) "
            "for grey images of 28 x 28"
        )
    channels, height, width = sizes
    return channels, height, width


def check_patches(image_shape: tuple[int, ...], patch_size: int) -> int:
    """Return the number of patches that tile the image.

    **Raises:** `ValueError` with sizes that divide the image.
    """
    _, height, width = image_shape
    for name, size in (("height", height), ("width", width)):
        if patch_size < 1 or size % patch_size:
            fitting = [d for d in range(1, size + 1) if size % d == 0]
            raise ValueError(
                f"patch_size={patch_size} does not divide the image's {name} {size}; "
                f"{fitting} do. Or pad or crop the images."
            )
    return math.prod(image_shape[1:]) // patch_size**2


def check_image(net: Any, x: Array) -> None:
    """Check that the image has the shape that the network was built for.

    **Raises:** `ValueError` with both shapes.
    """
    if x.shape != net.image_shape:
        raise ValueError(
            f"this {type(net).__name__} is for images of shape {net.image_shape}; got "
            f"{x.shape}"
        )
