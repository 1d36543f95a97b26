"""Distribution over targets of several kinds, independent given the output."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from ..._types import PRNGKey


class JointDistribution(dist.Distribution):
    r"""$p(y) = \prod_k p_k(y_k)$ over a dict of targets.

    **Arguments:**

    - `names`: of the targets.
    - `parts`: their distributions, in the same order.
    """

    pytree_data_fields = ("parts",)
    pytree_aux_fields = ("names",)

    def __init__(self, names: tuple[str, ...], parts: tuple[Any, ...]):
        self.names = names
        self.parts = parts
        super().__init__(batch_shape=(), event_shape=())

    @property
    def support(self) -> dist.constraints.Constraint:
        """Support of a value that is no single array."""
        return dist.constraints.dependent(is_discrete=False, event_dim=0)

    def part(self, name: str) -> Any:
        """Return the distribution of one target.

        **Raises:** `KeyError` with the names that there are.
        """
        if name not in self.names:
            raise KeyError(f"{name!r} is none of the targets {', '.join(self.names)}")
        return self.parts[self.names.index(name)]

    def with_targets(self, y: Any) -> list[tuple[Any, Any]]:
        """Return each distribution with its target.

        **Raises:** `TypeError` for anything but a dict, `ValueError` for other names.
        """
        check_names(y, self.names, "y")
        return [(p, y[name]) for name, p in zip(self.names, self.parts, strict=True)]

    def sample(self, key: PRNGKey, sample_shape: tuple[int, ...] = ()) -> PyTree:
        return {
            name: p.sample(jax.random.fold_in(key, index), sample_shape)
            for index, (name, p) in enumerate(zip(self.names, self.parts, strict=True))
        }

    def log_prob(self, value: PyTree) -> Float[Array, ""]:
        terms = [jnp.sum(p.log_prob(y)) for p, y in self.with_targets(value)]
        return sum(terms, start=jnp.zeros((), terms[0].dtype))


def check_names(values: Any, names: tuple[str, ...], what: str) -> None:
    """Reject anything but a dict with these names."""
    if not isinstance(values, dict):
        raise TypeError(
            f"{what} is a {type(values).__name__}, and the likelihood has several "
            f"targets: give a dict with the names {', '.join(names)}"
        )
    if set(values) != set(names):
        raise ValueError(
            f"{what} has the names {', '.join(map(str, values))}, and the likelihood "
            f"{', '.join(names)}: they have to agree"
        )
