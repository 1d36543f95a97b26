"""Cache keyed by object identity, whose entries go when the object goes."""

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")


class PerObject(Generic[Made]):
    """A cache by the identity of an object and by what else counts.

    Identity, because a learner holds arrays and functions, which have no hash that says
    what they do. What is made must hold the object by a weak reference, or neither
    would ever go.
    """

    def __init__(self):
        self._made: dict[int, dict[Any, Made]] = {}

    def get(
        self,
        owner: object,
        key: Any,
        make: Callable[[], Made],
        is_current: Callable[[Made], bool] = lambda made: True,
    ) -> Made:
        """Return what was made for this object and key; `make()` if nothing was, or if
        what was made is not current any more.

        A key that has no hash is never found again.
        """
        try:
            hash(key)
        except TypeError:
            return make()
        if id(owner) not in self._made:
            self._made[id(owner)] = {}
            weakref.finalize(owner, self._made.pop, id(owner), None)
        entries = self._made[id(owner)]
        if key not in entries or not is_current(entries[key]):
            entries[key] = make()
        return entries[key]
