"""A denoiser in training as a LightningModule, with previews of its samples."""

import warnings
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytorch_lightning as pl
from jaxtyping import PyTree

from ..._training.batch import num_rows, unpack
from ..._training.gradient_descent import GradientDescent
from ..._training.host_batch import host_batch
from ..._training.learner import AbstractLearner
from ..._training.low_precision import LowPrecisionLoss
from ..._types import Model
from ...diffusion import (
    AbstractDenoiser,
    AbstractSampler,
    DenoisingLoss,
    Draw,
    Guided,
    ODESampler,
    sample,
)
from ...diffusion.nn import check_condition, null_is_untrained, reader_of
from .._loop.predictor import AbstractPredictor
from .module import LearnerModule
from .previews import Previews

_BATCHES = 2**24  # from the index of one loader's samples to that of the next


class DiffusionModule(LearnerModule):
    """Training of a denoiser, with previews of its samples.

    ```python
    learner = GradientDescent(DenoisingLoss(), optax.adabelief(3e-4), ema=EMA(0.999))
    module = DiffusionModule(learner, denoiser, shape=(1, 8, 8))
    trainer.fit(module, ArrayDataModule(train=images, batch_size=256))
    samples = trainer.predict(module, ArrayLoader(np.arange(64), batch_size=32))
    ```

    Predicting draws one sample for each row of a batch; with `conditional=True` the
    rows are the conditions. For a class-conditional model, train on `(x, labels)` with
    `DenoisingLoss(cond_dropout=0.1)` and a network of so many classes:

    ```python
    learner = GradientDescent(DenoisingLoss(cond_dropout=0.1), optax.adabelief(3e-4))
    module = DiffusionModule(
        learner, class_denoiser, shape=(1, 8, 8), conditional=True, guidance=1.0,
        preview_cond=np.arange(10),
    )
    trainer.fit(module, ArrayDataModule(train=(images, labels), batch_size=256))
    sevens = trainer.predict(module, ArrayLoader(np.full(64, 7), batch_size=32))
    ```

    **Arguments:**

    - `learner`: `jaxprob.GradientDescent` with a loss of `jaxprob.diffusion`.
    - `denoiser`: the model, an `AbstractDenoiser`.
    - `shape`: of one example.
    - `sampler`: how samples are drawn; `jaxprob.diffusion.ODESampler` by default.
    - `conditional`: whether rows given to predict are conditions.
    - `guidance`: strength of classifier-free guidance, see `jaxprob.diffusion.Guided`;
        0 is the model itself.
    - `num_previews`: images in the grid that is logged as `samples`; 0 for none.
    - `preview_cond`: their conditions, one in each row, of a conditional model; without
        them there are no previews. Classes, each as often as any other, have a column
        each with their number above it.
    - `previews_every_n_epochs`: how often.
    - the others: as in `LearnerModule`.
    """

    argument_names: ClassVar[dict[str, str]] = {"model": "denoiser"}

    def __init__(
        self,
        learner: AbstractLearner,
        denoiser: Model,
        *,
        shape: tuple[int, ...],
        sampler: AbstractSampler | None = None,
        conditional: bool = False,
        guidance: float = 0.0,
        num_previews: int = 16,
        preview_cond: Any = None,
        previews_every_n_epochs: int = 1,
        **kwargs: Any,
    ):
        if not isinstance(denoiser, AbstractDenoiser):
            raise TypeError(
                f"denoiser is a {type(denoiser).__name__}: wrap a network, "
                "Preconditioned(net, schedule)"
            )
        if previews_every_n_epochs < 1:
            raise ValueError(f"previews_every_n_epochs={previews_every_n_epochs} < 1")
        if preview_cond is not None:
            if not conditional:
                raise ValueError("preview_cond is for a model with conditional=True")
            check_condition(denoiser, preview_cond)
            num_previews = num_rows(preview_cond)
        if guidance and not conditional:
            raise ValueError(
                f"guidance={guidance} acts on a condition: give conditional=True"
            )
        if guidance:
            _check_dropped(learner, denoiser, guidance)
        super().__init__(learner, denoiser, **kwargs)
        self.shape = tuple(shape)
        self.sampler = ODESampler() if sampler is None else sampler
        self.conditional = conditional
        self.guidance = guidance
        self.preview_cond = preview_cond
        self.num_previews = num_previews
        self.previews_every_n_epochs = previews_every_n_epochs
        self._engine.description.add(
            shape=self.shape,
            sampler=self.sampler,
            conditional=conditional,
            guidance=float(guidance),
            num_previews=num_previews,
            preview_cond=jax.tree.map(np.asarray, preview_cond),
            previews_every_n_epochs=previews_every_n_epochs,
        )
        self._engine.predictor = SamplePredictor(self)

    def sample(self, num_samples: int, *, index: int = 0, cond: Any = None) -> Draw:
        """Draw samples from the current model.

        **Arguments:**

        - `num_samples`: how many.
        - `index`: chooses which samples.
        - `cond`: their conditions, one in each row.

        **Returns:** the draws, with the number of evaluations that each took.
        """
        _, key = jax.random.split(self._engine.keys.draws)
        return _draw(self, jax.random.fold_in(key, index), num_samples, cond)

    def previews(self) -> np.ndarray:
        """Return the samples of the preview, which start from the same noise always."""
        key, _ = jax.random.split(self._engine.keys.draws)
        draws = _draw(self, key, self.num_previews, self.preview_cond)
        return np.asarray(draws.x_0)

    def configure_callbacks(self) -> list[pl.Callback]:
        callbacks, trainer = super().configure_callbacks(), cast(Any, self.trainer)
        known = any(isinstance(c, Previews) for c in trainer.callbacks)
        wanted = self.num_previews and (
            not self.conditional or self.preview_cond is not None
        )
        return callbacks + ([Previews()] if wanted and not known else [])


class SamplePredictor(AbstractPredictor):
    """One sample for each row of a batch, whose rows may be conditions.

    **Arguments:**

    - `module`: a `DiffusionModule`.
    """

    def __init__(self, module: Any):
        self._module = module

    def predict(self, batch: PyTree, index: int, loader: int) -> np.ndarray:
        data, mask = unpack(host_batch(batch))
        cond = data if self._module.conditional else None
        index = index + loader * _BATCHES
        draws = self._module.sample(num_rows(data), index=index, cond=cond)
        return np.asarray(draws.x_0)[: int(np.sum(mask))]


def _draw(module, key, num_samples, cond):
    model = module.model
    if module.guidance:
        model = Guided(model, module.guidance)
    cond = jax.tree.map(jnp.asarray, cond)
    return sample(
        model,
        module.sampler,
        key=key,
        num_samples=num_samples,
        shape=module.shape,
        cond=cond,
    )


def _check_dropped(learner, denoiser, guidance):
    """Check that training leaves conditions out, if the loss is a `DenoisingLoss`."""
    loss = learner.loss if isinstance(learner, GradientDescent) else None
    while isinstance(loss, LowPrecisionLoss):
        loss = loss.loss
    if not isinstance(loss, DenoisingLoss) or loss.cond_dropout != 0.0:
        return
    problem = (
        f"guidance={guidance} needs the denoiser without its condition, which "
        "DenoisingLoss(cond_dropout=0.0) does not train: write "
        "DenoisingLoss(cond_dropout=0.1)"
    )
    if null_is_untrained(denoiser):
        raise ValueError(problem)
    if reader_of(denoiser) is None:
        warnings.warn(problem + ", unless it was trained before", stacklevel=3)
