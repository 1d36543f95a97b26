"""Metrics on the device: summed over steps, or one value for each step."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


class Totals(eqx.Module):
    """Sums of metrics over steps, on the device until they are read.

    A metric may be one number or one for each member; its mean is over these too.
    """

    sums: dict[str, Array]
    weight: Array

    @classmethod
    def zeros(cls, info: dict[str, Any], lead: tuple[int, ...] = ()) -> "Totals":
        """Return sums of nothing, for metrics of these shapes, after leading axes."""
        sums = {
            name: jnp.zeros((*lead, *jnp.shape(value))) for name, value in info.items()
        }
        return cls(sums, jnp.zeros(()))

    def add(self, info: dict[str, Array], weight: Array) -> "Totals":
        weight = weight.astype(self.weight.dtype)
        sums = {
            name: total + info[name].astype(total.dtype) * weight
            for name, total in self.sums.items()
        }
        return Totals(sums, self.weight + weight)

    def means(self) -> dict[str, float]:
        """Return means over examples. This waits for the device."""
        sums, weight = jax.device_get((self.sums, self.weight))
        weight = max(weight, 1.0)
        return {name: float(np.mean(total) / weight) for name, total in sums.items()}


def over_members(metrics: dict[str, Array], axis: int) -> dict[str, Array]:
    """Return the metrics with means over the axis of members, where they have it."""
    return {k: jnp.mean(v, axis) if v.ndim > axis else v for k, v in metrics.items()}


class StepMetrics(Mapping[str, np.ndarray]):
    """Every metric as an array with one value for each step.

    The values stay on the device until the first one is read. They are cut to length
    on the host: a slice of a JAX array would be one more dispatch.
    """

    def __init__(self, parts: Sequence[tuple[Mapping[str, Array | np.ndarray], int]]):
        self.num_steps = sum(num for _, num in parts)
        self._parts = parts
        self._fetched: dict[str, np.ndarray] | None = None

    def fetch(self) -> dict[str, np.ndarray]:
        """Return all metrics. This waits for the device."""
        if self._fetched is None:
            parts = [(jax.device_get(info), num) for info, num in self._parts]
            self._fetched = {
                name: np.concatenate([np.atleast_1d(i[name])[:n] for i, n in parts])
                for name in (parts[0][0] if parts else ())
            }
            # The arrays on the device are not needed any more.
            self._parts = [(self._fetched, self.num_steps)] if parts else []
        return self._fetched

    def then(self, later: "StepMetrics") -> "StepMetrics":
        """Return the metrics of these steps and of later ones."""
        return StepMetrics([*self._parts, *later._parts])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.fetch()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self):
        if self._fetched is not None:
            return self._fetched
        return self._parts[0][0] if self._parts else {}
