"""Keys by name, none of them twice."""

import zlib
from collections.abc import Iterable

import jax

from .._types import PRNGKey


class KeyStreams:
    """Named streams of keys from one key: each call gives a key that no other gave.

    ```python
    keys = KeyStreams(jax.random.key(0), "params", "data")
    model = eqx.nn.MLP(2, 1, 16, 2, key=keys("params"))
    x = jax.random.normal(keys("data"), (100, 2))
    ```

    What one stream gives depends on its name and on how often it was asked, not on the
    other streams: a draw that is added to `"data"` leaves the model as it was. Keys
    with a number, `keys.at("step", 7)`, can be asked for in any order, and once each.

    It is for the code that sets an experiment up. Inside jit, where a Python counter
    would count traces and not calls, derive keys with `jax.random.fold_in`.

    **Arguments:**

    - `key`: where all come from. Do not use it elsewhere.
    - `names`: the streams there are.
    """

    def __init__(self, key: PRNGKey, *names: str):
        if not names:
            raise ValueError("names: at least one stream, KeyStreams(key, 'params')")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the stream {twice!r} is named twice")
        # By name and not by place: a new stream does not change the others.
        self._roots = {
            name: jax.random.fold_in(key, zlib.crc32(name.encode())) for name in names
        }
        self._counts = dict.fromkeys(names, 0)
        self._numbers: dict[str, set[int]] = {name: set() for name in names}

    def __call__(self, name: str) -> PRNGKey:
        """The next key of a stream."""
        root = jax.random.fold_in(self._root(name), 0)
        self._counts[name] += 1
        return jax.random.fold_in(root, self._counts[name])

    def at(self, name: str, number: int) -> PRNGKey:
        """Return the key of a stream by its number.

        **Raises:** `ValueError` when it was given out before.
        """
        root = jax.random.fold_in(self._root(name), 1)
        if number in self._numbers[name]:
            raise ValueError(
                f"the key {number} of {name!r} was given out before: a key used twice "
                "makes draws that should differ equal. Split it, or use another number."
            )
        self._numbers[name].add(number)
        return jax.random.fold_in(root, number)

    @property
    def names(self) -> Iterable[str]:
        """The streams there are."""
        return tuple(self._roots)

    def _root(self, name):
        if name not in self._roots:
            raise ValueError(f"no stream {name!r}: there are {', '.join(self._roots)}")
        return self._roots[name]

    def __repr__(self):
        counts = ", ".join(f"{name}: {n} given" for name, n in self._counts.items())
        return f"KeyStreams({counts})"
