"""Machinery of a `LearnerModule`, as one private object."""

from typing import Any, Literal

import numpy as np
from jaxtyping import PyTree
from pytorch_lightning.utilities.model_helpers import is_overridden

from ..._engine.layout import Layout
from ..._training.host_batch import count_rows, host_batch
from ..._training.learner import AbstractLearner
from ..._training.loader import ArrayLoader
from ..._types import Model
from ...datasets import Standardizer
from .._checkpoint.description import Description
from .._data.loaders import check_loader
from .._data.scalers import take_scalers
from .._logging.epoch_log import log_loader_means
from .._trainer import private as _private
from .._trainer.options import Options
from .dispatcher import Dispatcher
from .evaluation import Evaluation
from .fit import Fit
from .predictor import AbstractJudge, AbstractPredictor, ModelPredictor
from .run import Run
from .run_keys import RunKeys


class Engine:
    """Machinery of one `LearnerModule`, as its private attribute `_engine`.

    Lightning calls hooks of the module, which a user overrides; our callbacks, fetcher
    and optimiser call methods of this object, which a subclass of the user's cannot
    override by accident.

    **Arguments:**

    - `module`: the LightningModule.
    - `base`: the class whose methods do not count as overridden by the user.
    - the others: as in `LearnerModule`.

    **Fields:**

    - `run`: the learner's live state, with its key and its place in the data.
    - `keys`: of everything random.
    - `dispatcher`, `fit`: train.
    - `predictor`: predicts; a subclass of ours replaces it.
    - `description`, `scalers`: stand in checkpoints beside the state.
    - `rows`: rows that count in the batch in hand.
    - `predicted`: row numbers of each batch of predictions, by the index of its loader.
    - `frozen`: whether `module.freeze()` was called.
    """

    def __init__(
        self,
        module: Any,
        base: type,
        learner: AbstractLearner,
        model: Model,
        *,
        seed: int,
        steps_per_dispatch: int | Literal["auto"],
        layout: Layout,
    ):
        self.module = module
        self.keys = RunKeys(seed)
        self.run = Run(
            learner,
            model,
            init_key=self.keys.init,
            key=self.keys.steps,
            steps_per_dispatch=steps_per_dispatch,
            layout=layout,
        )
        self.dispatcher = Dispatcher(module, self.run, self.overrides)
        self.fit = Fit(module, self.dispatcher)
        self.predictor: AbstractPredictor = ModelPredictor(self.run)
        self.description = Description(learner, model)
        self.scalers: dict[str, Standardizer] = {}
        self.rows = 1
        self.frozen = False
        self.predicted: dict[int, list[np.ndarray | None]] = {}
        self._base = base
        self._evaluation: Evaluation | None = None

    @property
    def trainer(self) -> Any:
        return self.module.trainer

    @property
    def judge(self) -> AbstractJudge | None:
        """The predictor, if it judges what it predicts."""
        return self.predictor if isinstance(self.predictor, AbstractJudge) else None

    @property
    def is_fitting(self) -> bool:
        """`True` while a Trainer fits the module."""
        trainer = _private.attached_trainer(self.module)
        if trainer is None:
            return False
        return trainer.state.fn == "fit" and trainer.state.status == "running"

    def overrides(self, name: str) -> bool:
        """Return whether a subclass, or the module itself, has its own method."""
        return is_overridden(name, self.module, self._base)

    def adopt(self, options: Options) -> None:
        """Change the optimiser step to what a Trainer asks for."""
        if self.run.adopt(options):
            self._evaluation = None

    def use_seed(self, seed: int) -> None:
        """Derive the keys from another seed; the key of the steps stays."""
        self.keys = RunKeys(seed)
        self._evaluation = None

    def note_batch(self, batch: PyTree) -> None:
        """Count the rows of the batch in hand."""
        self.rows = count_rows(batch)

    def note_scalers(self) -> None:
        """Take over the scalers of the Trainer's data module."""
        take_scalers(self.scalers, self.trainer, fitting=self.is_fitting)

    def begin_prediction(self) -> None:
        """Begin the batches of `trainer.predict`."""
        self.note_scalers()
        self.predicted = {}
        if self.judge is not None:
            self.judge.begin_prediction()

    def note_predicted(self, batch: int, loader: int) -> None:
        """Note the row numbers of a batch of predictions."""
        rows = _private.predicted_rows(self.trainer, loader, batch)
        rows = None if rows is None else np.asarray(rows, np.int64)
        self.predicted.setdefault(loader, []).append(rows)

    def end_prediction(self) -> None:
        if self.judge is not None:
            self.judge.end_prediction()

    def take_loader(self, loader: Any) -> Any:
        """Return the loader that Lightning iterates.

        The place of a training loader is that of the run. Lightning hands over loaders
        of all stages, and the same object perhaps twice.

        **Raises:** as `check_loader`.
        """
        trainer = self.trainer
        loader = check_loader(loader, predicting=trainer.predicting)
        if not trainer.training or not isinstance(loader, ArrayLoader):
            return loader
        place = self.run.place
        loader = loader.following(lambda i: place.of_iterator(trainer, i))
        if trainer.overfit_batches:
            loader.shuffle = False  # the same batches in every epoch
        return loader

    def begin_evaluation(self) -> None:
        """Begin a validation or test of the current state."""
        run = self.run
        if self._evaluation is None:
            self._evaluation = Evaluation(run.active, self.keys.evaluation, run.layout)
        run.wait()
        self._evaluation.start(run.state)
        if self.judge is not None:
            self.judge.begin_evaluation()

    def evaluate(self, batch: PyTree, index: int, loader: int) -> None:
        """Add a batch to the means of a validation or test."""
        assert self._evaluation is not None
        run, batch = self.run, host_batch(batch)
        self.dispatcher.row_checks.evaluation(
            self.trainer,
            run.active,
            lambda: run.learner.model(run.fetch()),
            batch,
            loader,
        )
        self._evaluation(batch, index, loader)
        if self.judge is not None:
            self.judge.judge(batch, index, loader)

    def end_evaluation(self, prefix: str) -> None:
        """Log the means over each loader."""
        assert self._evaluation is not None
        self.dispatcher.row_checks.end_evaluation(self.trainer)
        log_loader_means(self.module, prefix, self._evaluation.means())
        if self.judge is not None:
            log_loader_means(self.module, prefix, self.judge.end_evaluation())

    # Copies: `copy.deepcopy`, pickle, and sending a module to a process.

    def __getstate__(self) -> dict[str, Any]:
        """Leave out compiled programs."""
        self.dispatcher.settle()
        return self.__dict__ | {"_evaluation": None}
