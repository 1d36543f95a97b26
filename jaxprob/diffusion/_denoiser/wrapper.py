"""The base class of denoisers that change another."""

import equinox as eqx

from .._schedule.schedule import AbstractSchedule
from .._types import Level, Scalar
from ..nn import AbstractReader
from .denoiser import AbstractDenoiser
from .units import Units


class AbstractDenoiserWrapper(AbstractDenoiser):
    """A denoiser that changes the answers of another, `self.denoiser`.

    It forwards all that a denoiser says of itself: the schedule, the units, the reader
    of conditions and the gain. `standardised` is the same wrapper of the other's
    standardised denoiser, which is right if the change is the same in any units of the
    data, as a weighted mean of answers is; otherwise a subclass defines `standardised`.

    ```python
    class Mirrored(AbstractDenoiserWrapper):
        denoiser: AbstractDenoiser

        def denoise(self, x, level, cond=None, *, key=None):
            there = self.denoiser.denoise(x, level, cond, key=key)
            mirrored = self.denoiser.denoise(x[:, :, ::-1], level, cond, key=key)
            return (there + mirrored[:, :, ::-1]) / 2.0
    ```
    """

    denoiser: eqx.AbstractVar[AbstractDenoiser]

    @property
    def schedule(self) -> AbstractSchedule:
        return self.denoiser.schedule

    @property
    def reader(self) -> AbstractReader | None:
        return self.denoiser.reader

    def standardised(self) -> tuple[AbstractDenoiser, Units]:
        inner, units = self.denoiser.standardised()
        return eqx.tree_at(lambda wrapper: wrapper.denoiser, self, inner), units

    def noise_units(self) -> Units:
        return self.denoiser.noise_units()

    def output_gain(self, level: Level) -> Scalar:
        return self.denoiser.output_gain(level)
