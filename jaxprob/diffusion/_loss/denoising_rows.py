r"""The denoising loss as the likelihood of a denoiser's weights.

Song et al., 2021, and Kingma et al., 2021, bound the log-density of one example by its
denoising errors at all noise levels $s$,

$$\log p(x_0 \mid w) \ge \mathrm{const} - \int E_z \|S^{-1}(D_w(x_0 + s S z, s) -
  x_0)\|^2 \, \frac{d \log s}{s^2}.$$

The right-hand side is the log-likelihood of one row, in nats. One row is one example,
and N is their number: levels and noises are drawn by us and add no data.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._random.keys import example_keys
from ..._training.batch import num_rows
from ..._types import PRNGKey
from ...tree._single import single
from .._denoiser.denoiser import AbstractDenoiser, check_denoiser
from .._denoiser.units import along_leading
from .._schedule.argument_checks import as_example, check_count, check_kind
from .._types import Numbers
from .stratified import MARGIN, before_the_end
from .times import AbstractTimes, UniformLogSNR
from .weighting import ErrorOf, LikelihoodWeighting, Weighting


class DenoisingRows(eqx.Module):
    r"""Rows of a regression whose likelihood is the denoising loss.

    The targets of a row are L copies of its example $x_0$, and its outputs are the
    answers of the denoiser at L noise levels with the scales of their errors, $x_0 \sim
    N(D_w(x_0 + s_l S z_l, s_l), \kappa_l^{-1} S^2)$ with

    $$\kappa_l = \frac{2\,w(t_l)}{L\,q(t_l)\,T},$$

    so that for all methods of `jaxprob.bnn` a denoiser is a regression model. Up to a
    constant the log-likelihood of a row is an unbiased estimate of $-\tfrac1T \int w(t)
    E\|S^{-1}(D - x_0)\|^2 dt$. With the default weights and T = 1 that is the
    variational bound of $\log p(x_0 \mid w)$ in nats, and N the number of examples.

    ```python
    rows = DenoisingRows()
    data = rows(x, key=key)
    log_joint = bnn.LogJoint(
        bnn.KnownNoiseLikelihood(), bnn.FanInNormal(), num_data=len(x), apply=rows.apply
    )
    method = bnn.MAP(log_joint, optax.adam(1e-3))
    state, history = jaxprob.fit(method, denoiser, data, key=key, num_steps=10)
    ```

    **What the width of a posterior means.** The errors of one example at many levels
    are not independent, and the bound adds them up as if they were: it is a composite
    likelihood. Its maximum is right, and its curvature is the information in the data
    only where the bound is the log-density itself. `bnn.matched_temperature` computes
    the T for which posterior variances have the size that the maximum has between data
    sets. T divides the log-likelihood and not the prior.

    References: *Maximum Likelihood Training of Score-Based Diffusion Models*, Song et
    al., 2021; *Variational Diffusion Models*, Kingma et al., 2021; *Bayesian composite
    marginal likelihoods*, Pauli, Racugno and Ventura, 2011, for T.

    **Arguments:**

    - `num_levels`: L, of each row. More levels have less noise, and take more memory:
        targets and outputs have L times the size of the data.
    - `weighting`: as in `DenoisingLoss`, $w(t)$. Only the default is in nats; with
        another one T has no meaning before it is matched.
    - `times`: the distribution q of the times, stratified over the L levels of a row.
    - `unbiased`: whether q divides the weights. Otherwise it is a part of them, as in
        `DenoisingLoss`.
    - `temperature`: T.
    - `fresh`: whether levels and noise are new in every step of a method that passes a
        new key in each, as optimisers and SGMCMC do. Laplace, HMC and NUTS pass one
        key, so that their log joint is one function of the weights either way. With
        `False` each row keeps its noise, and all methods have the same log joint.
    """

    num_levels: int = eqx.field(static=True)
    weighting: Weighting
    times: AbstractTimes
    unbiased: bool = eqx.field(static=True)
    temperature: float = eqx.field(static=True)
    fresh: bool = eqx.field(static=True)

    def __init__(
        self,
        num_levels: int = 8,
        weighting: str | Weighting | None = None,
        times: AbstractTimes | None = None,
        *,
        unbiased: bool = True,
        temperature: float = 1.0,
        fresh: bool = True,
    ):
        check_count("num_levels", num_levels, "each row has at least one noise level")
        times = UniformLogSNR() if times is None else times
        check_kind("times", times, AbstractTimes, "give e.g. UniformLogSNR()")
        if not 0.0 < temperature < float("inf"):
            raise ValueError(
                f"temperature={temperature}: it divides the log-likelihood, so it is "
                "positive and finite"
            )
        self.num_levels = num_levels
        weighting = LikelihoodWeighting() if weighting is None else weighting
        self.weighting = ErrorOf(weighting) if isinstance(weighting, str) else weighting
        self.times = times
        self.unbiased = unbiased
        self.temperature = float(temperature)
        self.fresh = fresh

    def __call__(
        self, x_0: Numbers, cond: PyTree = None, *, key: PRNGKey
    ) -> tuple[dict[str, Any], Float[np.ndarray | Array, "rows levels ..."]]:
        """Return the rows `(x, y)` of a data set, for `fit`, `posterior` and chains.

        **Arguments:**

        - `x_0`: the data, along a leading axis.
        - `cond`: a condition for each, or `None`.
        - `key`: of the levels and the noise of every row.
        """
        x_0 = as_example("x_0", x_0)
        if x_0.ndim == 0 or len(x_0) == 0:
            raise ValueError(f"x_0 has shape {x_0.shape}: give at least one row")
        if cond is not None and num_rows(cond) != len(x_0):
            raise ValueError(
                f"cond has {num_rows(cond)} rows and x_0 has {len(x_0)}: give one "
                "condition for each example"
            )
        # Copies are views on the host, and no memory until a batch is made of them.
        host = np.asarray(x_0)
        shape = (len(host), self.num_levels, *host.shape[1:])
        targets = np.broadcast_to(host[:, None], shape)
        seeds = np.asarray(jax.random.key_data(example_keys(key, len(host))))
        return {"x_0": host, "cond": cond, "seed": seeds}, targets

    def apply(
        self, denoiser: AbstractDenoiser, x: Any, *, key: PRNGKey | None
    ) -> tuple[Float[Array, "levels ..."], Float[Array, "levels ..."]]:
        """Return the answers at the levels of one row and the scales of their errors.

        It is the `apply` of `bnn.LogJoint`, and the output of `KnownNoiseLikelihood`.
        """
        check_denoiser(denoiser)
        noise_key, net_key = self._keys(x, key)
        x_0, cond = single(jnp.asarray(x["x_0"])), x.get("cond")
        unit, units = denoiser.standardised()
        y_0, size = units.to_unit(x_0), along_leading(units.scale, x_0)

        def one(index, u, noise_key):
            t = self.times.quantile(denoiser.schedule, u)
            t = before_the_end(denoiser.schedule, t)
            level = denoiser.schedule.level(t)
            noise = jax.random.normal(noise_key, y_0.shape, y_0.dtype)
            of_net = None if net_key is None else jax.random.fold_in(net_key, index)
            answer = unit.denoise(y_0 + level * noise, level, cond, key=of_net)
            weight = self.weighting(denoiser.schedule, t)
            if self.unbiased:
                weight = weight / self.times.density(denoiser.schedule, t)
            precision = 2.0 * weight / (self.num_levels * self.temperature)
            return units.to_data(answer), size * jax.lax.rsqrt(precision)

        level_key, noise_key = jax.random.split(noise_key)
        u = _quantiles(level_key, self.num_levels).astype(y_0.dtype)
        noise_keys = jax.random.split(noise_key, self.num_levels)
        return jax.vmap(one)(jnp.arange(self.num_levels), u, noise_keys)

    def _keys(self, x, key):
        """Return the key of the noise of a row, and the one of the network."""
        if not isinstance(x, dict) or "seed" not in x:
            raise TypeError(
                f"x is a {type(x).__name__}: the rows of a denoiser are made by "
                "data = rows(x_0, key=key), and data are what fit and posterior take"
            )
        seed = jnp.asarray(x["seed"])
        if key is None or not self.fresh:
            return jax.random.wrap_key_data(seed), key
        noise_key, net_key = jax.random.split(key)
        # Laplace passes one key to all rows, whose noises differ by their seeds.
        for i in range(seed.size):
            noise_key = jax.random.fold_in(noise_key, seed[i])
        return noise_key, net_key


def _quantiles(key, num_levels):
    """Return a number in (0, 1) in each of L equal parts."""
    offsets = jax.random.uniform(key, (num_levels,))
    u = (jnp.arange(num_levels, dtype=offsets.dtype) + offsets) / num_levels
    return jnp.clip(u, MARGIN, 1.0 - MARGIN)
