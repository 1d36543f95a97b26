"""The door: a denoiser of what was measured."""

from typing import Any

from .._denoiser.denoiser import AbstractDenoiser, check_denoiser
from .._schedule.argument_checks import check_kind
from .conditioned import AbstractPosteriorDenoiser
from .mmps import MMPS
from .observation import Observation


def condition(
    denoiser: AbstractDenoiser,
    observation: Observation,
    method: Any = MMPS,
    **settings: Any,
) -> AbstractPosteriorDenoiser:
    r"""Return a denoiser of $p(x \mid y)$, for every sampler.

    ```python
    posterior = condition(denoiser, Observation(y[0], noise=0.1))
    draws = sample(posterior, ExpAB(8), key=key, num_samples=4, shape=(2,))
    ```

    The default is exact for Gaussian data, a linear operator and Gaussian noise. For
    other data, `docs/posteriors.md` has the error of each method.

    **Arguments:**

    - `denoiser`: of the prior, in any units of the data.
    - `observation`: what was measured.
    - `method`: `MMPS`, `TMPD`, `PiGDM`, `DPS`, `DiffPIR` or `Replacement`.
    - `settings`: of the method.
    """
    check_denoiser(denoiser)
    check_kind("observation", observation, Observation, "write Observation(y, ...)")
    if not (isinstance(method, type) and issubclass(method, AbstractPosteriorDenoiser)):
        raise TypeError(
            f"method={method!r}: give a class such as MMPS, with its settings behind "
            "it: condition(denoiser, observation, DPS, strength=0.5)"
        )
    make: Any = method
    return make(denoiser, observation, **settings)
