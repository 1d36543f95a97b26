"""Flow matching: the loss whose minimum is the velocity of a flow between two ends."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from ..._checks import check_finite
from ..._random.keys import check_key, example_keys
from ..._training.batch import masked_mean, num_rows, unpack
from ..._training.call_loss import AbstractCheckedLoss
from ..._types import Metrics, PRNGKey
from ...tree._single import single
from .._denoiser.units import along_leading
from .._schedule.argument_checks import check_count, check_kind
from .._schedule.rectified import RectifiedFlow
from .._types import ARRAYS, Cond, Scalar, Time
from .._velocity.coupling import AbstractCoupling, IndependentCoupling
from .._velocity.source import AbstractSource, NormalSource, PairedSource
from .._velocity.velocity_field import AbstractVelocityField, check_field
from ..nn import check_condition
from .cond_dropout import Rates, as_rates, check_rates, drop_conditions
from .mean_in_batches import mean_in_batches
from .stratified import uniforms
from .times import AbstractTimes, UniformTimes


def flow_matching_error(
    field: AbstractVelocityField,
    x_source: Float[Array, "*shape"],
    x: Float[Array, "*shape"],
    t: Time,
    cond: Cond = None,
    *,
    key: PRNGKey | None = None,
) -> Scalar:
    r"""Return the mean square of $(v(x_t, t) - (x - y))/S$ over the coordinates.

    **Arguments:**

    - `field`: the model, with S its `scale()`.
    - `x_source`, `x`: a pair (y, x) of examples of the source and of the data.
    - `t`: time between them, 0 at the source.
    - `cond`: the condition.
    - `key`: of the network.
    """
    x_source, x = single(x_source), single(x)
    t = jnp.asarray(t, x.dtype)
    velocity = field.velocity((1.0 - t) * x_source + t * x, t, cond, key=key)
    return jnp.mean(
        ((velocity - (x - x_source)) / along_leading(field.scale(), x)) ** 2
    )


class FlowMatchingLoss(AbstractCheckedLoss):
    r"""$E_t\,E_{y, x}\,\|v(x_t, t) - (x - y)\|^2 / \dim x$, over a batch.

    Its minimum over all functions is $E[x - y \mid x_t]$, whose flow carries the source
    to the data. Errors are in units of the field's scale.

    Reference: *Flow Matching for Generative Modeling*, Lipman et al., 2023; *Flow
    Straight and Fast*, Liu et al., 2023; *Improving and Generalizing Flow-Based
    Generative Models with Minibatch Optimal Transport*, Tong et al., 2024.

    ```python
    loss = FlowMatchingLoss(EmpiricalSource(x_source), OTCoupling())
    learner = jaxprob.GradientDescent(loss, optax.adam(1e-3))
    state, history = jaxprob.fit(learner, field, x, key=key, num_steps=10)
    ```

    **Arguments:**

    - `source`: where the flow begins; `NormalSource()` by default. With `PairedSource`
        a batch holds examples of both ends.
    - `coupling`: which example of the source goes with which of the data;
        `IndependentCoupling()` by default. Rows with different conditions are never
        exchanged: if they were, the source would depend on the condition in training
        and not in sampling. With a condition that no two rows share, all couplings are
        therefore the independent one.
    - `times`: the distribution of 1 - t in [0, 1], with the schedule `RectifiedFlow()`;
        uniform by default.
    - `stratified`: as in `DenoisingLoss`.
    - `batch_size`: rows that go through the network at a time, as in `DenoisingLoss`.
        Coupled are all rows of a batch.
    - `cond_dropout`, `null`: as in `DenoisingLoss`.

    `loss(field, batch, key=key)` takes a batch `x` or `(x, cond)`, with `PairedSource`
    `(x_source, x)` or `(x_source, x, cond)`, plain or a `jaxprob.Batch`. It returns the
    scalar and an empty dictionary of metrics.
    """

    source: AbstractSource
    coupling: AbstractCoupling
    times: AbstractTimes
    stratified: bool = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)
    cond_dropout: Rates = eqx.field(static=True)
    null: PyTree

    def __init__(
        self,
        source: AbstractSource | None = None,
        coupling: AbstractCoupling | None = None,
        times: AbstractTimes | None = None,
        *,
        stratified: bool = True,
        batch_size: int | None = None,
        cond_dropout: float | Mapping[str, float] = 0.0,
        null: PyTree = None,
    ):
        self.source = NormalSource() if source is None else source
        self.coupling = IndependentCoupling() if coupling is None else coupling
        self.times = UniformTimes() if times is None else times
        remedy = "give a source, e.g. EmpiricalSource(rows)"
        check_kind("source", self.source, AbstractSource, remedy)
        remedy = "give a coupling, e.g. OTCoupling()"
        check_kind("coupling", self.coupling, AbstractCoupling, remedy)
        remedy = "give a distribution, e.g. UniformTimes()"
        check_kind("times", self.times, AbstractTimes, remedy)
        if batch_size is not None:
            check_count("batch_size", batch_size, "at least one row")
        self.stratified = stratified
        self.batch_size = batch_size
        self.cond_dropout = as_rates(cond_dropout)
        self.null = null

    def check(self, field: AbstractVelocityField, data: PyTree) -> None:
        """Check the rows of both ends and of the conditions.

        **Raises:** `TypeError` for data that are not floating-point, `ValueError` for
        rows of two shapes, or that are not finite, and for conditions that the network
        does not have.
        """
        check_field(field)
        x_source, x, cond = self._split(data)
        for name, rows in (("x_source", x_source), ("x", x)):
            if rows is not None:
                check_finite(name, np.asarray(rows))
        check_condition(field, cond)
        check_rates(self.cond_dropout, cond)

    def __call__(
        self, field: AbstractVelocityField, batch: PyTree, *, key: PRNGKey
    ) -> tuple[Scalar, Metrics]:
        check_field(field)
        check_key(key)
        data, mask = unpack(batch)
        x_source, x, cond = self._split(data)
        mask, x = jnp.asarray(mask), single(jnp.asarray(x))
        time_key, source_key, pair_key, row_key = jax.random.split(key, 4)
        if x_source is None:
            keys = example_keys(source_key, num_rows(x))
            x_source = jax.vmap(lambda key: self.source.draw(x.shape[1:], key=key))(
                keys
            )
        x_source = jnp.asarray(x_source, x.dtype)
        x_source = x_source[self._pairs(field, x_source, x, cond, mask, pair_key)]
        u = uniforms(time_key, mask, stratified=self.stratified)
        rows = x_source, x, cond, u, example_keys(row_key, num_rows(x))
        if self.batch_size is None or self.batch_size >= num_rows(x):
            return masked_mean(self._errors(field, rows), mask), {}
        return mean_in_batches(field, self._errors, rows, mask, self.batch_size), {}

    def _errors(self, field, rows):
        """Return the error of each row, at the quantile of its time."""

        def one(x_source, x, cond, u, key):
            # A schedule's time runs from the data to the source.
            t = 1.0 - self.times.quantile(RectifiedFlow(), u.astype(x.dtype))
            drop_key, key = jax.random.split(key)
            cond = drop_conditions(cond, self.cond_dropout, self.null, key=drop_key)
            return flow_matching_error(field, x_source, x, t, cond, key=key)

        return jax.vmap(one)(*rows)

    def _pairs(self, field, x_source, x, cond, mask, key):
        """Return the row of the source for each row of the data."""

        def flat(rows):
            scaled = jax.vmap(lambda row: row / along_leading(field.scale(), row))(rows)
            return scaled.reshape(len(rows), -1)

        allowed = _equal_rows((mask, cond))
        return self.coupling(flat(x_source), flat(x), allowed, key=key)

    def _split(self, data):
        """Return `(x_source, x, cond)` of a batch; without a row, `None`."""
        paired = isinstance(self.source, PairedSource)
        form = "(x_source, x)" if paired else "x"
        parts = list(data) if isinstance(data, tuple | list) else [data]
        least = 2 if paired else 1
        if not least <= len(parts) <= least + 1:
            raise TypeError(
                f"a batch for FlowMatchingLoss({type(self.source).__name__}()) is "
                f"{form}, or the same with a condition after it; got {len(parts)} parts"
            )
        cond = parts.pop() if len(parts) > least else None
        for name, rows in zip(("x", "x_source"), reversed(parts), strict=False):
            if not isinstance(rows, ARRAYS):
                raise TypeError(f"{name} is a {type(rows).__name__}: give an array")
            _check_floating(name, rows)
        if paired and parts[0].shape != parts[1].shape:
            raise ValueError(
                f"x_source has shape {parts[0].shape} and x {parts[1].shape}: a flow "
                "keeps the shape of an example, and a batch has pairs of rows"
            )
        return (parts[0] if paired else None), parts[-1], cond


def _check_floating(name: str, rows: Any) -> None:
    if not jnp.issubdtype(rows.dtype, jnp.floating):
        raise TypeError(f"{name} is {rows.dtype}: scale it to floats before training")


def _equal_rows(tree: PyTree) -> Bool[Array, "batch batch"]:
    """Return whether rows i and j of all leaves are equal."""

    def equal(leaf):
        rows = jnp.asarray(leaf).reshape(len(leaf), -1)
        same = (rows[:, None] == rows[None, :]).all(axis=2)
        # A row with a NaN is equal to itself, so that some pairing is allowed.
        return same | jnp.eye(len(rows), dtype=bool)

    first, *others = map(equal, jax.tree.leaves(tree))
    for other in others:
        first = first & other
    return first
