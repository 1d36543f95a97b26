"""Records of trees of numbers, and what differs between two of them."""

import hashlib
import math
from typing import Any

import jax
import numpy as np

SHOWN = 16

Record = dict[str, list[Any]]
"""`[dtype, shape, digest, first numbers]` of each leaf, by its path."""


def record(tree: Any) -> Record:
    """Return the record of a tree; leaves that are no numbers are left out."""
    out = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = as_numbers(leaf)
        if array is not None:
            out[jax.tree_util.keystr(path)] = one(array)
    if not out:
        raise ValueError("the tree holds no numbers to compare")
    return out


def as_numbers(leaf: Any) -> np.ndarray | None:
    """Return a leaf as a NumPy array, or `None` for functions and strings."""
    if hasattr(leaf, "dtype") and jax.dtypes.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    ):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, bool | int | float) or hasattr(leaf, "dtype"):
        return np.asarray(leaf)
    return None


def one(array: np.ndarray) -> list[Any]:
    """Return dtype, shape, digest and first numbers of one array."""
    name, shape = array.dtype.name, list(array.shape)
    head = f"{name}{shape}".encode()
    digest = hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()
    # Nine digits tell all float32 apart.
    first = [float(f"{float(v):.9g}") for v in array.ravel()[:SHOWN]]
    return [name, shape, digest[:24], first]


def difference(old: Record, new: Record) -> str:
    """Return what differs between two records; nothing where they are equal."""
    # Digests alone: the numbers shown may be NaN, which equals nothing.
    before, after = ({p: leaf[2] for p, leaf in r.items()} for r in (old, new))
    if before == after:
        return ""
    if sorted(before.values()) == sorted(after.values()):
        return f"equal values under other paths: {_only(old, new)}"
    if set(old) != set(new):
        return f"other leaves: {_only(old, new)}"
    changed = {path for path in old if before[path] != after[path]}
    alike = [p for p in changed if old[p][:2] == new[p][:2]]
    other = sorted(changed - set(alike))
    parts = [
        f"{p}: {old[p][0]}{old[p][1]} is now {new[p][0]}{new[p][1]}" for p in other[:3]
    ]
    if alike:
        size = {p: largest(old[p][3], new[p][3]) for p in alike}
        worst = max(size, key=lambda p: size[p])
        parts.append(
            f"{len(alike)} of {len(old)} leaves; max abs difference "
            f"{size[worst]:.3g} at {worst}, whose numbers are up to "
            f"{max(map(abs, old[worst][3]), default=0.0):.3g}"
        )
    return "; ".join(parts)


def largest(old: list[float], new: list[float]) -> float:
    """Return the largest difference of the numbers shown; inf where one is NaN."""
    gaps = [
        0.0 if a == b or (math.isnan(a) and math.isnan(b)) else abs(a - b)
        for a, b in zip(old, new, strict=True)
    ]
    return max((math.inf if math.isnan(gap) else gap for gap in gaps), default=0.0)


def _only(old, new):
    gone, come = sorted(set(old) - set(new)), sorted(set(new) - set(old))
    return f"without {gone[:3]}, with {come[:3]}"
