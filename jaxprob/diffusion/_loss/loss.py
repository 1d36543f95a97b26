"""Denoising score matching: the loss whose minimum is the score."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._random.keys import check_key, example_keys
from ..._training.batch import masked_mean, num_rows, unpack
from ..._types import Metrics, PRNGKey
from ...tree._single import single
from .._denoiser.denoiser import AbstractDenoiser, check_denoiser
from .._schedule.argument_checks import check_kind
from .._types import Cond, Scalar, Time
from ..nn import as_condition, check_condition
from .chunks import mean_in_chunks
from .condition_rows import check_readable
from .time_checks import check_times
from .times import AbstractTimes, UniformTimes, before_the_end, uniforms
from .unit_checks import check_units
from .weighting import ErrorOf, Weighting


def denoising_error(
    denoiser: AbstractDenoiser,
    x_0: Float[Array, "*shape"],
    t: Time,
    cond: Cond = None,
    *,
    key: PRNGKey,
) -> Scalar:
    r"""Mean square of $(D(x_t, t) - x_0)/S$ over the coordinates of one example.

    S is the scale of the data that the denoiser knows: the error is that of the
    standardised data, the same in any units.

    **Arguments:**

    - `denoiser`: the model.
    - `x_0`: clean example.
    - `t`: time to noise it to.
    - `cond`: its condition.
    - `key`: of the noise, and of the network.

    **Returns:** the error, in single precision at least: three digits, which is what
    bfloat16 has, do not hold the noise of a low level.
    """
    unit, units = denoiser.standardised()
    x_0 = units.to_unit(single(x_0))
    noise_key, net_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, x_0.shape, x_0.dtype)
    x_t = unit.schedule.perturb(x_0, t, noise)
    return jnp.mean((unit(x_t, t, cond, key=net_key) - x_0) ** 2)


class DenoisingLoss(eqx.Module):
    r"""$E_t\,E_{x_0, z}\; w(t)\,\|D(x_t, t) - x_0\|^2 / \dim x$, over a batch.

    In units of the data's standard deviation, which the denoiser knows.

    Its minimum over all functions is the posterior mean, whatever the weights and the
    times; they say where a network of finite size is to be good.

    Reference: *A Connection Between Score Matching and Denoising Autoencoders*,
    Vincent, 2011.

    ```python
    learner = jaxprob.GradientDescent(DenoisingLoss(), optax.adam(1e-3))
    state, history = jaxprob.fit(learner, denoiser, x, key=key, num_steps=1000)
    ```

    **Arguments:**

    - `weighting`: `(schedule, t) -> weight`, or the name of a parameterisation whose
        error is to count. `"eps"` by default: Ho et al., 2020, and Kidger's example.
    - `times`: the law of t; uniform by default.
    - `stratified`: one time in each of as many equal parts of the law as there are
        rows, which makes the loss less noisy at no cost.
    - `unbiased`: divide by the density of the times, so that the mean over batches is
        $\int w(t)\,E\|D - x_0\|^2 dt / \dim x$ whatever their law: importance sampling.
    - `rows_at_once`: if given, the batch goes through the network so many rows at a
        time, forwards and backwards, and gradients add up: the same numbers, for the
        memory of so many rows. On a CPU, whose cache holds the activations of 8 images
        and not of 64, a Mixer trains half as fast again; a network of convolutions
        several times slower, as XLA's loops there leave the fast library. Gradients
        only: a loss made so cannot be differentiated twice or forwards.
    - `drop_cond`: probability with which a row's condition is left out, for
        classifier-free guidance (`Guided`); 0.1 is usual. The network then gets an
        `nn.Condition`, which says whether it is there.

    Data in half precision are noised, and their errors weighed, in float32.

    Called as `loss(denoiser, batch, *, key)` on a batch `x_0` or `(x_0, cond)`, plain
    or a `jaxprob.Batch`; gives the scalar and metrics (none).
    """

    weighting: Weighting
    times: AbstractTimes
    stratified: bool = eqx.field(static=True)
    unbiased: bool = eqx.field(static=True)
    rows_at_once: int | None = eqx.field(static=True)
    drop_cond: float = eqx.field(static=True)

    def __init__(
        self,
        weighting: str | Weighting = "eps",
        times: AbstractTimes | None = None,
        *,
        stratified: bool = True,
        unbiased: bool = False,
        rows_at_once: int | None = None,
        drop_cond: float = 0.0,
    ):
        if rows_at_once is not None and rows_at_once < 1:
            raise ValueError(f"rows_at_once={rows_at_once}: at least one row")
        if not 0.0 <= drop_cond <= 1.0:
            raise ValueError(f"drop_cond={drop_cond} is a probability, in [0, 1]")
        times = UniformTimes() if times is None else times
        check_kind(
            "times", times, AbstractTimes, "give a law of times, UniformTimes() say"
        )
        _check_weighting(weighting)
        self.weighting = ErrorOf(weighting) if isinstance(weighting, str) else weighting
        self.times = times
        self.stratified = stratified
        self.unbiased = unbiased
        self.rows_at_once = rows_at_once
        self.drop_cond = drop_cond

    def check(self, denoiser: AbstractDenoiser, data: PyTree) -> None:
        """Warn of data, or columns of them, far from the scale the denoiser expects.

        Also of training times that leave out the levels at which the data are decided.

        **Raises:** `TypeError` for data that are not floating-point; `ValueError` for
        conditions that the network does not know.
        """
        check_denoiser(denoiser)
        x_0, cond = split_batch(data)
        check_condition(denoiser, cond)
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
        if self.rows_at_once is None or self.rows_at_once >= num_rows(x_0):
            return masked_mean(self._errors(denoiser, rows), mask), {}
        return mean_in_chunks(
            denoiser, self._errors, rows, jnp.asarray(mask), self.rows_at_once
        ), {}

    def _errors(self, denoiser, rows):
        """Weighted error of each row, given its time's quantile and its key."""

        def one(x_0, cond, u, key):
            t = self.times.quantile(denoiser.schedule, u.astype(x_0.dtype))
            t = before_the_end(denoiser.schedule, t)
            weight = self.weighting(denoiser.schedule, t)
            if self.unbiased:
                weight = weight / self.times.density(denoiser.schedule, t)
            drop_key, key = jax.random.split(key)
            if self.drop_cond > 0.0:
                drop = jax.random.bernoulli(drop_key, self.drop_cond)
                cond = as_condition(cond, ~drop)
            return weight * denoising_error(denoiser, x_0, t, cond, key=key)

        return jax.vmap(one)(*rows)


def _check_weighting(weighting):
    if isinstance(weighting, type):
        name = weighting.__name__
        raise TypeError(f"weighting is the class {name}: make one, {name}(...)")
    if not (isinstance(weighting, str) or callable(weighting)):
        raise TypeError(
            f"weighting={weighting!r} is a {type(weighting).__name__}: give the name "
            "of a parameterisation, 'eps' say, or a function of (schedule, t)"
        )


def split_batch(data: PyTree) -> tuple[Float[Array, "batch *shape"], Cond]:
    """`(x_0, cond)` of a batch's data: an array, or a pair of an array and anything.

    **Raises:** `TypeError` for anything else, or data that are not floating-point.
    """
    x_0: Any
    x_0, cond = data, None
    if isinstance(data, tuple | list) and len(data) == 2:
        x_0, cond = data
    if not hasattr(x_0, "dtype"):
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
