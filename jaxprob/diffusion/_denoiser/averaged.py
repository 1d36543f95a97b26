"""The average of several denoisers."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._random.keys import example_keys
from ..._types import PRNGKey
from .._schedule.argument_checks import check_count
from .._schedule.schedule import AbstractSchedule
from .._types import Cond, Level, Scalar
from ..nn import AbstractReader
from .alike import check_alike
from .denoiser import AbstractDenoiser
from .units import Units


class Averaged(AbstractDenoiser):
    r"""The mean of the answers of several denoisers, $\frac1K \sum_k D_k(x, s)$.

    With networks from a posterior over their weights, this is the posterior mean of the
    data under that posterior too: an ensemble of denoisers is one denoiser, and its
    error is at most the mean of theirs. It costs K networks at each evaluation.

    ```python
    averaged = Averaged.of([denoiser_1, denoiser_2, denoiser_3])
    members = eqx.filter_vmap(make_denoiser)(jax.random.split(key, 3))
    averaged = Averaged(members)
    ```

    **Arguments:**

    - `members`: one denoiser whose arrays have a leading axis of K, as
        `eqx.filter_vmap` makes it; `Averaged.of` stacks a list.
    - `own_conditions`: whether a condition has a leading axis of K, with one for each
        member, such as what each one's encoder made of an observation.
    """

    members: AbstractDenoiser
    own_conditions: bool = eqx.field(static=True)

    def __init__(self, members: AbstractDenoiser, own_conditions: bool = False):
        self.members = members
        self.own_conditions = own_conditions

    @classmethod
    def of(cls, denoisers: Sequence[AbstractDenoiser]) -> "Averaged":
        """Return the average of denoisers of one structure.

        **Arguments:**

        - `denoisers`: at least one: the same network, schedule and units of the data,
            and other weights.

        **Raises:** `ValueError` for denoisers of different structures.
        """
        if not isinstance(denoisers, tuple | list) or not denoisers:
            raise ValueError(
                f"denoisers is {type(denoisers).__name__}: give a list of at least one"
            )
        check_alike({f"denoisers[{i}]": d for i, d in enumerate(denoisers)})
        parts = [eqx.partition(denoiser, eqx.is_array) for denoiser in denoisers]
        arrays = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(p[0] for p in parts))
        return cls(eqx.combine(arrays, parts[0][1]))

    @classmethod
    def drawn(
        cls,
        sample: Callable[..., AbstractDenoiser],
        *,
        key: PRNGKey,
        num_members: int,
    ) -> "Averaged":
        r"""Return the average of draws from a distribution over denoisers.

        As `num_members` grows it is the posterior mean of D. Each member is one draw of
        all weights, for all levels and steps.

        ```python
        def sample(*, key):
            moved = 0.1 * jax.random.normal(key, (2,))
            return eqx.tree_at(lambda d: d.net.last.bias, denoiser, moved)

        averaged = Averaged.drawn(sample, key=key, num_members=5)
        ```

        **Arguments:**

        - `sample`: `sample(key=key)` returns a denoiser: `posterior.sample` of a
            `jaxprob.bnn` posterior; `lambda *, key: bnn.sample_leaves(model, key=key)`
            for a network with random leaves. A posterior of finitely many models has
            each once by `Averaged.of([q.atom(i) for i in range(q.num_atoms)])`. Of a
            linearised one see `Linearised`.
        - `key`: member k has `fold_in(key, k)`.
        - `num_members`: K.
        """
        check_count("num_members", num_members, "draw at least one member")
        return cls.of([sample(key=k) for k in example_keys(key, num_members)])

    @property
    def schedule(self) -> AbstractSchedule:
        return self._first().schedule

    @property
    def reader(self) -> AbstractReader | None:
        return None if self.own_conditions else self._first().reader

    def denoise(
        self,
        x: Float[Array, "*shape"],
        level: Level,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        arrays, static = eqx.partition(self.members, eqx.is_array)
        keys = None if key is None else jax.random.split(key, self.num_members)

        def one(arrays, cond, key):
            return eqx.combine(arrays, static).denoise(x, level, cond, key=key)

        axes = (0, 0 if self.own_conditions else None, 0)
        return jnp.mean(jax.vmap(one, axes)(arrays, cond, keys), axis=0)

    @property
    def num_members(self) -> int:
        """K."""
        return len(jax.tree.leaves(eqx.filter(self.members, eqx.is_array))[0])

    def standardised(self) -> tuple[AbstractDenoiser, Units]:
        units = self._first().standardised()[1]
        members = eqx.filter_vmap(lambda member: member.standardised()[0])(self.members)
        return Averaged(members, self.own_conditions), units

    def noise_units(self) -> Units:
        return self._first().noise_units()

    def output_gain(self, level: Level) -> Scalar:
        return self._first().output_gain(level)

    def _first(self):
        return jax.tree.map(lambda a: a[0] if eqx.is_array(a) else a, self.members)
