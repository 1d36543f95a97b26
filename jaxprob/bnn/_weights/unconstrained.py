r"""Leaves in unconstrained coordinates, in the places of constrained arrays.

A prior with an edge (Gamma, Beta, Dirichlet, LKJ) constrains its leaf to a set. All
methods move in the coordinates u of that leaf, any real numbers, and its value is
$w = T(u)$ with numpyro's bijection T onto the support (`biject_to`).
"""

from typing import Any, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._types import Model
from ...tree._promotion import lenient_promotion
from ...tree._single import single
from .edge import Edge, bijection


class Unconstrained(eqx.Module):
    r"""An array by its unconstrained coordinates, $w = T(u)$.

    It takes the place of an array in a model's tree while a method runs; `constrained`
    puts the array back. The state of a method holds such leaves, and its models and
    posteriors never do.

    **Arguments:**

    - `coordinates`: u, or a random leaf over it; `None` where a tree leaves it out.
    - `edge`: the support of the prior.
    - `shape`: of w; that of u differs for a simplex and for correlation matrices.
    """

    coordinates: Any
    edge: Edge = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def at(self, value: Array) -> "Unconstrained":
        """Return the coordinates of another value, which lies in the same support."""
        with lenient_promotion():
            coordinates = bijection(self.edge).inv(single(value))
        coordinates = jnp.asarray(coordinates, value.dtype)
        return Unconstrained(coordinates, self.edge, self.shape)

    def value(self) -> Array:
        """Return w."""
        with lenient_promotion():
            value = bijection(self.edge)(single(self.coordinates))
        return jnp.asarray(value, self.coordinates.dtype)

    def log_volume(self) -> Float[Array, ""]:
        r"""Return $\log |\partial T / \partial u|$, summed over the entries."""
        bijector, u = bijection(self.edge), single(self.coordinates)
        with lenient_promotion():
            return jnp.sum(bijector.log_abs_det_jacobian(u, bijector(u)))


def is_unconstrained(node: Any) -> TypeGuard[Unconstrained]:
    """Return whether a node of a tree is a leaf in unconstrained coordinates."""
    return isinstance(node, Unconstrained)


def constrained(tree: PyTree) -> Model:
    """Return the tree with the values of all leaves in unconstrained coordinates.

    A tree without them is returned unchanged.
    """

    def value(node):
        if not is_unconstrained(node):
            return node
        return None if node.coordinates is None else node.value()

    return jax.tree.map(value, tree, is_leaf=is_unconstrained)


def coordinates_of(params: PyTree, model: Model) -> PyTree:
    """Return the leaves of a model that are in `params`, in the same coordinates.

    **Arguments:**

    - `params`: some leaves of a model, `None` elsewhere.
    - `model`: a model of that class, constrained or not.
    """

    def one(node, value):
        if node is None or not is_unconstrained(node):
            return None if node is None else value
        if node.coordinates is None:
            return node
        return value if is_unconstrained(value) else node.at(value)

    return jax.tree.map(
        one, params, model, is_leaf=lambda n: n is None or is_unconstrained(n)
    )


def log_volume(params: PyTree) -> Float[Array, ""]:
    """Return the sum of `Unconstrained.log_volume` over a tree."""
    nodes: list[Any] = jax.tree.leaves(params, is_leaf=is_unconstrained)
    terms = [n.log_volume() for n in nodes if is_unconstrained(n)]
    return jnp.asarray(sum(terms, start=0.0))


def tangent(params: PyTree, draw: PyTree) -> PyTree:
    r"""Return $T(\bar u) + T'(\bar u) (u - \bar u)$ at leaves with unconstrained
    coordinates, and the draw at all others.

    A network that is linearised in w at the point that this returns is linearised in u
    at the draw. The result is in no support.

    **Arguments:**

    - `params`: $\bar u$.
    - `draw`: u, a tree of the same structure.
    """

    def one(centre, drawn):
        if not is_unconstrained(centre) or centre.coordinates is None:
            return drawn

        def value(u):
            return Unconstrained(u, centre.edge, centre.shape).value()

        step = drawn.coordinates - centre.coordinates
        primal, moved = jax.jvp(value, (centre.coordinates,), (step,))
        return primal + moved

    return jax.tree.map(one, params, draw, is_leaf=is_unconstrained)
