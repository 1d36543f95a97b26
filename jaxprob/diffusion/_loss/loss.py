"""Denoising score matching: the loss whose minimum is the posterior mean."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._random.keys import check_key, example_keys
from ..._training.batch import masked_mean, num_rows, unpack
from ..._training.call_loss import AbstractCheckedLoss
from ..._types import Metrics, PRNGKey
from ...tree._single import single
from .._denoiser.denoiser import AbstractDenoiser, check_denoiser
from .._schedule.argument_checks import check_kind
from .._types import ARRAYS, Cond, Level, Scalar
from ..nn import check_condition
from .cond_dropout import Rates, as_rates, check_rates, drop_conditions
from .condition_rows import check_readable
from .level_bins import level_bins
from .mean_in_batches import mean_in_batches
from .stratified import before_the_end, uniforms
from .time_checks import check_times
from .times import AbstractTimes, UniformTimes
from .unit_checks import check_units
from .weighting import ErrorOf, Weighting


def denoising_error(
    denoiser: AbstractDenoiser,
    x_0: Float[Array, "*shape"],
    level: Level,
    cond: Cond = None,
    *,
    key: PRNGKey,
) -> Scalar:
    r"""Return the mean square of $(D(x, s) - x_0)/S$ over an example's coordinates.

    S is the scale of the data that the denoiser knows: the error is that of the
    standardised data, the same in any units.

    **Arguments:**

    - `denoiser`: the model.
    - `x_0`: clean example.
    - `level`: noise level $s = \sigma_t/\alpha_t$ to noise it to.
    - `cond`: its condition.
    - `key`: of the noise, and of the network.

    **Returns:** the error, in single precision at least: three digits, which is what
    bfloat16 has, do not hold the noise of a low level.
    """
    unit, units = denoiser.standardised()
    x_0 = units.to_unit(single(x_0))
    noise_key, net_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, x_0.shape, x_0.dtype)
    level = jnp.asarray(level, x_0.dtype)
    answer = unit.denoise(x_0 + level * noise, level, cond, key=net_key)
    return jnp.mean((answer - x_0) ** 2)


class DenoisingLoss(AbstractCheckedLoss):
    r"""$E_t\,E_{x_0, z}\; w(t)\,\|D(x_t, t) - x_0\|^2 / \dim x$, over a batch.

    Errors are in units of the data's standard deviation, which the denoiser has.

    Its minimum over all functions is the posterior mean, for any weights and times.
    They decide at which levels a network of finite size is accurate.

    Reference: *A Connection Between Score Matching and Denoising Autoencoders*,
    Vincent, 2011.

    ```python
    learner = jaxprob.GradientDescent(DenoisingLoss(), optax.adam(1e-3))
    state, history = jaxprob.fit(learner, denoiser, x, key=key, num_steps=1000)
    ```

    **Arguments:**

    - `weighting`: `(schedule, t) -> weight`, or the name of a parameterisation whose
        error is to count. `"eps"` by default: Ho et al., 2020, and Kidger's example.
    - `times`: the distribution of t; uniform by default.
    - `stratified`: whether to draw one time in each of as many equal parts of the
        distribution as there are rows, which makes the loss less noisy at no cost.
    - `unbiased`: divide by the density of the times, so that the mean over batches is
        $\int w(t)\,E\|D - x_0\|^2 dt / \dim x$ for any distribution (importance
        sampling).
    - `batch_size`: number of rows that go through the network at a time, forwards and
        backwards; all by default. Gradients add up: the numbers are the same, in the
        memory of so many rows. On a CPU, whose cache holds the activations of 8 images
        and not of 64, a Mixer trains 1.5 times as fast with 8. A network of
        convolutions is several times slower, since XLA's loops do not use the fast
        library there. Such a loss cannot be differentiated twice or forwards.
    - `cond_dropout`: probability with which a row's condition is left out, for
        classifier-free guidance (`Guided`); 0.1 is usual. The network then gets an
        `nn.Condition`, which says whether it is there. For a dictionary of conditions,
        a dictionary of probabilities leaves each out independently of the others.
    - `null`: value that stands for a condition that is left out, of the structure of
        one example's; the network then gets plain conditions, and `Guided(null=...)`
        the same value.

    - `num_bins`: number of parts of the noise levels whose losses are metrics,
        `"loss_bin_0"` for the lowest levels and so on; none by default. The parts are
        equally probable, between quantiles of `times`, and the mean of their losses is
        the loss. `level_errors` measures a trained denoiser at given levels.

    Noise, weights and errors are in float32 for data in half precision.

    `loss(denoiser, batch, key=key)` takes a batch `x_0` or `(x_0, cond)`, plain or a
    `jaxprob.Batch`, and returns the scalar and the dictionary of metrics.
    """

    weighting: Weighting
    times: AbstractTimes
    stratified: bool = eqx.field(static=True)
    unbiased: bool = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)
    cond_dropout: Rates = eqx.field(static=True)
    null: PyTree
    num_bins: int = eqx.field(static=True)

    def __init__(
        self,
        weighting: str | Weighting = "eps",
        times: AbstractTimes | None = None,
        *,
        stratified: bool = True,
        unbiased: bool = False,
        batch_size: int | None = None,
        cond_dropout: float | Mapping[str, float] = 0.0,
        null: PyTree = None,
        num_bins: int = 0,
    ):
        if num_bins < 0 or (num_bins and batch_size is not None):
            raise ValueError(
                f"num_bins={num_bins}: a number of bins from 0 on, without batch_size, "
                "which keeps no error of single rows"
            )
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: at least one row")
        times = UniformTimes() if times is None else times
        check_kind(
            "times", times, AbstractTimes, "give a distribution, e.g. UniformTimes()"
        )
        _check_weighting(weighting)
        self.weighting = ErrorOf(weighting) if isinstance(weighting, str) else weighting
        self.times = times
        self.stratified = stratified
        self.unbiased = unbiased
        self.batch_size = batch_size
        self.cond_dropout = as_rates(cond_dropout)
        self.null = null
        self.num_bins = num_bins

    def check(self, denoiser: AbstractDenoiser, data: PyTree) -> None:
        """Warn of data, or columns of them, far from the scale the denoiser expects.

        It also warns of training times that leave out the levels at which the data are
        decided.

        **Raises:** `TypeError` for data that are not floating-point; `ValueError` for
        conditions that the network does not know.
        """
        check_denoiser(denoiser)
        x_0, cond = split_batch(data)
        check_condition(denoiser, cond)
        check_rates(self.cond_dropout, cond)
        check_readable(denoiser, single(x_0), cond)
        check_units(denoiser, x_0)
        check_times(self.times, denoiser, x_0)

    def __call__(
        self, denoiser: AbstractDenoiser, batch: PyTree, *, key: PRNGKey
    ) -> tuple[Scalar, Metrics]:
        check_denoiser(denoiser)
        check_key(key)
        data, mask = unpack(batch)
        x_0, cond = split_batch(data)
        x_0 = single(x_0)
        time_key, noise_key = jax.random.split(key)
        u = uniforms(time_key, jnp.asarray(mask), stratified=self.stratified)
        rows = x_0, cond, u, example_keys(noise_key, num_rows(x_0))
        if self.batch_size is None or self.batch_size >= num_rows(x_0):
            errors, mask = self._errors(denoiser, rows), jnp.asarray(mask)
            metrics = level_bins(errors, u, mask, self.num_bins)
            return masked_mean(errors, mask), metrics
        return mean_in_batches(
            denoiser, self._errors, rows, jnp.asarray(mask), self.batch_size
        ), {}

    def _errors(self, denoiser, rows):
        """Return the weighted error of each row, at the quantile of its time."""

        def one(x_0, cond, u, key):
            t = self.times.quantile(denoiser.schedule, u.astype(x_0.dtype))
            t = before_the_end(denoiser.schedule, t)
            weight = self.weighting(denoiser.schedule, t)
            if self.unbiased:
                weight = weight / self.times.density(denoiser.schedule, t)
            drop_key, key = jax.random.split(key)
            cond = drop_conditions(cond, self.cond_dropout, self.null, key=drop_key)
            level = denoiser.schedule.level(t)
            return weight * denoising_error(denoiser, x_0, level, cond, key=key)

        return jax.vmap(one)(*rows)


def _check_weighting(weighting):
    if isinstance(weighting, type):
        name = weighting.__name__
        raise TypeError(f"weighting is the class {name}: make one, {name}(...)")
    if not (isinstance(weighting, str) or callable(weighting)):
        raise TypeError(
            f"weighting={weighting!r} is a {type(weighting).__name__}: give the name "
            "of a parameterisation, e.g. 'eps', or a function of (schedule, t)"
        )


def split_batch(data: PyTree) -> tuple[Float[Array, "batch *shape"], Cond]:
    """Return `(x_0, cond)` of a batch's data, an array or a pair of it and a condition.

    **Raises:** `TypeError` for anything else, or data that are not floating-point.
    """
    x_0: Any
    x_0, cond = data, None
    if isinstance(data, tuple | list) and len(data) == 2:
        x_0, cond = data
    if not isinstance(x_0, ARRAYS):
        raise TypeError(
            "a batch for a denoising loss is x_0, or (x_0, cond) with x_0 an array; "
            f"got {type(x_0).__name__}"
        )
    if not jnp.issubdtype(x_0.dtype, jnp.floating):
        raise TypeError(
            f"x_0 is {x_0.dtype}: standardise images to floats of mean 0 and standard "
            "deviation 1 (or give sigma_data) before training"
        )
    return jnp.asarray(x_0), cond
