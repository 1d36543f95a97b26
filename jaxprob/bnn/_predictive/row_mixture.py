"""Base class of predictives: the parameters of the mixture and a map over its rows."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num, PyTree, Shaped

from ..._checks import check_classes, check_finite
from ..._training.batch import num_rows
from .._joint import row_statistics as row_statistics
from .._joint.families import base, family_of
from .._joint.joint_distribution import JointDistribution, check_names
from .._joint.joint_likelihood import PartLikelihood
from .._joint.likelihood import Likelihood
from .._joint.target import is_masked, observe
from .._weights.scale import is_traced
from .moments import AbstractMoments
from .outputs import AbstractOutputs
from .row_batches import map_batches, pad
from .static import Static


class AbstractRowMixture(AbstractMoments):
    """Base class of mixtures with one component for each sampled model.

    **Fields:**

    - `_outputs`: the outputs of all models in each row.
    - `_likelihood`: output -> distribution.
    - `batch_size`: rows at a time.
    """

    _outputs: eqx.AbstractVar[AbstractOutputs]
    _likelihood: eqx.AbstractVar[Static[Likelihood]]
    batch_size: eqx.AbstractVar[int]

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood of the components."""
        return self._likelihood.value

    def __getitem__(self, name: str) -> "AbstractRowMixture":
        """The predictive of one of several targets, a mixture over the same models.

        **Raises:** `TypeError` where there is one target, `KeyError` for another name.
        """
        if not isinstance(self._kind, JointDistribution):
            raise TypeError(
                f"predictive[{name!r}]: this likelihood has one target, so that its "
                "statistics are those of the predictive itself"
            )
        self._kind.part(name)
        part = PartLikelihood(self.likelihood, name)
        return eqx.tree_at(lambda p: p._likelihood, self, Static.of(part))

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return num_rows(self._outputs.rows)

    @property
    def num_samples(self) -> int:
        """Number of components, the sampled models."""
        return self._outputs.num_samples

    @property
    def outputs(self) -> PyTree[Num[Array, "rows samples ..."]]:
        """The output of each sampled model in each row."""
        return self._outputs.whole(self.batch_size)

    @property
    def is_classification(self) -> bool:
        """True where y is a class label."""
        return family_of(self._kind).is_classification

    @property
    def is_discrete(self) -> bool:
        """True where y is discrete."""
        return self._kind.is_discrete

    @property
    def is_angle(self) -> bool:
        """True where y is an angle; then mean and variances are circular."""
        return family_of(self._kind).resultant is not None

    @property
    def is_binary(self) -> bool:
        """True where y is zero or one; then `probs` is the probability of one."""
        return family_of(self._kind).is_binary

    @property
    def has_quantiles(self) -> bool:
        """True where `quantile` and `interval` exist: for independent numbers."""
        return row_statistics.has_quantiles(self._kind)

    def check_rows(
        self, name: str, array: Shaped[Array | np.ndarray, "..."]
    ) -> Shaped[Array, "..."]:
        """Return the array; raise if an entry is not finite or rows are missing."""
        array = jnp.asarray(array)
        if array.shape[:1] != (self.num_rows,):
            raise ValueError(
                f"{name} has shape {array.shape}, and the prediction is for "
                f"{self.num_rows} rows"
            )
        if not is_traced(array):
            check_finite(name, np.asarray(array))
        return array

    def check_targets(self, y: Any) -> Any:
        """Return the targets as arrays, after checking shape, values and labels.

        Any other shape than that of the predictions would broadcast against them.
        """
        if isinstance(self._kind, JointDistribution):
            check_names(y, self._kind.names, "y")
            return {k: self[k].check_targets(v) for k, v in y.items()}
        if is_masked(y):
            values = self.check_targets(_filled(*y))
            observe(self._component, (values[0], y[1][0]))
            return values, self.check_rows("observed", y[1])
        y = self.check_rows("y", y)
        expected = (self.num_rows, *self._shape)
        if y.shape != expected:
            raise ValueError(
                f"y has shape {y.shape}, and the targets of these predictions have the "
                f"shape {expected}: give y.reshape({expected}) if the rows are the same"
            )
        family = family_of(self._kind)
        if not family.is_classification or is_traced(y):
            return y
        num_classes = 2 if family.is_binary else family.probs(self._kind).shape[-1]
        check_classes("y", np.asarray(y), num_classes)
        return y

    @property
    def _kind(self):
        """A component without `to_event`: its class and shapes are those of all."""
        return base(self._component)

    @property
    def _shape(self):
        """The shape of one target."""
        return self._component.batch_shape + self._component.event_shape

    @property
    def _component(self):
        return self.likelihood(self._once("_stored_first", self._first_output))

    def _first_output(self):
        # Of a whole batch, because the statistics need its program as well.
        batch = jax.tree.map(
            lambda a: pad(a[: self.batch_size], self.batch_size), self._outputs.rows
        )
        return jax.tree.map(lambda a: a[0, 0], self._outputs.of(batch))

    def _map(self, statistic, *rows, shared=()):
        """A statistic of each row; `rows` are other arrays with an entry for each."""
        likelihood = self.likelihood

        def of_batch(batch):
            own, others = batch
            outputs = self._outputs.of(own)
            return _map_rows(statistic, likelihood, outputs, others, shared)

        return map_batches(of_batch, (self._outputs.rows, rows), self.batch_size)

    def _once(self, name: str, compute: Callable[[], Any]) -> Any:
        """The value, computed once for this object.

        It is not a field, so a copy that jit or vmap makes computes it again. A traced
        value belongs to its program and is not stored.
        """
        stored = vars(self).get(name)
        if stored is None:
            stored = compute()
            if not any(map(is_traced, jax.tree.leaves(stored))):
                object.__setattr__(self, name, stored)  # the dataclass is frozen
        return stored


def _filled(values, observed):
    """Zeros where nothing was observed: zero is a label of any classes."""
    values, observed = jnp.asarray(values), jnp.asarray(observed)
    keep = observed.reshape(observed.shape + (1,) * (values.ndim - observed.ndim))
    return jnp.where(keep, values, jnp.zeros((), values.dtype))


@eqx.filter_jit
def _map_rows(statistic, likelihood, outputs, rows, shared):
    def one(outputs, rows):
        return statistic(likelihood, outputs, *rows, *shared)

    return jax.vmap(one)(outputs, rows)
