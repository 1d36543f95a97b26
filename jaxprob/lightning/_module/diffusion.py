"""A denoiser in training as a LightningModule, with samples to look at."""

import warnings
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytorch_lightning as pl

from ..._training.batch import num_rows, unpack
from ..._training.gradient_descent import GradientDescent
from ..._training.host_batch import host_batch
from ..._training.learner import AbstractLearner
from ..._training.loader import ArrayLoader
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
from .._logging.images import image_grid, log_image
from .module import LearnerModule

_BATCHES = 2**24  # from the index of one loader's samples to that of the next


class DiffusionModule(LearnerModule):
    """Trains a denoiser and draws previews of its samples.

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
    module = DiffusionModule(learner, denoiser, shape=(1, 8, 8), conditional=True,
                             guidance=1.0, preview_cond=np.arange(10))
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
        them it shows no previews. Classes, each as often as any other, have a column
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
                f"guidance={guidance} acts on a condition: say conditional=True"
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
        self._description.add(
            shape=self.shape,
            sampler=self.sampler,
            conditional=conditional,
            guidance=float(guidance),
            num_previews=num_previews,
            preview_cond=jax.tree.map(np.asarray, preview_cond),
            previews_every_n_epochs=previews_every_n_epochs,
        )

    def sample(self, num_samples: int, *, index: int = 0, cond: Any = None) -> Draw:
        """Draw from the current model; `index` chooses which samples.

        **Returns:** the draws, with the number of evaluations that each took.
        """
        key = jax.random.fold_in(self._sample_key, index)
        return self._draw(key, num_samples, cond)

    def configure_callbacks(self) -> list[pl.Callback]:
        callbacks, trainer = super().configure_callbacks(), cast(Any, self.trainer)
        known = any(isinstance(c, _Previews) for c in trainer.callbacks)
        wanted = self.num_previews and (
            not self.conditional or self.preview_cond is not None
        )
        return callbacks + ([_Previews()] if wanted and not known else [])

    def _use_seed(self, seed):
        keys = super()._use_seed(seed)
        self._preview_key, self._sample_key = jax.random.split(self._draw_key)
        return keys

    def _predict(self, batch, batch_idx, dataloader_idx):
        """One sample for each row of the batch, without padding."""
        data, mask = unpack(host_batch(batch))
        cond = data if self.conditional else None
        index = batch_idx + dataloader_idx * _BATCHES
        draws = self.sample(num_rows(data), index=index, cond=cond)
        return np.asarray(draws.x_0)[: int(np.sum(mask))]

    def previews(self) -> np.ndarray:
        """The samples of the preview: the same noise whenever it is asked for."""
        draws = self._draw(self._preview_key, self.num_previews, self.preview_cond)
        return np.asarray(draws.x_0)

    def _draw(self, key, num_samples, cond):
        model = self.model
        if self.guidance:
            model = Guided(model, self.guidance)
        cond = jax.tree.map(jnp.asarray, cond)
        return sample(
            model,
            self.sampler,
            key=key,
            num_samples=num_samples,
            shape=self.shape,
            cond=cond,
        )


def _check_dropped(learner, denoiser, guidance):
    """Check that training leaves conditions out, where the loss is one of ours."""
    loss = learner.loss if isinstance(learner, GradientDescent) else None
    while isinstance(loss, LowPrecisionLoss):
        loss = loss.loss
    if not isinstance(loss, DenoisingLoss) or loss.cond_dropout > 0.0:
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


class _Previews(pl.Callback):
    """Logs a grid of samples at the end of an epoch."""

    def __init__(self):
        self._limits: tuple[float, float] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._limits = _extremes(trainer.train_dataloader, pl_module.shape)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        due = (trainer.current_epoch + 1) % pl_module.previews_every_n_epochs == 0
        drawable = len(pl_module.shape) in (2, 3)
        if not due or not drawable or not trainer.loggers:
            return
        try:
            images = pl_module.previews()
        # A young network may be too stiff to sample, or not have seen a row whose
        # condition was left out, without which it cannot be guided.
        except (RuntimeError, ValueError) as error:
            warnings.warn(f"no preview of samples: {error}", stacklevel=2)
            return
        grid = _grid(images, pl_module.preview_cond, self._limits)
        log_image(trainer, "samples", grid, trainer.global_step)


def _extremes(loaders, shape):
    """Black and white of the training images, where they lie in memory."""
    leaves = [
        leaf
        for loader in jax.tree.leaves(loaders)
        if isinstance(loader, ArrayLoader)
        for leaf in jax.tree.leaves(loader.data)
        if np.shape(leaf)[1:] == shape
    ]
    if not leaves:
        return None
    return float(np.min(leaves[0])), float(np.max(leaves[0]))


def _grid(images, cond, limits):
    """One column for each class where the conditions are classes of equal number."""
    if limits is None:
        finite = images[np.isfinite(images)]
        if finite.size:  # of which a few lie far out
            low, high = np.quantile(finite, [0.01, 0.99])
            limits = float(low), float(high)
    cond = None if cond is None else jax.tree.leaves(cond)[0]
    if cond is None or np.ndim(cond) != 1 or not np.issubdtype(cond.dtype, np.integer):
        return image_grid(images, limits=limits)
    classes, counts = np.unique(np.asarray(cond), return_counts=True)
    if len(set(counts)) > 1:
        return image_grid(images, limits=limits)
    by_class = np.argsort(cond, kind="stable").reshape(len(classes), -1)
    return image_grid(
        images[by_class.T.ravel()],
        columns=len(classes),
        titles=classes.tolist(),
        limits=limits,
    )
