"""Images as rows of patches, and checks of images."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from ..._types import Model


def into_patches(
    layer: eqx.nn.Linear,
    x: Float[Array, "channels *spatial"],
    patch_size: int | tuple[int, ...],
) -> Float[Array, "patches hidden"]:
    """Return a matrix times the patches: a convolution whose stride is its width."""
    sizes = as_sizes(patch_size, x.ndim - 1)
    outer, inner, axes = _axes(x.ndim - 1)
    form = f"c {axes} -> ({outer}) (c {inner})"
    return linear(layer, rearrange(x, form, **dict(zip("ijk", sizes, strict=False))))


def from_patches(
    layer: eqx.nn.Linear,
    rows: Float[Array, "patches hidden"],
    spatial: tuple[int, ...],
    patch_size: int | tuple[int, ...],
) -> Float[Array, "channels *spatial"]:
    """Return the image whose patches are a layer of the rows."""
    return as_image(linear(layer, rows), spatial, patch_size)


def as_image(
    rows: Float[Array, "patches pixels"],
    spatial: tuple[int, ...],
    patch_size: int | tuple[int, ...],
) -> Float[Array, "channels *spatial"]:
    """Return the image whose patches are the rows."""
    sizes = as_sizes(patch_size, len(spatial))
    outer, inner, axes = _axes(len(spatial))
    counts = [size // p for size, p in zip(spatial, sizes, strict=True)]
    lengths = dict(zip("hwd", counts, strict=False))
    lengths |= dict(zip("ijk", sizes, strict=False))
    return rearrange(rows, f"({outer}) (c {inner}) -> c {axes}", **lengths)


def _axes(num):
    """Return names of axes of patches, of axes inside a patch, and of both."""
    outer, inner = "hwd"[:num], "ijk"[:num]
    pairs = " ".join(f"({o} {i})" for o, i in zip(outer, inner, strict=True))
    return " ".join(outer), " ".join(inner), pairs


def as_sizes(patch_size: Any, num_axes: int) -> tuple[int, ...]:
    """Return the side of a patch along each axis.

    **Raises:** `ValueError` for another number of sides than axes, or below 1.
    """
    sizes = patch_size if isinstance(patch_size, Sequence) else (patch_size,) * num_axes
    sizes = tuple(int(size) for size in sizes)
    if len(sizes) != num_axes or min(sizes) < 1:
        raise ValueError(
            f"patch_size={patch_size}: give one number, or one for each of the "
            f"{num_axes} axes"
        )
    return sizes


def padding(spatial: Sequence[int], factors: Sequence[int]) -> list[tuple[int, int]]:
    """Return what each axis lacks to a multiple of its factor, before and after."""
    short = [-size % factor for size, factor in zip(spatial, factors, strict=True)]
    return [(n // 2, n - n // 2) for n in short]


def padded(
    x: Float[Array, "channels *spatial"], factors: Sequence[int]
) -> Float[Array, "channels *larger"]:
    """Return the image with its edges repeated, to multiples of the factors."""
    pads = padding(x.shape[1:], factors)
    if not any(map(sum, pads)):
        return x
    return jnp.pad(x, [(0, 0), *pads], mode="edge")


def cropped(
    y: Float[Array, "channels *larger"], spatial: Sequence[int], factors: Sequence[int]
) -> Float[Array, "channels *spatial"]:
    """Return the part of an image that `padded` did not add."""
    pads = padding(spatial, factors)
    if not any(map(sum, pads)):
        return y
    places = [slice(a, a + n) for (a, _), n in zip(pads, spatial, strict=True)]
    return y[:, *places]


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


def as_shape(image_shape: Any) -> tuple[int, ...]:
    """Return channels and one to three sizes as a tuple, to compare with `x.shape`.

    **Raises:** `ValueError` for another number of them.
    """
    sizes = tuple(int(size) for size in image_shape)
    if not 2 <= len(sizes) <= 4 or min(sizes) < 1:
        raise ValueError(
            f"image_shape={sizes}: give channels and one to three sizes, e.g. (2, 64) "
            "for signals, (1, 28, 28) for images, (1, 16, 32, 32) for volumes"
        )
    return sizes


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
