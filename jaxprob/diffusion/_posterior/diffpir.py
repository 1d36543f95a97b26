"""Plug-and-play image restoration with a diffusion model."""

from dataclasses import KW_ONLY

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._denoiser.denoiser import AbstractDenoiser
from .._schedule.argument_checks import check_count
from .._types import Level
from .conditioned import AbstractPosteriorDenoiser, Prior, as_positive
from .local_gaussian import local_gaussian
from .observation import Observation
from .solve import solve


class DiffPIR(AbstractPosteriorDenoiser):
    r"""The point near D(x) that explains the measurement.

    $$D(x, s \mid y) = \arg\min_v\ \|W (y - A v)\|^2 + \frac{\lambda}{s^2} \|v - D\|^2$$

    It is `MMPS` with $V = s^2/\lambda$, and costs no derivative of the network. It is
    exact for no data; prefer `MMPS` unless the network has no derivatives or they are
    too expensive. Sample it with `DDIM(eta=...)`, as in the paper. Noise that is not
    Gaussian is replaced as in `MMPS`.

    ```python
    posterior = DiffPIR(denoiser, Observation(y[0], noise=0.1))
    draws = sample(posterior, DDIM(8, eta=1.0), key=key, num_samples=4, shape=(2,))
    ```

    Reference: *Denoising Diffusion Models for Plug-and-Play Image Restoration*, Zhu et
    al., 2023.

    **Arguments:**

    - `denoiser`, `observation`: as in `MMPS`.
    - `lam`: $\lambda$, above 0: larger values trust the denoiser more.
    - `max_dense`: as in `PiGDM`.
    """

    denoiser: AbstractDenoiser
    observation: Observation
    _: KW_ONLY
    lam: float | Float[Array, ""] = eqx.field(default=1.0, converter=as_positive("lam"))
    max_dense: int = eqx.field(static=True, default=64)

    def __check_init__(self):
        check_count("max_dense", self.max_dense, "entries of y", least=0)

    def answer(
        self,
        prior: Prior,
        observation: Observation,
        x: Float[Array, "*shape"],
        level: Level,
    ) -> Float[Array, "*shape"]:
        x_0 = prior(x)
        local = local_gaussian(observation, x_0)
        variance = jnp.asarray(level, x.dtype) ** 2 / self.lam

        def product(u):
            return variance * local.push(local.pull(u))

        z = solve(product, local.residual, max_dense=self.max_dense)
        return x_0 + variance * local.pull(z)
