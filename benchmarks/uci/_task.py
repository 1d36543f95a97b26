"""Some splits of one set, stacked: one program works on all of them."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxprob.datasets import uci

WIDTHS = {"protein-tertiary-structure": 100}


@dataclasses.dataclass(frozen=True)
class Task:
    """Standardised arrays with a leading axis of splits; `units` is the training
    deviation of each split's target."""

    name: str
    splits: tuple[int, ...]
    x: Float[Array, "splits rows features"]
    y: Float[Array, "splits rows 1"]
    x_test: Float[Array, "splits test features"]
    y_test: Float[Array, "splits test 1"]
    units: Float[np.ndarray, " splits"]

    @property
    def width(self) -> int:
        """Hidden units that the protocol prescribes."""
        return WIDTHS.get(self.name, 50)

    @property
    def num_data(self) -> int:
        return self.x.shape[1]

    def inner(self, share: float = 0.2) -> "Task":
        """The training rows alone, cut again: settings are chosen on these."""
        held_out = round(share * self.num_data)
        order = jnp.stack(
            [
                jax.random.permutation(jax.random.key(split), self.num_data)
                for split in self.splits
            ]
        )
        x = jnp.take_along_axis(self.x, order[..., None], axis=1)
        y = jnp.take_along_axis(self.y, order[..., None], axis=1)
        return dataclasses.replace(
            self,
            x=x[:, held_out:],
            y=y[:, held_out:],
            x_test=x[:, :held_out],
            y_test=y[:, :held_out],
        )

    def repeated(self, times: int) -> "Task":
        """Each split so many times, the whole list after itself."""

        def again(a):
            return jnp.concatenate([a] * times)

        return dataclasses.replace(
            self,
            splits=self.splits * times,
            x=again(self.x),
            y=again(self.y),
            x_test=again(self.x_test),
            y_test=again(self.y_test),
            units=np.tile(self.units, times),
        )


def load(name: str, root: str, splits: Sequence[int]) -> Task:
    """Read and standardise splits of one set.

    Sizes of the splits of a set differ by nothing in the published files; where they
    do, the stack refuses them.
    """
    parts = []
    for split in splits:
        data, _, scaler = uci(name, root, split=split).standardize(constant="keep")
        assert scaler is not None
        arrays = (data.x_train, data.y_train, data.x_test, data.y_test)
        parts.append((*arrays, np.ravel(scaler.std)[0]))
    *arrays, units = (np.stack(column) for column in zip(*parts, strict=True))
    stacked = (jnp.asarray(array, jnp.float32) for array in arrays)
    return Task(name, tuple(splits), *stacked, units=units)
