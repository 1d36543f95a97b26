"""A checkpoint and an exit code for a run that a signal interrupts."""

import os
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import torch

from ..._engine.held_signals import Notes
from ..._io.paths import is_url, local_path
from .._trainer import private as _private
from .._trainer.watchers import PassiveCallback
from . import remote as _remote
from .newest_good import newest_good_checkpoint

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: try again later


class SaveOnSignal(PassiveCallback, Notes):
    """Callback that saves and exits within one dispatch of SIGTERM, SIGINT or SIGUSR1.

    It listens from the beginning of `trainer.fit` to the end. A signal before the first
    step (while data are prepared or programs compiled) is acted upon after that step.

    Without this callback Lightning exits with code 0 and no checkpoint on SIGTERM, and
    a scheduler considers the run complete.

    ```python
    trainer = pl.Trainer(callbacks=[SaveOnSignal()])
    trainer.fit(module, data, ckpt_path=SaveOnSignal.latest(folder))
    ```

    Exit codes: 143 for SIGTERM, 130 for SIGINT, `requeue_code` for SIGUSR1, which
    schedulers send shortly before a time limit. A second SIGINT stops at once. While
    nothing is trained (`trainer.predict`), there is nothing to save, and the exit code
    is the same. Of several signals the first one counts. Of several processes it is
    enough that one receives it: they exchange it after each dispatch, and all exit
    together.

    **Arguments:**

    - `folder`: where `interrupted.ckpt` goes, also as a URL; by default beside the
        Trainer's other checkpoints, or `default_root_dir`.
    - `requeue_code`: for SIGUSR1.
    """

    NAME = "interrupted.ckpt"

    def __init__(
        self, folder: str | Path | None = None, *, requeue_code: int = REQUEUE
    ):
        self._folder = folder
        self._codes = {
            signal.SIGTERM: 128 + signal.SIGTERM,
            signal.SIGINT: 128 + signal.SIGINT,
            signal.SIGUSR1: requeue_code,
        }
        self._received: int | None = None
        self._interrupted = False
        self._before: dict[int, Any] = {}

    @classmethod
    def latest(cls, folder: str | Path) -> str | None:
        """Return the checkpoint to resume from, or `None` for a run from the beginning.

        It is the one of most training steps: `interrupted.ckpt`, or another that the
        run wrote after it. This is `newest_good_checkpoint(folder)`.
        """
        return newest_good_checkpoint(folder)

    # A `LearnerModule` calls `listen` before all of these. Lightning installs other
    # handlers between `on_fit_start` and the sanity check.

    def setup(self, trainer, pl_module, stage: str) -> None:
        self.listen()

    def on_sanity_check_start(self, trainer, pl_module) -> None:
        self.listen()

    def on_train_start(self, trainer, pl_module) -> None:
        self.listen()

    def on_validation_start(self, trainer, pl_module) -> None:
        self.listen()

    def on_test_start(self, trainer, pl_module) -> None:
        self.listen()

    def on_predict_start(self, trainer, pl_module) -> None:
        self.listen()

    def on_train_batch_end(
        self, trainer, pl_module, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._leave(trainer, pl_module)

    def on_validation_batch_end(
        self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0
    ) -> None:
        self._leave(trainer, pl_module)

    def on_test_batch_end(
        self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0
    ) -> None:
        self._leave(trainer, pl_module)

    def on_predict_batch_end(
        self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0
    ) -> None:
        self._leave(trainer, pl_module)

    def on_train_end(self, trainer, pl_module) -> None:
        self._leave(trainer, pl_module)

    def on_exception(self, trainer, pl_module, exception: BaseException) -> None:
        # It still listens, and does nothing, while other callbacks save checkpoints.
        if threading.current_thread() is threading.main_thread():
            _private.restore_at_teardown(trainer, self._before)
            self._before = {}

    def teardown(self, trainer, pl_module, stage: str) -> None:
        self._restore()
        self._leave(trainer, pl_module)  # of a signal that came after the last step

    def listen(self) -> None:
        """Replace the handlers of the three signals, until the run ends.

        Handlers can be installed in the main thread only. For a fit in another thread,
        call this in the main thread first.
        """
        if threading.current_thread() is not threading.main_thread():
            if not self._before:
                warnings.warn(
                    "SaveOnSignal receives no signals: handlers are installed in the "
                    "main thread alone, and this fit runs in another. Call listen() of "
                    "the callback in the main thread first",
                    stacklevel=2,
                )
            return
        if not self._before:  # the run begins
            self._received, self._interrupted = None, False
        for number in self._codes:
            current = signal.getsignal(number)
            if current != self._note:
                self._before.setdefault(number, current)
                signal.signal(number, self._note)

    def _restore(self):
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before = {}

    def _note(self, number, frame):
        if number == signal.SIGINT:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
        if self._received is None:
            self._received = number

    def _leave(self, trainer, pl_module):
        if trainer.sanity_checking:
            return  # there is something to save after the first step
        number = _received_anywhere(trainer, self._received)
        if not number:
            return
        self._received, self._interrupted = None, False
        if trainer.state.fn == "fit":
            path = self._path(trainer)
            trainer.save_checkpoint(path, weights_only=False)
            if trainer.is_global_zero:
                print(f"{signal.Signals(number).name}: saved {path}", flush=True)
        raise SystemExit(self._codes[signal.Signals(number)])

    def folder(self, trainer: Any) -> Any:
        """Return the folder or URL that the checkpoint goes into."""
        if self._folder is not None:
            return self._folder
        checkpoint = trainer.checkpoint_callback
        return getattr(checkpoint, "dirpath", None) or trainer.default_root_dir

    def _path(self, trainer):
        folder = self.folder(trainer)
        if is_url(folder):
            return _remote.join(os.fspath(folder), self.NAME)
        return os.fspath(local_path("folder", folder) / self.NAME)


def _received_anywhere(trainer, received):
    """Return the signal that any process has received, or zero."""
    number = 0 if received is None else int(received)
    if trainer.world_size == 1:
        return number
    return int(trainer.strategy.all_gather(torch.tensor(number)).max())
