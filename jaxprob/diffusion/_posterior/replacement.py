"""Replacement of the part of an example that was measured."""

from dataclasses import KW_ONLY
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from .._denoiser.denoiser import AbstractDenoiser
from .._schedule.argument_checks import check_count
from .._types import Level
from .conditioned import AbstractPosteriorDenoiser, Prior
from .local_gaussian import exact_measurement
from .observation import Observation
from .solve import pseudo_solve


class Replacement(AbstractPosteriorDenoiser):
    r"""The denoiser's answer with its measured part replaced by the measurement.

    $$D(x, s \mid y) = D + A^+ (y - A D),$$

    so that entries of a mask are y and the others those of D. All noise is ignored, and
    samples agree with y exactly. The part that was not measured is not told of y but
    through x: it is exact if the two are independent. `RePaint` lets them agree better.
    It costs no derivative of the network.

    ```python
    settings = {"linear": True, "shape": (2,)}
    observation = Observation(y[0, :1], lambda x: x[:1], noise=0.0, **settings)
    posterior = Replacement(denoiser, observation)
    ```

    Reference: *Score-Based Generative Modeling through Stochastic Differential
    Equations*, Song et al., 2021, on imputation, for a mask; *Zero-Shot Image
    Restoration Using Denoising Diffusion Null-Space Model*, Wang et al., 2023, for
    any linear operator.

    **Arguments:**

    - `denoiser`: of the prior.
    - `observation`: the measurement, of a linear operator. Its noise is not used.
    - `max_dense`: as in `PiGDM`.
    """

    denoiser: AbstractDenoiser
    observation: Observation
    _: KW_ONLY
    max_dense: int = eqx.field(static=True, default=64)

    takes_exact: ClassVar[bool] = True
    requires_linear: ClassVar[bool] = True

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
        local = exact_measurement(observation, x_0)
        z = pseudo_solve(
            lambda u: local.push(local.pull(u)),
            local.residual,
            max_dense=self.max_dense,
        )
        return x_0 + local.pull(z)
